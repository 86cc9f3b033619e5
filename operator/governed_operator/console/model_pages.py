"""Pages about models: all of them, and one."""

from collections.abc import Mapping, Sequence

from governed_api.json_reading import mapping, text_of
from governed_api.json_types import Json
from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import facts, number
from governed_api.report import ArchiveReport, GateResult
from governed_api.verdict import BiasVerdict, MetricFinding
from governed_operator.console.document import away_note, clean, link, section, wide_table
from governed_operator.console.upstream import Away
from governed_operator.console.words import Words
from governed_operator.local.overview import Overview

__all__ = ["Shown", "archive_problems", "model_page", "models_page", "verdict_pill"]

_KINDS = {"Pass": "good", "pass": "good", "Fail": "bad", "fail": "bad", "Unknown": "warn", "no evidence": "warn"}


class Shown:
    """What is known of a model: parts may be absent, each by itself."""

    def __init__(self, key: str, name: str, overview: Overview | Away):
        self.key, self.name, self.overview = key, name, overview
        self.verdict: BiasVerdict | None = None
        self.contests: list[dict[str, Json]] | Away = []
        self.facts: dict[str, Json] | Away | None = None


def verdict_pill(words: Words, verdict: str) -> Safe:
    """The word in its language, in the colour of its kind."""
    known = words.known(verdict) if verdict in _KINDS or verdict == "not applicable" else clean(verdict)
    return tag("span", known, class_=f"pill {_KINDS.get(verdict, 'plain')}")


def models_page(words: Words, models: Sequence[Shown]) -> list[Safe]:
    """A card each, and before them what waits for a person."""
    waiting = [
        tag("li", tag("a", clean(shown.name), href=link(words, "models", shown.key)), ": ", what)
        for shown in models
        if isinstance(shown.overview, Overview)
        for what in _waiting(words, shown.overview)
    ]
    cards = [_card(words, shown) for shown in models]
    return [
        section(words("waits"), tag("ul", waiting) if waiting else tag("p", words("nothing waits"))),
        section(words("models"), tag("div", cards, class_="models") if cards else tag("p", words("no models"))),
    ]


def _waiting(words: Words, overview: Overview) -> list[str]:
    found = [words("in force", action=clean(action)) for action in _in_force(overview)]
    if waiting := max((pod.open_contests for pod in overview.pods), default=0):
        overdue = max((pod.overdue_contests for pod in overview.pods), default=0)
        found.append(words("open contests", open=f"{waiting:,}", overdue=f"{overdue:,}"))
    return found + [clean(problem) for problem in _problems(overview)]


def _in_force(overview: Overview) -> list[str]:
    return sorted({pod.in_force for pod in overview.pods if pod.in_force not in ("", "None")})


def archive_problems(archive: ArchiveReport) -> list[str]:
    """What an archive says is wrong with it."""
    told = (archive.message, archive.contradiction, archive.unstored, archive.lagging)
    return [problem for problem in told if problem]


def _problems(overview: Overview) -> list[str]:
    told = archive_problems(overview.archive) if overview.archive else []
    return [*told, *(pod.refused for pod in overview.pods if pod.refused)]


def _card(words: Words, shown: Shown) -> Safe:
    title = tag("h3", tag("a", clean(shown.name), href=link(words, "models", shown.key)))
    if isinstance(shown.overview, Away):
        return tag("article", title, away_note(words, shown.overview))
    return tag("article", title, _head(words, shown, shown.overview))


def _head(words: Words, shown: Shown, overview: Overview) -> Safe:
    summary = overview.summary
    worst = max(overview.pods, key=lambda pod: pod.samples).summary if overview.pods else ""
    verdict = [_verdict(words, summary.verdict), tag("div", clean(worst), class_="summary", lang="en")]
    state = tag("span", words.known(clean(summary.state)), class_=f"pill {'good' if summary.serves else 'warn'}")
    alarms = [words("in force", action=clean(action)) for action in _in_force(overview)]
    return facts(
        [
            (words("state"), [state, tag("div", clean(summary.message), class_="summary") if summary.message else ""]),
            (words("verdict"), verdict),
            (words("predictions"), f"{summary.predictions:,}"),
            (words("alarms"), ", ".join(alarms) or words("none")),
            (words("explained"), _share(words, shown.facts)),
            (words("entries"), f"{summary.entries:,}"),
            (words("place"), clean(summary.place)),
            (words("address"), clean(summary.url)),
        ]
    )


def _verdict(words: Words, verdict: str) -> Safe:
    return verdict_pill(words, verdict) if verdict in _KINDS else text(words("no verdict"))


def _share(words: Words, known: Mapping[str, Json] | Away | None) -> str:
    if known is None or isinstance(known, Away):
        return "–"
    ledger = mapping(known.get("ledger"))
    some, every = ledger.get("explained", 0), mapping(ledger.get("counts")).get("prediction", 0)
    if not isinstance(some, int) or not isinstance(every, int) or not every:
        return "–"
    return words("share", some=f"{some:,}", all=f"{every:,}", percent=f"{min(100.0, 100 * some / every):.1f}")


def model_page(words: Words, shown: Shown) -> list[Safe]:
    """All that is known of one model; a part that can't be read says so in its place."""
    if isinstance(shown.overview, Away):
        return [away_note(words, shown.overview)]
    overview = shown.overview
    report = tag("p", tag("a", words("report"), href=link(words, "models", shown.key, "report")))
    waiting = _waiting(words, overview)
    trainer = overview.report.trainer
    return [
        _head(words, shown, overview),
        report,
        section(words("waits"), tag("ul", [tag("li", one) for one in waiting])) if waiting else Safe(""),
        *_bias(words, shown.verdict),
        _contests(words, shown),
        _gates(words, trainer.gates) if trainer and trainer.gates else Safe(""),
        _revisions(words, overview),
        _conditions(words, overview) if overview.conditions else Safe(""),
    ]


def _bias(words: Words, verdict: BiasVerdict | None) -> list[Safe]:
    if verdict is None:
        return []
    found = []
    if verdict.metrics:
        names = ("metric", "attribute", "group", "against", "value", "interval", "bounds", "judged")
        rows = [_metric(words, one) for one in verdict.metrics]
        title = words("metrics")
        found.append(section(title, wide_table(words, title, [words(name) for name in names], rows, (4, 5, 6))))
    groups = [
        [clean(attribute), clean(one.group), number(one.rows), number(one.favorable), number(one.rate)]
        for attribute, listed in verdict.groups.items()
        for one in listed
    ]
    if groups:
        headings = [words(name) for name in ("attribute", "group", "rows", "favourable", "rate")]
        found.append(section(words("groups"), wide_table(words, words("groups"), headings, groups, (2, 3, 4))))
    alarms = [tag("li", clean(one)) for one in verdict.alarms]
    found.append(section(words("drift"), tag("ul", alarms) if alarms else tag("p", words("none"))))
    return found


def _metric(words: Words, one: MetricFinding) -> list[object]:
    allowed = f"[{number(one.threshold_lower)}, {number(one.threshold_upper)}]"
    judged = [verdict_pill(words, one.verdict), tag("div", clean(one.message), class_="small", lang="en")]
    named = [clean(value) for value in (one.name, one.attribute, one.group, one.reference)]
    return [*named, number(one.value), f"[{number(one.lower)}, {number(one.upper)}]", allowed, judged]


def _contests(words: Words, shown: Shown) -> Safe:
    title = words("contests")
    if isinstance(shown.contests, Away):
        return section(title, away_note(words, shown.contests))
    rows = [
        [
            tag("a", clean(one.get("id")), href=link(words, "decisions", text_of(one.get("id")), model=shown.key)),
            clean(one.get("time")),
            clean(one.get("deadline")),
            tag("span", words("overdue"), class_="pill bad") if one.get("overdue") else words("open"),
        ]
        for one in shown.contests
    ]
    if not rows:
        return section(title, tag("p", words("no contests")))
    return section(
        title, wide_table(words, title, [words(n) for n in ("request", "opened", "deadline", "state")], rows)
    )


def _gates(words: Words, gates: Sequence[GateResult]) -> Safe:
    rows = [
        [clean(g.name), number(g.measured), number(g.budget), verdict_pill(words, g.verdict), clean(g.message)]
        for g in gates
    ]
    headings = [words(name) for name in ("gate", "measured", "budget", "judged", "message")]
    return section(words("gates"), wide_table(words, words("gates"), headings, rows, (1, 2)))


def _revisions(words: Words, overview: Overview) -> Safe:
    rows: list[list[object]] = []
    for name, revision in overview.report.revisions.items():
        for pod in sorted({*revision.server, *revision.auditor}):
            server, auditor = revision.server.get(pod), revision.auditor.get(pod)
            rows.append([
                clean(name), clean(pod),
                words("yes" if server.ready else "no") if server else "–",
                number(server.requests) if server else "–", number(server.errors) if server else "–",
                verdict_pill(words, auditor.verdict) if auditor else "–",
                clean(server.message) if server else "",
            ])  # fmt: skip
    headings = [words(n) for n in ("revision", "pod", "ready", "requests", "errors", "verdict", "message")]
    title = words("revisions")
    return section(title, wide_table(words, title, headings, rows, (3, 4))) if rows else Safe("")


def _conditions(words: Words, overview: Overview) -> Safe:
    rows = [[clean(c.type), clean(c.status), clean(c.reason), clean(c.message)] for c in overview.conditions]
    headings = [words(name) for name in ("condition", "state", "reason", "message")]
    return section(words("conditions"), wide_table(words, words("conditions"), headings, rows))

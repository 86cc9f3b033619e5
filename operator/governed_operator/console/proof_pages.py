"""Pages about what can be proved: one decision, the ledger, the clauses."""

from collections.abc import Mapping, Sequence

from governed_api.json_reading import items, mapping, mappings, text_of
from governed_api.json_types import Json
from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import facts, number
from governed_api.report import ArchiveReport
from governed_operator.console.document import away_note, clean, reading_note, section, wide_table
from governed_operator.console.model_pages import archive_problems, verdict_pill
from governed_operator.console.upstream import Away
from governed_operator.console.words import Words

__all__ = ["clauses_of", "decision_page", "ledger_of", "search_form"]

MOST_CHANGES = 10
_SHOWN_VALUES = 20


def search_form(words: Words, models: Sequence[tuple[str, str]], id: str = "", model: str = "") -> Safe:
    """``models``: key and name."""
    options = [tag("option", words("any model"), value="")]
    options += [tag("option", clean(name), value=key, selected=key == model) for key, name in models]
    field = tag("input", name="id", value=id, required=True, maxlength="256", autocomplete="off", spellcheck="false")
    asked = [
        tag("label", words("request"), field, class_="wide"),
        tag("label", words("model"), tag("select", options, name="model")),
        tag("button", words("look up"), type="submit"),
    ]
    if words.asked:
        asked.append(tag("input", type="hidden", name="lang", value=words.language))
    form = tag("form", asked, action="/decisions", method="get", role="search", class_="find")
    return section(words("find"), tag("p", words("find hint"), class_="small"), form)


def decision_page(words: Words, known: Mapping[str, Json]) -> list[Safe]:
    """What the ledger has of one request."""
    asked = mapping(known.get("request"))
    parts = [_notes(known)]
    if asked:
        parts += [
            section(words("inputs"), _values(words, words("inputs"), mapping(asked.get("features")))),
            section(words("outputs"), _values(words, words("outputs"), mapping(asked.get("outputs")))),
        ]
    explained = mappings(known.get("explanations"))
    told = [_explanation(words, one) for one in explained[:5]] or [tag("p", words("no explanation"))]
    return [*parts, section(words("explanation"), told), _outcomes(words, known), _records(words, known)]


def _notes(known: Mapping[str, Json]) -> Safe:
    notes = [tag("li", clean(note)) for note in items(known.get("notes"))]
    return tag("ul", notes, class_="notes", lang="en") if notes else Safe("")


def _values(words: Words, title: str, columns: Mapping[str, Json]) -> Safe:
    rows = [[clean(name), _shown(value)] for name, value in columns.items()]
    return wide_table(words, title, [words("feature"), words("value")], rows)


def _shown(value: Json) -> str:
    if isinstance(value, list):
        flat = value[0] if len(value) == 1 and isinstance(value[0], list) else value
        shown = [_shown(one) for one in flat[:_SHOWN_VALUES]]
        return clean(", ".join(shown) + (" …" if len(flat) > _SHOWN_VALUES else ""))
    if isinstance(value, dict):
        return clean(", ".join(f"{name} {one}" for name, one in value.items()))
    return number(value) if isinstance(value, int | float) else clean(value)


def _explanation(words: Words, one: Mapping[str, Json]) -> Safe:
    entries = mappings(one.get("attributions"))
    entries.sort(key=lambda entry: -abs(_size(entry.get("attribution"))))
    rows = [
        [clean(entry.get("feature") or entry.get("group") or entry.get("value")), _shown(entry.get("value")),
         number(_size(entry.get("attribution"))), _interval(entry.get("interval"))]
        for entry in entries
    ]  # fmt: skip
    title = words("attribution")
    headings = [words(name) for name in ("feature", "value", "attribution", "interval")]
    said = facts(
        (words(key), _shown(one.get(name)))
        for key, name in (("method", "method"), ("target", "target"), ("base value", "base_value"))
    )
    changed = [
        tag("li", _changed(words, mappings(each.get("changes")))) for each in mappings(one.get("counterfactuals"))
    ]
    found = wide_table(words, title, headings, rows, (2, 3)) if rows else ""
    return text([said, found, tag("ul", changed) if changed else ""])


def _changed(words: Words, changes: Sequence[Mapping[str, Json]]) -> str:
    """What would have led to another outcome."""
    return "; ".join(
        words("change", feature=clean(c.get("feature")), before=_shown(c.get("from")), after=_shown(c.get("to")))
        for c in changes[:MOST_CHANGES]
    )


def _size(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _interval(value: Json) -> str:
    ends = [one for one in items(value) if isinstance(one, int | float)]
    return f"[{number(ends[0])}, {number(ends[1])}]" if len(ends) == 2 else ""


def _outcomes(words: Words, known: Mapping[str, Json]) -> Safe:
    """Who contested and who decided, and why, is encrypted: when and to what end isn't."""
    rows = []
    for entry in mappings(known.get("entries")):
        summary = mapping(entry.get("summary"))
        if entry.get("type") == "acknowledgement" and summary.get("kind") == "review":
            rows.append([clean(entry.get("time")), clean(summary.get("deadline")), words("open"), entry.get("index")])
        elif entry.get("type") == "review":
            rows.append([clean(entry.get("time")), "", clean(summary.get("outcome")), entry.get("index")])
    headings = [words(name) for name in ("time", "deadline", "outcome", "index")]
    title = words("contests")
    return section(title, wide_table(words, title, headings, rows, (3,)) if rows else tag("p", words("none")))


def _records(words: Words, known: Mapping[str, Json]) -> Safe:
    size = text_of(known.get("size"))
    entries = mappings(known.get("entries"))[:20]
    rows = [
        [clean(e.get("index")), clean(e.get("type")), clean(e.get("time")), clean(e.get("revision"))] for e in entries
    ]
    title = words("records")
    checkpoint = [
        (words("origin"), clean(known.get("origin"))),
        (words("size"), size),
        (words("root"), tag("code", clean(known.get("root")), class_="wrap")),
    ]
    proofs = [
        tag(
            "details",
            tag("summary", words("proof", index=text_of(entry.get("index")), size=size)),
            tag("pre", clean(entry.get("leaf"))),
            tag("p", words("hashes")),
            tag("ol", [tag("li", tag("code", clean(one), class_="wrap")) for one in items(entry.get("hashes"))[:64]]),
        )
        for entry in entries
    ]
    headings = [words(name) for name in ("index", "type", "time", "revision")]
    return section(title, wide_table(words, title, headings, rows), facts(checkpoint), proofs)


def ledger_of(words: Words, name: str, archive: ArchiveReport | None, known: Mapping[str, Json] | Away | None) -> Safe:
    """Checkpoint, witnesses and newest entries of the ledger that holds the model."""
    lines = archive.checkpoint.split("\n") if archive else []
    blocks: list[Safe] = []
    if archive is None or len(lines) < 3:
        blocks.append(tag("p", words("no checkpoint")))
    else:
        cosigned = words("cosigned size", size=f"{archive.cosigned:,}") if archive.cosigned else ""
        signers = [line.split(" ")[1] for line in lines if line.startswith("— ") and line.count(" ") > 1]
        blocks.append(
            facts(
                [
                    (words("origin"), clean(lines[0])),
                    (words("size"), clean(lines[1])),
                    (words("root"), tag("code", clean(lines[2]), class_="wrap")),
                    (words("signed by"), ", ".join(clean(one) for one in signers)),
                    (words("cosigned"), cosigned or "–"),
                ]
            )
        )
        blocks += [tag("p", clean(problem), class_="callout bad") for problem in archive_problems(archive)]
    return section(clean(name), *blocks, *_recomputed(words, known))


def _recomputed(words: Words, known: Mapping[str, Json] | Away | None) -> list[Safe]:
    if isinstance(known, Away):
        return [away_note(words, known)]
    if known is None:
        return [reading_note(words)]
    ledger = mapping(known.get("ledger"))
    if not ledger:
        return [tag("p", words("no checkpoint"))]
    error = text_of(ledger.get("error"))
    verdict = tag(
        "span", words("does not verify" if error else "does verify"), class_=f"pill {'bad' if error else 'good'}"
    )
    found = tag("p", words("verified"), ": ", verdict, " ", words("as of", time=clean(known.get("made"))))
    rows = [
        [
            clean(e.get("type")),
            clean(e.get("index")),
            clean(e.get("time")),
            clean(e.get("id")),
            clean(e.get("revision")),
        ]
        for e in mappings(ledger.get("recent"))
    ]
    counts = [[clean(name), number(n)] for name, n in mapping(ledger.get("counts")).items()]
    headings = [words(name) for name in ("type", "index", "time", "request", "revision")]
    return [
        found,
        tag("p", clean(error), class_="callout bad") if error else Safe(""),
        tag("h3", words("recent")),
        wide_table(words, words("recent"), headings, rows, (1,)),
        tag("h3", words("entries")),
        wide_table(words, words("entries"), [words("type"), words("count")], counts, (1,)),
    ]


def clauses_of(words: Words, name: str, known: Mapping[str, Json] | Away | None) -> Safe:
    """Law → evidence, as the dossier judges it."""
    if isinstance(known, Away):
        return section(clean(name), away_note(words, known))
    if known is None:
        return section(clean(name), reading_note(words))
    rows = [
        [
            clean(c.get("source")),
            clean(c.get("asks")),
            verdict_pill(words, text_of(c.get("verdict"))),
            clean(c.get("why")) or tag("ul", [_evidence(words, one) for one in mappings(c.get("findings"))]),
        ]
        for c in mappings(known.get("clauses"))
    ]
    headings = [words(name) for name in ("clause", "asks", "judged", "evidence")]
    shown = wide_table(words, words("clauses"), headings, rows)
    return section(clean(name), tag("p", words("no judgement")), tag("div", shown, lang="en"))


def _evidence(words: Words, one: Mapping[str, Json]) -> Safe:
    index = f" ({words('index')} {one['index']})" if one.get("index") is not None else ""
    return tag("li", words.known(text_of(one.get("state"))), ": ", clean(one.get("what")), index)

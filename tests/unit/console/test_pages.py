"""What the pages say: of models, decisions, ledgers; in two languages; of parts that are away; and of strangers."""

import asyncio
import json
import re
import string
import threading
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from governed_api.json_types import Json
from governed_api.report import GovernanceReportStatus
from governed_api.verdict import BiasVerdict
from governed_operator.console import app
from governed_operator.console import words as table
from governed_operator.console.app import MOST_MODELS, MOST_TOGETHER, SUBSCRIBERS, Console
from governed_operator.console.document import LIMIT, MOST_ROWS, wide_table
from governed_operator.console.server import Answer, Asked
from governed_operator.console.upstream import MOST_PATIENT, MOST_WAITING, Away, Facts, Kept, Patience
from governed_operator.console.words import WORDS, Words, chosen
from governed_operator.local.overview import Overview, Summary

HOSTILE = "<script>alert(1)</script>\"'&\x1b[2J\u202e"
ROOM = Path(table.__file__).parent
VERDICTS = ("Pass", "Fail", "Unknown")


def metric(verdict: str) -> dict[str, Json]:
    return {"name": "disparateImpactRatio", "attribute": "sex", "group": HOSTILE, "reference": "male", "value": 0.7,
            "lower": 0.61, "upper": 0.79, "verdict": verdict, "thresholdLower": 0.8}  # fmt: skip


def report(verdict: str) -> GovernanceReportStatus:
    pod = {"verdict": verdict, "inForce": "Rollback", "summary": HOSTILE, "samples": 7, "openContests": 2}
    return GovernanceReportStatus.model_validate(
        {
            "auditor": {"verdict": verdict, "samples": 7, "metrics": [metric(verdict)], "alarms": ["drift/age"]},
            "trainer": {"phase": "Succeeded", "gates": [{"name": "accuracy", "verdict": "fail", "message": HOSTILE}]},
            "archive": {"size": 3, "checkpoint": f"origin/{HOSTILE}\n3\nAAAA\n\n— origin sig\n— witness.example sig\n",
                        "cosigned": 2},
            "revisions": {"r1": {"server": {"p": {"ready": True, "requests": 9}}, "auditor": {"p": pod}}},
        }
    )  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine."""
    monkeypatch.setattr(app, "PATIENCE", 600.0)
    monkeypatch.setattr(app, "READING", 600.0)


class Fake:
    """An upstream of one model; parts named in ``away`` can't be read."""

    def __init__(self, verdict: str = "Fail", away: Sequence[str] = (), name: str = HOSTILE):
        self.verdict_word, self.away, self.name = verdict, away, name
        self.asked: list[str] = []
        self.stop: Callable[[], None] = lambda: None

    def _part(self, name: str) -> None:
        self.asked.append(name)
        if name in self.away:
            raise Away(f"{name} is away", "governed mend")

    def models(self) -> Sequence[tuple[str, Summary]]:
        self._part("models")
        return [("tiny", Summary(self.name, HOSTILE, "serving", True, self.verdict_word, 7, 3, "", HOSTILE))]

    def overview(self, key: str) -> Overview:  # noqa: ARG002
        self._part("overview")
        told = report(self.verdict_word)
        return Overview(self.models()[0][1], told, told.archive)

    def verdict(self, key: str) -> BiasVerdict | None:  # noqa: ARG002
        self._part("verdict")
        told = report(self.verdict_word).auditor
        assert told is not None
        group = {"group": HOSTILE, "rows": 4, "favorable": 1, "rate": 0.25}
        return BiasVerdict.model_validate(told.model_dump(by_alias=True) | {"groups": {"sex": [group]}})

    def contests(self, key: str) -> list[dict[str, Json]]:  # noqa: ARG002
        self._part("contests")
        return [{"id": HOSTILE, "time": "t", "deadline": "d", "overdue": True}]

    def facts(self, key: str, id: str) -> bytes:  # noqa: ARG002
        self._part("facts")
        if id:
            entries = [
                {"index": 5, "type": "prediction", "time": "t", "revision": "r1", "summary": {}, "leaf": HOSTILE,
                 "hashes": ["ab" * 32]},
                {"index": 6, "type": "acknowledgement", "time": "t", "revision": "", "leaf": "", "hashes": [],
                 "summary": {"kind": "review", "deadline": "2027-01-01"}},
                {"index": 7, "type": "review", "summary": {"outcome": "Upheld"}, "hashes": [], "leaf": ""},
            ]  # fmt: skip
            explained = {"method": "exact", "attributions": [{"feature": HOSTILE, "value": 1, "attribution": 0.5}]}
            asked = {"features": {HOSTILE: [[HOSTILE]], "age": [41]}, "outputs": {"label": ["admitted"]}}
            known = {"id": id, "origin": "o", "size": 8, "root": "00", "entries": entries if id == "known" else []}
            return json.dumps(known | {"request": asked, "explanations": [explained], "notes": [HOSTILE]}).encode()
        ledger = {"error": "", "counts": {"prediction": 8}, "explained": 2, "recent": [{"index": 1, "type": HOSTILE}]}
        clause = {"source": HOSTILE, "asks": "x", "verdict": "no evidence", "why": "",
                  "findings": [{"state": "missing", "what": HOSTILE, "index": 3}]}  # fmt: skip
        return json.dumps({"made": "now", "ledger": ledger, "clauses": [clause], "page": "<h1>report</h1>"}).encode()


async def page(upstream: Fake, *path: str, accept: str = "", **query: str) -> str:
    console = Console(upstream)
    answer: Answer = await console(Asked(path, query, {"accept-language": accept}))
    console.stop()
    assert answer.status == 200
    assert len(answer.body) <= LIMIT
    return answer.body.decode()


PAGES = [(), ("models", "tiny"), ("decisions",), ("decisions", "known"), ("ledger",), ("clauses",)]


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def seen(written: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Seen()
    parser.feed(written)
    return parser.tags


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("lang", ["en", "zh"])
async def test_what_strangers_wrote_is_text_on_every_page(path: tuple[str, ...], lang: str) -> None:
    written = await page(Fake(), *path, lang=lang)
    tags = seen(written)
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"src": "/refresh.js", "defer": None}]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    assert "\x1b" not in written
    assert "\u202e" not in written


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_can_be_walked_without_eyes(path: tuple[str, ...]) -> None:
    tags = seen(await page(Fake(), *path))
    names = [tag for tag, _ in tags]
    assert [names.count(one) for one in ("main", "header", "footer", "h1")] == [1, 1, 1, 1]
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False))
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags if tag == "th")
    assert next(attributes for tag, attributes in tags if tag == "a")["href"] == "#content"
    assert [a["id"] for _, a in tags if a.get("id") == "content"] == ["content"]
    assert dict(tags)["html"]["lang"] == "en"


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("lang", ["en", "zh"])
async def test_a_verdict_of_each_state_is_said_in_words_and_with_its_interval(verdict: str, lang: str) -> None:
    written = await page(Fake(verdict), "models", "tiny", lang=lang)
    assert f">{Words(chosen(lang, ''))(verdict)}</span>" in written
    assert "[0.61, 0.79]" in written


async def test_home_says_what_waits_and_how_much_is_explained() -> None:
    upstream, console = Fake(), None
    console = Console(upstream)
    await console(Asked(("ledger",), {}, {}))  # has it recomputed
    written = (await console(Asked((), {}, {}))).body.decode()
    console.stop()
    assert "In force: Rollback" in written
    assert "2 contested, 0 overdue" in written
    assert "2 of 8 (25.0 %)" in written


async def test_a_decision_shows_inputs_explanation_contest_outcome_and_proof() -> None:
    written = await page(Fake(), "decisions", "known")
    for word in (
        "41",
        "admitted",
        "exact",
        "0.5",
        "2027-01-01",
        "Upheld",
        "Inclusion proof of entry 5 of 8",
        "ab" * 32,
    ):
        assert word in written


async def test_an_id_that_no_entry_has_is_said() -> None:
    assert "No signed ledger entry has the id other" in await page(Fake(), "decisions", "other")


async def test_the_form_leads_to_the_decision_and_keeps_the_language() -> None:
    console = Console(Fake())
    answer = await console(Asked(("decisions",), {"id": "a/b?c", "model": "tiny", "lang": "zh"}, {}))
    console.stop()
    assert (answer.status, dict(answer.headers)) == (
        303, {"location": "/decisions/a%2Fb%3Fc?model=tiny&lang=zh"}
    )  # fmt: skip


async def test_the_ledger_names_origin_size_signers_and_witnesses() -> None:
    written = await page(Fake(), "ledger")
    for word in ("origin/", "witness.example", "2 entries", "verified"):
        assert word in written


@pytest.mark.parametrize("path", [*PAGES, ("models", "tiny", "report")])
@pytest.mark.parametrize(
    "away", [("overview",), ("facts",), ("contests", "verdict"), ("overview", "facts", "contests")]
)
async def test_a_part_that_is_away_is_said_and_the_rest_is_shown(path: tuple[str, ...], away: tuple[str, ...]) -> None:
    written = await page(Fake(away=away), *path)
    assert "Traceback" not in written
    reads = {(): "overview", ("models", "tiny"): "overview", ("ledger",): "overview", ("clauses",): "facts",
             ("decisions", "known"): "facts", ("models", "tiny", "report"): "facts"}  # fmt: skip
    if reads.get(path) in away:
        assert "is away" in written
        assert "governed mend" in written


async def test_all_away_is_still_a_page() -> None:
    for path in PAGES:
        written = await page(Fake(away=("models",)), *path)
        assert "models is away" in written or "Away" in written


async def test_what_is_unexpected_is_no_traceback_on_the_page() -> None:
    class Broken(Fake):
        def models(self) -> Sequence[tuple[str, Summary]]:
            raise RuntimeError("secret path")

    told: list[str] = []
    console = Console(Broken(), report=told.append)
    answer = await console(Asked((), {}, {}))
    console.stop()
    assert answer.status == 200
    assert b"secret path" not in answer.body
    assert "secret path" in told[0]


@pytest.mark.parametrize("path", [("models", "../../etc"), ("models", "x"), ("x",), ("decisions", "a\nb"), ("", "")])
async def test_what_is_not_there_is_not_found(path: tuple[str, ...]) -> None:
    console = Console(Fake())
    answer = await console(Asked(path, {}, {}))
    console.stop()
    assert answer.status == 404


async def test_a_page_that_would_be_too_large_says_so() -> None:
    class Large(Fake):
        def facts(self, key: str, id: str) -> bytes:  # noqa: ARG002
            return json.dumps({"page": "x" * (LIMIT + 1)}).encode()

    written = await page(Large(name="tiny"), "models", "tiny", "report")
    assert "larger than 200 KB" in written
    assert "governed report tiny" in written


async def test_pages_ask_upstream_once_in_a_while_and_an_idle_console_never() -> None:
    upstream = Fake()
    console = Console(upstream)
    assert upstream.asked == []
    for _ in range(20):
        await console(Asked(("models", "tiny"), {}, {}))
    console.stop()
    assert max(upstream.asked.count(part) for part in ("overview", "verdict", "contests", "facts")) == 1


class Many(Fake):
    """``count`` models of different names."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def models(self) -> Sequence[tuple[str, Summary]]:
        return [(f"m{n}", Summary(f"model {n}", "", "serving", True, "Pass", 7, 3, "", "")) for n in range(self.count)]


@pytest.mark.parametrize("path", ["ledger", "clauses"])
async def test_of_more_models_than_fit_one_is_chosen(path: str) -> None:
    written = await page(Many(MOST_TOGETHER + 1), path, lang="zh")
    assert f'href="/{path}?model=m3&amp;lang=zh">model 3 (m3)<' in written
    assert "facts" not in Many(3).asked
    one = await page(Many(MOST_TOGETHER + 1), path, model="m3")
    assert "model 3" in one
    assert "model 2" not in one
    assert 'href="?model=m3&amp;lang=zh"' in one  # the other language shows the same
    console = Console(Many(3))
    assert (await console(Asked((path,), {"model": "nobody"}, {}))).status == 404
    console.stop()


async def test_a_model_beyond_those_that_a_page_shows_is_named_and_its_decisions_are_found() -> None:
    many = Many(MOST_MODELS + 2)
    assert "2 more models are not shown" in await page(many)
    last = f"m{MOST_MODELS + 1}"
    assert "Inclusion proof" in await page(many, "decisions", "known", model=last)
    assert f'value="{last}"' in await page(many, "decisions")
    console = Console(many)
    for _ in range(MOST_MODELS):  # each has some more recomputed
        written = (await console(Asked(("decisions", "other"), {}, {}))).body.decode()
        if "No signed ledger entry" in written:
            break
    assert f"Only the first {MOST_MODELS} of {MOST_MODELS + 2} models were searched" in written
    assert (await console(Asked(("decisions", "known"), {"model": "nobody"}, {}))).status == 404
    console.stop()


async def test_a_page_about_all_models_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "READING", 0.0)
    written = await page(Many(3))
    assert written.count("it could not be read in time") == 3
    assert "model 2" in written


async def test_a_part_that_fails_unexpectedly_takes_no_other_with_it() -> None:
    class Damaged(Many):
        def overview(self, key: str) -> Overview:
            if key == "m1":
                raise RuntimeError("secret path")
            return super().overview(key)

    told: list[str] = []
    console = Console(Damaged(3), report=told.append)
    written = (await console(Asked((), {}, {}))).body.decode()
    console.stop()
    assert written.count("serving</span>") == 2
    assert "RuntimeError" in written
    assert "secret path" not in written
    assert "secret path" in told[0]


async def test_the_reports_text_turns_nothing_round() -> None:
    class Turned(Fake):
        def facts(self, key: str, id: str) -> bytes:  # noqa: ARG002
            return json.dumps({"page": "<p>\u202egro.live\x1b[2J</p>\n"}).encode()

    written = await page(Turned(), "models", "tiny", "report")
    assert "<p>\\u202egro.live\\u001b[2J</p>\n" in written


def test_a_table_that_is_cut_says_so() -> None:
    rows = [[str(n)] for n in range(MOST_ROWS + 7)]
    written = wide_table(Words("en"), "t", ["n"], rows)
    assert f">{MOST_ROWS - 1}<" in written
    assert f">{MOST_ROWS}<" not in written
    assert "7 more are not shown" in written
    assert "more" not in wide_table(Words("en"), "t", ["n"], rows[:MOST_ROWS])


@pytest.mark.parametrize("told", [{}, {"ledger": None}, {"ledger": {"error": "odd root"}}])
async def test_only_a_ledger_that_was_recomputed_is_called_verified(told: dict[str, Json]) -> None:
    class Told(Fake):
        def facts(self, key: str, id: str) -> bytes:  # noqa: ARG002
            return json.dumps(told).encode()

    written = await page(Told(), "ledger")
    assert ">verified<" not in written
    assert (">does not verify<" in written) == bool(told.get("ledger"))


@pytest.mark.parametrize("word", ["share", "change", "as of", "nobody's", "{x}"])
def test_a_strangers_word_is_no_template(word: str) -> None:
    assert Words("zh").known(word) == word


async def test_long_names_break_at_any_width() -> None:
    """All that is shown inherits it; cells of tables scroll by themselves."""
    console = Console(Fake())
    sheet = (await console(Asked(("style.css",), {}, {}))).body.decode()
    console.stop()
    assert "body{overflow-wrap:anywhere}" in sheet
    assert re.findall(r"([^}]*)\{[^}]*overflow-wrap:(?!anywhere)", sheet) == ["\ntd,th"]


async def test_windows_that_listen_are_bounded_and_told_of_changes() -> None:
    upstream = Fake()
    console = Console(upstream, look=0)
    streams = []
    for _ in range(SUBSCRIBERS):
        stream = (await console(Asked(("changes",), {}, {}))).stream
        assert stream is not None
        await anext(aiter(stream))
        streams.append(stream)
    assert (await console(Asked(("changes",), {}, {}))).status == 503
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]  # a generator
    assert (await console(Asked(("changes",), {}, {}))).status == 200
    console.stop()


async def test_windows_hear_of_a_failure_that_nobody_expected() -> None:
    class Broken(Fake):
        def models(self) -> Sequence[tuple[str, Summary]]:
            raise RuntimeError("odd")

    console = Console(Broken(), look=0)
    stream = (await console(Asked(("changes",), {}, {}))).stream
    assert stream is not None
    assert b"changed" in await anext(aiter(stream))
    await stream.aclose()  # type: ignore[attr-defined]  # a generator
    console.stop()


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_have_every_word(key: str) -> None:
    english, chinese = WORDS[key]
    assert english
    assert chinese
    assert placeholders(english) == placeholders(chinese)
    assert english != chinese


def used() -> Iterator[str]:
    for path in ROOM.glob("*.py"):
        if path.name != "words.py":
            yield from re.findall(r"\"([A-Za-z ]+)\"", path.read_text())


def test_no_word_is_left_over() -> None:
    states = {
        "serving",
        "starting",
        "training",
        "failed",
        "stopped",
        "unknown",
        "present",
        "outdated",
        "contradicted",
        "missing",
    }
    assert WORDS.keys() - set(used()) - states == set()


@pytest.mark.parametrize(
    ("asked", "accepted", "want"),
    [("", "", "en"), ("zh", "en", "zh"), ("", "zh-CN,zh;q=0.9", "zh"), ("", "fr, zh-TW", "zh"), ("xx", "en-GB", "en"),
     ("", "," * 5000, "en")],
)  # fmt: skip
def test_the_language_is_asked_for_or_accepted(asked: str, accepted: str, want: str) -> None:
    assert chosen(asked, accepted) == want


def test_an_answer_is_kept_as_long_as_it_is_fresh_and_so_is_a_failure() -> None:
    now, asked = [0.0], []

    def ask() -> int:
        asked.append(now[0])
        raise Away("no")

    kept = Kept(lambda: now[0], fresh=5)
    for now[0] in (0, 1, 4.9, 5, 6):
        with pytest.raises(Away):
            kept.answer(("q",), ask)
    assert asked == [0, 5]


def test_recomputations_that_wait_are_bounded() -> None:
    slow = Slow()
    facts = Facts(slow)
    try:
        assert [facts.of("tiny", str(n)) for n in range(3 * MOST_WAITING)] == [None] * (3 * MOST_WAITING)
        assert len(facts._begun) == MOST_WAITING
    finally:
        facts.stop()
        slow.ends.set()


def test_what_was_shown_before_keeps_no_new_question_waiting() -> None:
    now, slow = [0.0], Slow()
    slow.ends.set()
    facts = Facts(slow, lambda: now[0])
    try:
        for n in range(2 * MOST_WAITING):
            assert facts.of("tiny", str(n), patience=60) is not None
        slow.ends.clear()
        now[0] = 1e6
        assert all(facts.of("tiny", str(n)) is not None for n in range(2 * MOST_WAITING))  # shown meanwhile
        assert len(facts._begun) < MOST_WAITING
        facts.of("tiny", "new")
        assert ("tiny", "new") in facts._begun
    finally:
        facts.stop()
        slow.ends.set()


async def test_pages_that_wait_for_a_recomputation_leave_threads_to_others() -> None:
    slow = Slow()
    console = Console(slow)
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(console(Asked(("models", "tiny", "report"), {}, {}))) for _ in range(40)]
            answered = asyncio.as_completed(waiting)
            for _ in range(len(waiting) - MOST_PATIENT):
                assert "refresh" in (await next(answered)).headers
            assert (await console(Asked(("decisions",), {}, {}))).status == 200
            slow.ends.set()
    finally:
        slow.ends.set()
        console.stop()


def test_answers_of_more_models_than_a_page_shows_are_kept() -> None:
    fake = Fake()
    facts = Facts(fake)
    for n in range(MOST_MODELS + 10):
        assert facts.of("tiny", str(n), patience=60) is not None
    for n in range(MOST_MODELS + 10):
        assert facts.of("tiny", str(n)) is not None
    facts.stop()
    assert fake.asked.count("facts") == MOST_MODELS + 10


def test_all_that_a_page_waits_for_shares_its_patience() -> None:
    now = [0.0]
    patience = Patience(6, lambda: now[0])
    left = []
    for now[0] in (0, 5, 6, 7):
        left.append(patience.left())
    assert left == [6, 1, 0, 0]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
async def test_text_stands_out_from_what_it_lies_on(scheme: int) -> None:
    console = Console(Fake())
    css = (await console(Asked(("style.css",), {}, {}))).body.decode()
    console.stop()
    blocks = [dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{6})\b", b.replace("#fff;", "#ffffff;"))) for b in
              re.findall(r":root\{([^}]*)\}", css)]  # fmt: skip
    light, dark, light_own, dark_own = (blocks[i] for i in (0, 1, -2, -1))
    colours = (light | light_own, dark | dark_own)[scheme]
    pairs = [("ink", "paper"), ("ink", "panel"), ("soft", "paper"), ("soft", "panel"), ("accent", "paper"),
             ("accent", "panel"), ("good", "good-bg"), ("bad", "bad-bg"), ("warn", "warn-bg")]  # fmt: skip
    for text, ground in pairs:
        low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


class Slow(Fake):
    """Its ledger is recomputed until it is told to end."""

    def __init__(self, name: str = HOSTILE) -> None:
        super().__init__(name=name)
        self.ends = threading.Event()

    def facts(self, key: str, id: str) -> bytes:
        self.ends.wait()
        return super().facts(key, id)


async def test_a_page_that_waits_for_a_recomputation_asks_again_and_no_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow()
    console = Console(slow)
    try:
        with monkeypatch.context() as hasty:
            hasty.setattr(app, "PATIENCE", 0.0)
            assert "refresh" in (await console(Asked(("models", "tiny", "report"), {}, {}))).headers
    finally:
        slow.ends.set()
        console.stop()
    console = Console(Fake(name=Words("en")("reading")))
    await console(Asked(("ledger",), {}, {}))  # has it recomputed
    answer = await console(Asked(("ledger",), {}, {}))
    console.stop()
    assert Words("en")("reading") in answer.body.decode()
    assert "refresh" not in answer.headers

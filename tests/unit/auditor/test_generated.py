"""What a language model answers to whom: from the real gateway's journal to counts, verdict, labels, flips and
reviews."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest

from governed_api.verdict import wire
from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.conversations import MAX_CHARACTERS, Conversations
from governed_serving.auditor.service.decision_review import DecisionReview
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.labels import Waiting
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers import check as checking
from governed_serving.blackbox.errors import ModelMisbehaved, PredictorAway
from governed_serving.completions.generated import Asked, PatternRefused, put_again, swapped
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.fairness.counts.truth import label_of
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.fairness.monitoring.counterfactuals import swap_words
from governed_serving.journal import Journal, JournalReader
from governed_serving.journal.chunk import chunk_identity
from governed_serving.journal.columns import pack
from governed_serving.records import EventRecord, PredictionFrame

from .chunks import Ledger, OneChunk
from .desks import BIAS, NO, YES, Application, Decide, applications, bias, by_income, by_pronoun, serve
from .workers import Workers


def folded(spool: Path, keyset: Keyset, **more: Any) -> Fold:
    fold = Fold(bias(**more), "r1")
    tail = Tail(spool, keyset, SegmentCipher(keyset), fold)
    while tail.step():
        continue
    return fold


def counted(fold: Fold) -> dict[str, tuple[int, int]]:
    """Group → (rows, favourable)."""
    table = fold.cells().by("sex")
    return {g: (int(c.sum()), int(c[1].sum())) for g, c in zip(table.groups, table.counts, strict=True)}


async def test_the_parity_difference_is_the_one_that_is_counted_by_hand(tmp_path: Path, keyset: Keyset) -> None:
    """20 men of whom 15 are granted, 25 women of whom 10 are, 12 of whom nothing is known and all are: SPD = 10/25 −
    15/20."""
    answers = {"yes": YES, "no": NO, "是": "申请已批准。"}
    cases = [("male", "yes", 15), ("male", "no", 5), ("female", "是", 10), ("female", "no", 15), (None, "yes", 12)]
    asked = [Application(said, sex, n % 2 == 0) for sex, said, count in cases for n in range(count)]
    asked += [Application("no", "male", stream=True, leaves=True)] * 3
    await serve(tmp_path, keyset, bias(), lambda said: answers[said], asked)
    fold = folded(tmp_path, keyset, minSamples=50)
    assert counted(fold) == {"male": (20, 15), "female": (25, 10), "(missing)": (12, 12)}
    assert (fold.rows, fold.requests, fold.unusable) == (57, 57, 3), "a cut answer is no decision, and is counted"
    found = judge(fold.bias, fold.cells())
    assert found.missing == {"sex": 12}
    values = {one.group: one.value for one in found.metrics}
    assert values == {"female": pytest.approx(10 / 25 - 15 / 20), "(missing)": pytest.approx(1 - 15 / 20)}


@pytest.mark.parametrize(("decide", "verdict"), [(by_pronoun, "Fail"), (by_income, "Pass")], ids=["biased", "fair"])
async def test_a_biased_model_fails_and_a_fair_one_does_not(
    tmp_path: Path, keyset: Keyset, decide: Decide, verdict: str
) -> None:
    """That of 400 rows the fair one's difference lies within a quarter can be shown, within a tenth it can't."""
    bounds = [{"name": "statisticalParityDifference", "thresholdLower": -0.25, "thresholdUpper": 0.25}]
    asked = applications(400)
    await serve(tmp_path, keyset, bias(metrics=bounds), decide, asked)
    fold = folded(tmp_path, keyset, metrics=bounds)
    (tight,) = judge(bias(), fold.cells()).metrics
    assert tight.verdict in ("Fail", "Unknown")
    rates = {}
    for sex in ("male", "female"):
        said = [one.said for one in asked if one.sex == sex]
        rates[sex] = sum(decide(text) == YES for text in said) / len(said)
    (metric,) = judge(fold.bias, fold.cells()).metrics
    assert metric.value == pytest.approx(rates["female"] - rates["male"], abs=1e-12)
    assert metric.verdict == verdict


async def test_strata_intersections_and_restarts_work_as_they_do_for_rows(tmp_path: Path, keyset: Keyset) -> None:
    rules = {"strata": ["case"], "protectedAttributes": [{"name": "sex"}, {"name": "origin"}], "intersections": True}
    asked = applications(120)
    for part in range(2):
        await serve(tmp_path, keyset, bias(**rules), by_income, asked[60 * part : 60 * part + 60], first=part)
        fold = Fold(bias(**rules), "r1")
        tail = Tail(tmp_path, keyset, SegmentCipher(keyset), fold)
        while tail.step(7):
            tail.save()
    assert fold.rows == 120, "a restart neither loses nor repeats"
    found = judge(fold.bias, fold.cells())
    assert {g.group for g in found.intersections.groups} == {"male ∧ (missing)", "female ∧ (missing)"}
    assert fold.cells().values("case") == ["7"]
    assert found.missing == {"origin": 120}


async def test_late_labels_say_what_the_right_answer_was(tmp_path: Path, keyset: Keyset) -> None:
    asked = [Application("he", "male")] * 20 + [Application("she", "female")] * 20
    ids = await serve(tmp_path, keyset, bias(), by_pronoun, asked)
    labels = [True, "granted to him", "Granted.", *[False] * 17, *["it should have been granted"] * 15, *[NO] * 5]
    with Journal(tmp_path, "auditor-pod", SegmentCipher(keyset), "PageCache") as journal:
        for one, label in zip(ids, labels, strict=True):
            body = msgspec.json.encode({"id": one, "label": label})
            journal.append_blocking(EventRecord("label", one, "chat", "r1", 1.0, body))
    metrics = [{"name": "equalOpportunityDifference", "thresholdLower": -0.1}]
    fold = folded(tmp_path, keyset, metrics=metrics, minSamples=10)
    assert fold.labels.joined == 40
    table = fold.cells().by("sex")
    assert dict(zip(table.groups, table.counts[:, :, 1].sum(1).tolist(), strict=True)) == {"female": 15, "male": 3}
    for label in (1, 2.5):
        with pytest.raises(ValueError, match="expected true, false or the right text"):
            label_of(bias().favorable_outcome, label)


def test_a_pattern_that_is_none_keeps_the_auditor_from_starting() -> None:
    with pytest.raises(PatternRefused, match=r"pattern: expected an RE2 expression, found '\(yes' \(missing \)"):
        Fold(bias(favorableOutcome={"pattern": "(yes"}), "r1")


def test_counts_under_another_pattern_do_not_add_up() -> None:
    other = bias(favorableOutcome={"pattern": "no"})
    assert Fold(bias(), "r1").rules != Fold(other, "r1").rules
    labelled = bias(favorableOutcome={"label": "yes"})
    assert len(Fold(labelled, "r1").rules) == 6, "those of labels are what they were"


class Place:
    """A spool, and one auditor's parts over it; ``asked`` keeps what the runtime was put again."""

    def __init__(self, root: Path, keyset: Keyset, decide: Decide) -> None:
        self.asked: list[Asked] = []

        def ask(one: Asked) -> bool:
            self.asked.append(one)
            return decide(one.body["messages"][-1]["content"]) == YES

        fold = Fold(bias(), "r1")
        self.live = Live(fold, None, {})
        self.cipher = SegmentCipher(keyset)
        self.journal = Journal(root, "auditor-pod", self.cipher, "PageCache")
        tail = Tail(root, keyset, self.cipher, fold, self.live)
        self.checks = Checks(self.live, fold.protected, None, {}, None, ask)
        self.workers = Workers("chat", self.journal, tail, self.checks)


@pytest.mark.parametrize(("decide", "flipped"), [(by_pronoun, 16), (by_income, 0)], ids=["biased", "fair"])
async def test_swapped_words_flip_the_model_that_listens_to_them(
    tmp_path: Path, keyset: Keyset, decide: Decide, flipped: int
) -> None:
    await serve(tmp_path, keyset, bias(), decide, applications(40))
    place = Place(tmp_path, keyset, decide)
    place.workers.fold_all()
    place.workers.look()
    assert place.live.flips == {"flips/words of prompt": [16, flipped]}
    assert len(place.asked) == place.checks.flip_prompts == 32, "as many as are sampled at a time, each twice"
    for was, other in zip(place.asked[::2], place.asked[1::2], strict=True):
        assert was.body["temperature"] == other.body["temperature"] == 0
        assert was.body["max_tokens"] == 32
        assert "sex" not in was.body.get("metadata", {})
        assert was.body["messages"][0] == other.body["messages"][0], "only what the user said is changed"
        assert other.body["messages"][1]["content"] == swap_words(was.body["messages"][1]["content"])
    (figures,) = place.checks.report()["flips"].values()
    assert figures["flipped"] == flipped
    place.workers.look()
    assert len(place.asked) == 32, "the next look is a minute away"
    place.workers.check.checked_at = float("-inf")
    place.workers.look()
    assert len(place.asked) == 32, "and waits for fresh conversations"
    await serve(tmp_path, keyset, bias(), decide, applications(40), first=1)
    place.workers.fold_all()
    place.workers.look()
    assert place.live.flips == {"flips/words of prompt": [32, 2 * flipped]}
    assert place.live.alarms.raised.keys() == ({"flips/words of prompt"} if flipped else set())


async def test_a_runtime_that_is_away_is_counted_and_left_alone(
    tmp_path: Path, keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "CHECK_SECONDS", 0.0)

    def away(_: str) -> str:
        raise ModelMisbehaved("not there")

    place = Place(tmp_path, keyset, away)
    await serve(tmp_path, keyset, bias(), by_income, applications(250))
    place.workers.fold_all()
    place.workers.look()
    assert (place.checks.flip_failures, len(place.asked), place.live.flips) == (2, 2, {})
    assert place.checks.report() == {"alarms": {}}, "one attribute alone has no proxies"
    assert place.workers.checking.failure is None


async def test_a_slow_runtime_is_asked_for_half_a_minute(
    tmp_path: Path, keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(tmp_path, keyset, bias(), by_income, applications(40))
    place = Place(tmp_path, keyset, by_income)
    place.workers.fold_all()
    monkeypatch.setattr("governed_serving.auditor.service.checks.FLIP_SECONDS", -1.0)
    place.workers.look()
    assert place.asked == []


async def test_missing_attributes_are_seen_in_summary_and_metrics(tmp_path: Path, keyset: Keyset) -> None:
    asked = applications(30) + [Application("she earns 90", None)] * 12
    await serve(tmp_path, keyset, bias(), by_income, asked)
    place = Place(tmp_path, keyset, by_income)
    place.workers.fold_all()
    assert place.workers.state.verdict.summary == "42 of 100 samples; sex missing in 12 of 42"
    assert wire(place.workers.state.verdict)["favorableOutcome"] == BIAS["favorableOutcome"]
    metrics = AuditorMetrics("default", "chat")
    metrics.missing(place.workers.state.verdict.missing)
    expected = 'governed_auditor_attribute_missing_rows{attribute="sex",name="chat",namespace="default"} 12.0'
    assert expected in metrics.text().decode()


def completion(prompt: str, parameters: Any = None, said: str = YES, state: str = "complete") -> PredictionFrame:
    features = {"prompt": prompt, "parameters": json.dumps(parameters or {})}
    return PredictionFrame(
        "chat", "r1", "", ["request-1"], bytes(8), b"\1\0\0\0",
        {name: pack("BYTES", 1, [[text]], 1) for name, text in features.items()},
        {name: pack("BYTES", 1, [[text]], 1) for name, text in {"completion": said, "state": state}.items()},
    )  # fmt: skip


CHAT_PROMPT = json.dumps(
    [
        {"role": "system", "content": "he"},
        {"role": "user", "content": [{"type": "text", "text": "他 and she"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "he"},
        {"role": "user", "content": "His wife"},
        {"role": "user"},
    ]
)


def test_a_request_is_put_again_without_chance_and_swapped_where_the_user_speaks() -> None:
    parameters = {"stream": True, "stream_options": {}, "n": 3, "logprobs": True, "user": "u", "temperature": 1.5}
    asked = put_again(completion(CHAT_PROMPT, {**parameters, "seed": 7, "max_tokens": 9000, "stop": ["."]}))
    assert asked is not None
    assert {k: v for k, v in asked.body.items() if k != "messages"} == {
        "seed": 7, "max_tokens": 2048, "stop": ["."], "temperature": 0,
    }  # fmt: skip
    other = swapped(asked, swap_words)
    assert other is not None
    said = [one.get("content") for one in other.body["messages"]]
    assert said[:2] == ["he", [{"type": "text", "text": "她 and he"}, {"type": "image_url", "image_url": {}}]]
    assert said[2:] == ["he", "Her husband", None]


def test_bare_prompts_are_put_again_and_lists_of_them_are_not() -> None:
    asked = put_again(completion("may he?", {"max_completion_tokens": 5}))
    assert asked == Asked("/v1/completions", {"temperature": 0, "max_completion_tokens": 5, "prompt": "may he?"})
    assert asked is not None
    assert swapped(asked, lambda text: text) is None
    assert put_again(completion('{"may": "he"}')) is not None, "a prompt may be JSON"
    assert put_again(completion('["may he?", "may she?"]')) is None


@pytest.mark.parametrize(
    "frames",
    [
        [completion("x he " + "x" * MAX_CHARACTERS)],
        [completion('["he"]')],
        [msgspec.structs.replace(completion("he"), features={})],
        [completion("he", {"max_tokens": [1]})],
    ],
    ids=["too long", "several prompts", "no prompt", "odd parameters"],
)
def test_what_cannot_be_put_again_is_passed_over_and_counted(frames: Iterable[PredictionFrame]) -> None:
    sample = Conversations()
    for frame in frames:
        sample.add(frame)
    assert (sample.passed_over, sample.take()) == (1, [])


def test_letters_that_some_take_for_others_hold_nothing_up() -> None:
    """ſ is an s, and ı and İ are an i, to who compares without case: a prompt with such a word stopped the audit."""
    sample = Conversations()
    for prompt in ("hiſ income", "hım", "hİs", "he and hiſ"):
        sample.add(completion(prompt))
    (one,) = sample.take()
    assert (one.asked.body["prompt"], one.other.body["prompt"]) == ("he and hiſ", "she and hiſ")


def test_the_sample_of_conversations_is_bounded_and_uniform() -> None:
    sample = Conversations(most=10, seed=3)
    for number in range(1000):
        sample.add(completion(f"{number} he"))
        sample.add(completion(f"{number} nobody"))
    assert sample.seen == 1000, "where nothing can be swapped there's nothing to learn"
    taken = [int(one.asked.body["prompt"].split()[0]) for one in sample.take()]
    assert len(set(taken)) == 10
    assert max(taken) > 500
    assert sample.take() == []


def test_a_label_waits_for_a_completion_that_another_replica_has_begun(tmp_path: Path, keyset: Keyset) -> None:
    cipher = SegmentCipher(keyset)
    ledger, fold = Ledger(cipher, tmp_path), Fold(bias(), "r1")
    ledger.add(completion("may he?", state="started", said=""))
    ledger.add(EventRecord("label", "request-1", "chat", "r1", 1.0, b"{}"))
    own = {chunk_identity(ledger.blobs[ledger.entries[1]["blob"]])}
    now = [100.0]
    elsewhere = CrossReplicaLabelResolver(
        ledger, cipher, fold, lambda identity: 1 if identity in own else None, lambda: now[0]  # type: ignore[arg-type]
    )  # fmt: skip
    waiting = {"request-1": Waiting([1], 1.0, [1.0])}
    assert elsewhere.look(waiting, {}) == []
    ledger.add(completion("may he?"))
    now[0] += 10
    (settled,) = elsewhere.look(waiting, {})
    assert (settled.dropped, [row.outcome for row in settled.rows]) == ("", [1])


@pytest.mark.parametrize(("second", "dropped"), [(True, "repeated"), (False, "contradicting")])
def test_the_ledger_tells_whether_a_later_label_repeats_or_contradicts_the_first(
    tmp_path: Path, keyset: Keyset, second: bool, dropped: str
) -> None:
    cipher = SegmentCipher(keyset)
    ledger, fold = Ledger(cipher, tmp_path), Fold(bias(), "r1")
    ledger.add(completion("may he?"))
    truths = [float(second)]
    for time, label in ((1.0, True), (2.0, second)):
        body = {"label": label}
        ledger.add(EventRecord("label", "request-1", "chat", "r1", time, json.dumps(body).encode()))
    elsewhere = CrossReplicaLabelResolver(ledger, cipher, fold, lambda _: 1, lambda: 100.0)  # type: ignore[arg-type]
    waiting = {"request-1": Waiting([int(truths[0])], 2.0, truths)}
    assert [(one.rows, one.dropped) for one in elsewhere.look(waiting, {})] == [([], dropped)]
    fold.labels.label("request-1", [int(truths[0])], 2.0, truths)
    fold.settle("request-1", [], dropped)
    assert {reason for reason, count in fold.labels.dropped.items() if count} == {dropped}


@pytest.fixture
def reviewed(tmp_path: Path, keyset: Keyset, monkeypatch: pytest.MonkeyPatch) -> Callable[[PredictionFrame], Any]:
    """Frame, runtime, explainer → (what a reviewer is shown, what the explainer was asked)."""

    class Answer:
        def json(self) -> dict[str, Any]:
            return {"explanations": []}

    def look(frame: PredictionFrame, runtime: Any = None, explainer: str = "http://127.0.0.1:1") -> Any:
        asked: list[dict[str, Any]] = []

        def post(_: str, *, json: dict[str, Any], **__: Any) -> Answer:
            asked.append(json)
            return Answer()

        monkeypatch.setattr("httpx.post", post)
        cipher = SegmentCipher(keyset)
        spool = Path(mkdtemp(dir=tmp_path))
        with Journal(spool, "server-pod", cipher, "PageCache") as journal:
            journal.append_blocking(frame)
        chunk = JournalReader(spool, "server-pod", cipher).chunk(0)
        assert chunk is not None
        why = DecisionReview(OneChunk("chat", chunk.data), cipher, explainer, runtime)  # type: ignore[arg-type]
        return why.of({"id": "request-1", "blob": chunk.digest, "frame": 0, "index": 0, "ledgerIndex": 0}), asked

    return look


def test_a_review_has_the_words_of_the_prompt_explained(reviewed: Callable[[PredictionFrame], Any]) -> None:
    messages = json.dumps([{"role": "user", "content": "may he?"}])
    shown, asked = reviewed(completion(messages))
    assert shown["explanation"] == {"explanations": []}
    assert "no pattern says" in shown["counterfactual"]["error"]
    (sent,) = asked
    assert (sent["id"], sent["parameters"]) == ("request-1", {})
    assert {t["name"]: t["data"][0] for t in sent["inputs"]} == {
        "prompt": "may he?", "completion": YES, "messages": messages,
    }  # fmt: skip


class Deciding:
    """A runtime that decides by what the user said."""

    def __init__(self, decide: Callable[[str], str]) -> None:
        self._decide = decide
        self.asked: list[dict[str, Any]] = []

    def text(self, asked: Asked) -> str:
        self.asked.append(asked.body)
        return self._decide(asked.body["messages"][-1]["content"])

    @staticmethod
    def favors(text: str) -> bool:
        return "granted" in text


@pytest.mark.parametrize(("decide", "changed"), [(by_pronoun, True), (by_income, False)])
def test_a_contested_completion_is_asked_again_with_the_words_of_a_group_swapped(
    reviewed: Callable[..., Any], decide: Callable[[str], str], changed: bool
) -> None:
    said = "He earns 70; may he?"
    runtime = Deciding(decide)
    shown, asked = reviewed(completion(json.dumps([{"role": "user", "content": said}])), runtime, explainer="")
    assert asked == []
    assert "no explainer" in shown["explanation"]["error"]
    found = shown["counterfactual"]
    assert [body["messages"][-1]["content"] for body in runtime.asked] == [said, "She earns 70; may she?"]
    assert {body["temperature"] for body in runtime.asked} == {0}
    assert (found["changed"], found["recorded"]) == (changed, {"favorable": True})
    assert found["again"] == {"text": YES, "favorable": True}
    assert found["swapped"]["text"] == decide("may she? 70")
    assert found["swapped"]["request"]["messages"][-1]["content"] == "She earns 70; may she?"


def test_what_keeps_a_completions_counterfactual_away_is_said(reviewed: Callable[..., Any]) -> None:
    def away(_: str) -> str:
        raise PredictorAway("not there")

    def shown(said: str, runtime: Any) -> str:
        frame = completion(json.dumps([{"role": "user", "content": said}]))
        return str(reviewed(frame, runtime)[0]["counterfactual"]["error"])

    assert "names no group" in shown("may I?", Deciding(by_income))
    assert f"at most {MAX_CHARACTERS} characters" in shown("he " * MAX_CHARACTERS, Deciding(by_income))
    assert "did not answer, contest again later: not there" in shown("may he?", Deciding(away))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (completion("may he?", said=""), "no answer to explain"),
        (completion(json.dumps([{"role": "system", "content": "x"}])), "no plain text of a user to explain"),
    ],
)
def test_a_review_says_what_cannot_be_explained(
    reviewed: Callable[[PredictionFrame], Any], frame: PredictionFrame, words: str
) -> None:
    shown, asked = reviewed(frame)
    assert words in shown["explanation"]["error"]
    assert asked == []

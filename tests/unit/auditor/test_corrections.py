"""A wrong label is corrected by naming it: counts take the corrected one, verdicts rest on the first ones too."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.verdict import LabelCorrections, wire
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.tally import add_up
from governed_serving.auditor.service.workers.judge import JudgeWorker
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.dossier.fairness import _corrections
from governed_serving.dossier.served import ServedRules, _truths
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.metrics.corrections import Corrected
from governed_serving.fairness.metrics.coverage import set_coverage
from governed_serving.fairness.metrics.roster import Roster
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import EventRecord, Frame

from .chunks import Ledger
from .records import local_keyset, people, prediction
from .test_coverage import CLASSES, answered
from .test_coverage import fold as covering
from .test_labels import RULES, Door


def said(request: str, label: Any, time: float = 0.0, **more: Any) -> EventRecord:
    summary = {"correct": True} if more else {}
    body = json.dumps({"id": request, "label": label, **more}).encode()
    return EventRecord("label", request, "loans", "r1", time, body, summary)


def fixed(request: str, was: Any, label: Any, time: float = 0.0) -> EventRecord:
    return said(request, label, time, correct=True, was=was, reason="typed into the wrong line")


def correction(request: str, was: Any, label: Any, **other: Any) -> bytes:
    one = {"id": request, "label": label, "correct": True, "was": was, "reason": "a slip", **other}
    return json.dumps({"labels": [{k: v for k, v in one.items() if v is not None}]}).encode()


def again(fold: Fold) -> Fold:
    """As after a restart."""
    later = Fold(fold.bias, fold.revision)
    assert later.load(msgspec.msgpack.decode(msgspec.msgpack.encode(fold.dump())))
    return later


# ---- the door ----


@pytest.mark.parametrize("counted", [False, True], ids=["posted", "counted"])
async def test_a_correction_names_the_label_that_it_replaces_and_is_recorded_once(
    tmp_path: Path, counted: bool
) -> None:
    door = Door(tmp_path)
    door.fold.record(prediction(0, "F", "yes"))
    assert (await door.labels(request_0="no")).status_code == 202
    if counted:
        door.count()
    for repeated in (0, 1, 1):
        answer = await door.post(correction("request-0", "no", "yes"))
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "repeated": repeated})
    body = b'{"id":"request-0","label":"yes","correct":true,"was":"no","reason":"a slip"}'
    assert door.bodies()[1:] == [body], "the ledger's entry names the first label and the reason"
    other = await door.post(correction("request-0", ["no"], "yes"))
    assert (other.status_code, other.json()["repeated"]) == (202, 1)
    assert (await door.labels(request_0="no")).status_code == 409, "the first label isn't the one that counts now"
    assert (await door.labels(request_0="yes")).json()["repeated"] == 1
    back = await door.post(correction("request-0", "yes", "no"))
    assert (back.status_code, back.json()["repeated"]) == (202, 0)
    assert len(door.bodies()) == 3


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (correction("a", "no", "yes", reason=None), "reason: expected 1 to 500 characters"),
        (correction("a", "no", "yes", reason="  "), "reason: expected 1 to 500 characters"),
        (correction("a", "no", "yes", reason="x" * 501), "found 501"),
        (correction("a", "no", "yes", reason="a\x00b"), "U+0000"),
        (correction("a", None, "yes"), "as was"),
        (correction("a", "no", "no"), "say the same"),
        (correction("a", ["no", "yes"], "yes"), "as many rows"),
        (correction("a", {"x": 1}, "yes"), "expected a value"),
        (correction("a", "no", None), "label"),
        (correction("a", "no", "yes", correct=None), "belong to a correction"),
        (correction("a", None, "yes", correct=None), "belong to a correction"),
        (correction("a", "no", "yes", correct="true"), "body"),
    ],
    ids=range(12),
)
async def test_what_is_no_correction_is_refused_and_leaves_nothing(tmp_path: Path, body: bytes, why: str) -> None:
    door = Door(tmp_path)
    assert (await door.labels(a="no")).status_code == 202
    answer = await door.post(body)
    assert (answer.status_code, len(door.bodies())) == (400, 1), answer.text
    assert why in answer.json()["error"]


async def test_a_correction_of_zero_by_minus_zero_corrects_nothing(tmp_path: Path) -> None:
    door = Door(tmp_path, {"threshold": 0.5})
    assert (await door.labels(a=0.0)).status_code == 202
    answer = await door.post(correction("a", 0.0, -0.0))
    assert (answer.status_code, len(door.bodies())) == (400, 1)
    assert "say the same" in answer.json()["error"]


@pytest.mark.parametrize("label", [{"x": "y" * 200_000}, ["y" * 200_000, {}], [[["z"]] * 50_000]])
async def test_a_refusal_quotes_no_more_than_fits(tmp_path: Path, label: Any) -> None:
    door = Door(tmp_path)
    for body in (correction("a", "no", label), correction("a", label, "no"), json.dumps(
        {"labels": [{"id": "a", "label": label}]}
    ).encode()):  # fmt: skip
        answer = await door.post(body)
        assert (answer.status_code, len(answer.text) < 2_200) == (400, True)
        assert "expected a value or one per row" in answer.json()["error"]


async def test_a_label_that_a_prediction_does_not_have_is_not_corrected(tmp_path: Path) -> None:
    door = Door(tmp_path)
    for number in range(3):
        door.fold.record(prediction(number, "F", "yes"))
    await door.labels(request_0="yes")
    door.count()
    other = await door.post(correction("request-0", "no", "yes"))
    assert (other.status_code, other.json()["repeated"]) == (202, 1), "what counts is what it would make of it"
    await door.post(correction("request-0", "yes", "no"))
    stale = await door.post(correction("request-0", "yes", "yes and no"))
    assert stale.status_code == 202, "no class is known: that isn't favourable, as it is"
    never = await door.post(correction("request-1", "no", "yes"))
    assert (never.status_code, never.json()["contradicting"]) == (409, ["request-1"])
    assert "a correction of a label that it doesn't have" in never.json()["error"]
    unknown = await door.post(correction("elsewhere", "no", "yes"))
    assert (unknown.status_code, unknown.json()["repeated"]) == (202, 0), "it may have been forgotten: it waits"


async def test_one_of_two_different_corrections_is_refused(tmp_path: Path) -> None:
    door = Door(tmp_path, {"threshold": 0.5})
    await door.labels(a=0.25)
    assert (await door.post(correction("a", 0.25, 0.75))).status_code == 202
    second = await door.post(correction("a", 0.25, 0.5))
    assert (second.status_code, second.json()["contradicting"]) == (409, ["a"])
    assert (await door.post(correction("a", 0.75, 0.5))).status_code == 202
    assert len(door.bodies()) == 3


async def test_a_label_and_its_correction_in_one_body(tmp_path: Path) -> None:
    door = Door(tmp_path)
    door.fold.record(prediction(0, "F", "yes"))
    both = json.loads(correction("request-0", "no", "yes"))
    both["labels"].insert(0, {"id": "request-0", "label": "no"})
    assert (await door.post(json.dumps(both).encode())).json() == {"accepted": 2, "repeated": 0}
    door.count()
    assert door.fold.cells().by("sex").counts.tolist() == [[[0, 0, 0], [0, 1, 0]]]
    assert door.fold.labels.corrected == 1


# ---- counts ----


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sliding", [False, True], ids=["whole", "sliding"])
def test_counts_are_those_of_the_corrected_labels_in_any_order(seed: int, sliding: bool) -> None:
    """Corrections before their label, labels before their prediction, corrections of corrections, restarts."""
    rng, rules = np.random.default_rng(seed), {"favorableOutcome": {"threshold": 0.5}}
    rules |= {"metrics": [*RULES["metrics"], {"name": "meanErrorDifference", "thresholdUpper": 0.2}]}
    rules |= {"window": {"type": "sliding", "samples": 100}} if sliding else {}
    bias = Bias.model_validate(RULES | rules)
    events: list[list[Frame]] = []
    mine, corrected, first = (Fold(bias, "r1") for _ in range(3))
    for number, (sex, _) in enumerate(people(150, seed)):
        request, chain = f"r{number}", [float(v) for v in rng.random(int(rng.integers(1, 4)))]
        frame = answered(number, [sex], np.array([[0.2, 0.8]], np.float32), regression=True)
        frame = msgspec.structs.replace(frame, times=np.array([1e9 + 10 * number]).tobytes())
        steps = [fixed(request, was, now) for was, now in pairwise(chain)]
        events.append([frame, said(request, chain[0]), *steps])
        for fold, label in ((corrected, chain[-1]), (first, chain[0])):
            fold.record(frame)
            fold.record(said(request, label))
    late: list[Frame] = []
    for one in events:
        kind, (frame, label, *steps) = int(rng.integers(0, 4)), one
        now = {0: one, 1: [label, *steps, frame], 2: [frame, *steps, label], 3: [frame, label]}[kind]
        late += steps if kind == 3 else []
        for event in now:
            mine.record(event)
        if rng.random() < 0.1:
            mine = again(mine)
    for event in late:
        mine.record(event)
    count = sum(len(one) - 2 for one in events)
    assert mine.labels.corrected + mine.labels.dropped["repeated"] == count
    assert mine.labels.dropped["contradicting"] == 0
    assert mine.window.total().dump() == corrected.window.total().dump()
    assert mine.window.total(first=True).dump() == first.window.total().dump()
    whole = add_up(again(mine).tally(), [Fold(bias, "r1").tally()])
    assert whole.corrected is not None
    assert (whole.cells.dump(), whole.corrected.first.dump()) == (corrected.cells().dump(), first.cells().dump())


def test_coverage_counts_the_corrected_class_also_among_unfavourable_ones() -> None:
    mine = covering(CLASSES)
    mine.record(answered(0, ["F"], np.array([[True, False, False]])))
    mine.record(said("r0", "perhaps"))
    assert mine.coverage.counts[""]["(all)"] == [0, 1]
    mine.record(fixed("r0", "no", "yes"))
    assert (mine.labels.dropped["contradicting"], mine.labels.corrected) == (1, 0)
    mine.record(fixed("r0", "perhaps", "no"))
    assert (mine.coverage.counts[""]["(all)"], mine.labels.corrected) == ([1, 1], 1)
    mine.record(fixed("r0", "perhaps", "no"))
    assert (mine.coverage.counts[""]["(all)"], mine.labels.dropped["repeated"]) == ([1, 1], 1)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("first", "now", "word"),
    [("yes", "no", "Unknown"), ("no", "yes", "Unknown"), ("yes", "yes", "Pass"), ("no", "no", "Fail")],
    ids=["to fail", "to pass", "both pass", "both fail"],
)
def test_corrections_en_masse_make_no_verdict_about_coverage(first: str, now: str, word: str, replicas: int) -> None:
    """Every set holds "yes" alone; whoever corrects all labels decides the figures, and no word."""
    folds = [covering(CLASSES) for _ in range(replicas)]
    for number in range(400):
        mine = folds[number % replicas]
        mine.record(answered(number, ["F"], np.array([[False, False, True]])))
        mine.record(said(f"r{number}", first))
        if now != first:
            mine.record(fixed(f"r{number}", first, now))
        elif number < 5:  # a slip, put right again
            mine.record(fixed(f"r{number}", first, "perhaps"))
            mine.record(fixed(f"r{number}", "perhaps", first))
    for place, fold in enumerate(folds):  # a restart
        folds[place] = covering(CLASSES)
        assert folds[place].load(msgspec.msgpack.decode(msgspec.msgpack.encode(fold.dump())))
    whole = add_up(folds[0].tally(), [fold.tally() for fold in folds[1:]])
    assert whole.coverage[""]["(all)"] == [400 * (now == "yes"), 400]
    assert whole.first_coverage is not None
    assert whole.first_coverage[""]["(all)"] == [400 * (first == "yes"), 400]
    roster = Roster({"sex": {"F": 1.0}})
    found = set_coverage(BIAS, 0.9, whole.coverage, roster, None, whole.first_coverage)
    assert (found.overall.verdict, found.overall.covered) == (word, 400 * (now == "yes"))
    assert {one.verdict for one in found.groups.get("sex", [found.overall])} == {word}


def test_without_corrections_coverage_is_counted_once() -> None:
    mine = covering(CLASSES)
    mine.record(answered(0, ["F"], np.array([[False, False, True]])))
    mine.record(said("r0", "yes"))
    assert (mine.tally().first_coverage, add_up(mine.tally(), []).first_coverage) == ({}, None)
    older = {name: value for name, value in mine.dump().items() if name != "firstCoverage"}
    read = covering(CLASSES)
    assert read.load(msgspec.msgpack.decode(msgspec.msgpack.encode(older)))
    assert read.first_coverage.dump() == mine.coverage.dump(), "a snapshot of an earlier version"


def test_corrections_that_wait_are_bounded_and_counted() -> None:
    fold = Fold(Bias.model_validate(RULES), "r1", label_capacity=5)
    for number in range(8):
        fold.record(fixed(f"x{number}", "no", "yes"))
    assert (len(fold.labels.all_corrections()), fold.labels.dropped["evicted"]) == (5, 3)
    for _ in range(20):
        fold.record(fixed("x7", "no", "yes"))
    assert fold.labels.dropped["evicted"] == 8
    assert len(again(fold).labels.all_corrections()) == 5


@pytest.mark.parametrize("body", [b'{"label": "yes", "correct": true}', b'{"label": "yes", "correct": 1, "was": "no"}'])
def test_a_correction_of_nothing_in_the_journal_is_dropped(body: bytes) -> None:
    fold = Fold(Bias.model_validate(RULES), "r1")
    fold.record(EventRecord("label", "a", "loans", "r1", 0.0, body, {"correct": True}))
    assert fold.labels.dropped["unreadable"] == 1


# ---- several replicas ----


class Replica:
    """One of two; ``own`` are the streams whose records it has folded."""

    def __init__(self, ledger: Ledger) -> None:
        self.fold = Fold(Bias.model_validate(RULES), "r1")
        self.fold.labels.doubt = True
        self.ledger, self.own = ledger, set[str]()
        self.resolver = CrossReplicaLabelResolver(
            ledger,  # type: ignore[arg-type]
            ledger.cipher,
            self.fold,
            lambda identity: 1 if identity in self.own else None,
            lambda: 1e10,
        )

    def take(self, record: Frame, ship: bool = True) -> None:
        self.fold.record(record)
        if ship:
            self.own.add(self.ledger.add(record))

    def look(self) -> None:
        labels = self.fold.labels
        self.resolver._again.clear()
        for found in self.resolver.look(labels.all_waiting(), labels.all_doubtful(), labels.all_corrections()):
            settle = self.fold.settle_correction if found.correction else self.fold.settle
            settle(found.id, found.rows, found.dropped)


LABEL, FIRST, SECOND = (
    said("request-1", "no", 1.0),
    fixed("request-1", "no", "yes", 2.0),
    fixed("request-1", "yes", "no", 3.0),
)


@pytest.mark.parametrize("label_at", [0, 1])
@pytest.mark.parametrize("first_at", [0, 1])
@pytest.mark.parametrize("second_at", [0, 1])
@pytest.mark.parametrize("order", ["label first", "label last", "second first"])
def test_replicas_correct_by_the_ledgers_order(
    tmp_path: Path, label_at: int, first_at: int, second_at: int, order: str
) -> None:
    ledger = Ledger(SegmentCipher(local_keyset(tmp_path)), tmp_path)
    both = [Replica(ledger), Replica(ledger)]
    both[0].take(prediction(1, "F", "yes"))
    steps = [(label_at, LABEL), (first_at, FIRST), (second_at, SECOND)]
    if order == "label last":
        steps = [*steps[1:], steps[0]]
    elif order == "second first":
        steps = [steps[0], steps[2], steps[1]]
    for at, event in steps:
        both[at].take(event)
        for one in both:
            one.look()
    for one in both * 3:
        one.look()
    whole = add_up(both[0].fold.tally(), [both[1].fold.tally()])
    favourable = int(order == "second first")  # that one named a label that the prediction didn't have then
    assert whole.cells.by("sex").counts.tolist() == [[[0, 0, 0], [1 - favourable, favourable, 0]]]
    assert whole.corrected is not None
    assert whole.corrected.rows == (1 if favourable else 2)
    assert whole.corrected.first.by("sex").counts.tolist() == [[[0, 0, 0], [1, 0, 0]]]
    dropped = {k: v for one in both for k, v in one.fold.labels.dropped.items() if v}
    assert dropped == ({"repeated": 1} if favourable else {})
    assert all(not one.fold.labels.all_corrections() for one in both)


def test_of_two_corrections_of_one_label_the_ledgers_first_counts_and_none_counts_twice(tmp_path: Path) -> None:
    ledger = Ledger(SegmentCipher(local_keyset(tmp_path)), tmp_path)
    a, b = Replica(ledger), Replica(ledger)
    for one in (a, b):
        one.fold = one.resolver._fold = Fold(
            Bias.model_validate(RULES | {"favorableOutcome": {"threshold": 0.5}}), "r1"
        )
        one.fold.labels.doubt = True
    frame = answered(1, ["F"], np.array([[0, 1]], np.float32), regression=True)
    ledger.request = "r1"
    a.take(frame)
    b.take(said("r1", 0.25, 1.0))
    later = fixed("r1", 0.25, 0.75, 2.0)
    a.fold.record(later)  # posted first, shipped last
    b.take(fixed("r1", 0.25, 0.4, 3.0))
    a.own.add(ledger.add(later))
    for one in (a, b) * 4:
        one.look()
    whole = add_up(a.fold.tally(), [b.fold.tally()])
    assert whole.cells.by("sex").counts.tolist() == [[[0, 0, 0], [1, 0, 0]]], "0.4 counts"
    assert (a.fold.labels.dropped["contradicting"], b.fold.labels.corrected, a.fold.labels.corrected) == (1, 1, 0)


def test_two_corrections_at_one_time_are_told_apart(tmp_path: Path) -> None:
    """As of one body; the first of them names a label that the prediction doesn't have."""
    ledger = Ledger(SegmentCipher(local_keyset(tmp_path)), tmp_path)
    replica = Replica(ledger)
    for event in (prediction(1, "F", "yes"), LABEL, fixed("request-1", "yes", "no", 2.0), FIRST):
        replica.take(event)
    for _ in range(4):
        replica.look()
    assert (replica.fold.labels.corrected, replica.fold.labels.dropped["repeated"]) == (1, 1)
    assert replica.fold.cells().by("sex").counts.tolist() == [[[0, 0, 0], [0, 1, 0]]]


# ---- verdicts ----


def counts(rates: dict[str, tuple[int, int]]) -> Cells:
    """Group → favoured among those who deserve it, of how many; and as many who don't, none of them favoured."""
    cells = Cells(("sex",))
    for group, (favoured, rows) in rates.items():
        cells.put((group,), np.array([[rows, rows - favoured, 0], [0, favoured, 0]]))
    return cells


BIAS = Bias.model_validate(RULES | {"metrics": [RULES["metrics"][1]]})
FAIR, UNFAIR = {"F": (800, 1000), "M": (800, 1000)}, {"F": (450, 1000), "M": (800, 1000)}


@pytest.mark.parametrize(
    ("first", "now", "word", "kept"),
    [
        (UNFAIR, FAIR, "Unknown", 1),
        (FAIR, UNFAIR, "Unknown", 1),
        (FAIR, FAIR, "Pass", 0),
        (UNFAIR, UNFAIR, "Fail", 0),
        ({"F": (800, 1000), "M": (801, 1001)}, FAIR, "Pass", 0),
        ({"F": (7, 10), "M": (8, 10)}, FAIR, "Unknown", 1),
        (FAIR, {"F": (7, 10), "M": (8, 10)}, "Unknown", 0),
    ],
    ids=["to pass", "to fail", "both pass", "both fail", "a slip", "from few", "to few"],
)
def test_a_verdict_needs_what_the_first_labels_show(
    first: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]], word: str, kept: int
) -> None:
    big = {g: (k * 5, n * 5) for g, (k, n) in now.items()}
    was = {g: (k * 5, n * 5) for g, (k, n) in first.items()}
    found = judge(BIAS, counts(big), None, Corrected(counts(was), 12, 10_000))
    assert (found.verdict, found.corrections.withheld) == (word, kept)
    assert "; labels corrected: 12 of 10,000" in found.summary
    assert found.metrics[0].value == judge(BIAS, counts(big)).metrics[0].value, "values are of corrected labels"
    assert ("first" in found.metrics[0].message) == bool(kept)
    assert wire(found)["corrections"] == {"corrected": 12, "labelled": 10_000, "withheld": kept}
    assert "corrections" not in wire(judge(BIAS, counts(big)))


def test_whoever_corrects_after_each_look_makes_no_verdict() -> None:
    """The truth lies on the bound; one in ten labels is changed after a look so that it seems beyond it."""
    alone = steered = 0
    for run in range(12):
        rng = np.random.default_rng(run)
        first, now = Cells(("sex",)), Cells(("sex",))
        fails = [False, False]
        for _ in range(6):
            for group, rate in (("F", 0.7), ("M", 0.8)):
                favoured = int(rng.binomial(500, rate))
                table = np.array([[0, 500 - favoured, 0], [0, favoured, 0]])
                first.put((group,), table)
                now.put((group,), table)
            moved = int(now.counts[("F",)][1, 1] // 10)  # women who were favoured did not deserve it, says somebody
            now.put(("F",), np.array([[0, 0, 0], [moved, -moved, 0]]))
            fails[0] |= judge(BIAS, now).verdict == "Fail"
            fails[1] |= judge(BIAS, now, None, Corrected(first, 1, 1)).verdict == "Fail"
        alone, steered = alone + fails[0], steered + fails[1]
    assert (alone, steered) == (12, 0)


def test_a_correction_is_judged_and_its_evidence_is_recorded(tmp_path: Path) -> None:
    keyset = local_keyset(tmp_path)
    cipher = SegmentCipher(keyset)
    with Journal(tmp_path, "auditor-pod", cipher, "PageCache") as journal:
        fold = Fold(Bias.model_validate(RULES), "r1")
        state = AuditState(Subject("loans", "r1"), journal, Tail(tmp_path, keyset, cipher, fold))
        worker = JudgeWorker(state)
        for number, (sex, decision) in enumerate(people(200, 1)):
            fold.record(prediction(number, sex, decision))
            fold.record(said(f"request-{number}", "yes"))
        assert (worker.run_once(), worker.run_once()) == (1, 0)
        before = state.verdict
        fold.record(fixed("request-7", "yes", "no"))
        worker._recorded = replace(worker._recorded, at=0.0)  # time to record it again
        assert (worker.run_once(), worker.run_once()) == (1, 0)
    after = state.verdict
    (*_, last) = [r for _, r in JournalReader(tmp_path, "auditor-pod", cipher).read() if isinstance(r, EventRecord)]
    recorded = json.loads(last.body)["counts"]
    assert recorded["first"] == fold.window.total(first=True).dump() != fold.window.total().dump()
    assert recorded["corrected"] == [1, 200]
    assert (before.corrections.corrected, after.corrections.corrected, after.corrections.labelled) == (0, 1, 200)
    assert before.evidence != after.evidence
    fold.record(fixed("request-7", "no", "yes"))
    assert fold.window.total().dump() == fold.window.total(first=True).dump(), "put back, the first labels count again"


def test_late_labels_of_rows_that_left_a_sliding_window_do_not_count_in_it() -> None:
    """Found in the ledger, as the join remembers them no longer."""
    bias = Bias.model_validate(RULES | {"window": {"type": "sliding", "samples": 100}})
    frames = [prediction(n, "F", "yes", 1e9 + 59.0 * n) for n in range(300)]
    left = 0
    for rows in range(140, 300, 3):
        fold = Fold(bias, "r1", label_capacity=10)
        for frame in frames[:rows]:
            fold.record(frame)
        left += fold.window.gone > 0
        if not fold.window.gone:
            continue
        fold.record(said("request-0", "no"))
        fold.settle("request-0", fold.rows_of(frames[0], 0), "")
        fold.record(fixed("request-0", "no", "yes"))
        fold.settle_correction("request-0", fold.rows_of(frames[0], 0), "")
        assert (fold.labels.joined, fold.labels.corrected) == (1, 1)
        whole, first = fold.window.total(), fold.window.total(first=True)
        assert (whole.labelled, first.labelled, whole.rows) == (0, 0, first.rows)
        assert all((table >= 0).all() for table in (*whole.counts.values(), *first.counts.values()))
    assert left > 20


def test_what_undoes_corrections_leaves_with_its_rows() -> None:
    bias = Bias.model_validate(RULES | {"window": {"type": "sliding", "samples": 100}})
    fold = Fold(bias, "r1")
    for number in range(1000):
        fold.record(prediction(number, "F", "yes", 1e9 + 59.0 * number))
        fold.record(said(f"request-{number}", "no"))
        fold.record(fixed(f"request-{number}", "no", "yes"))
    assert len(fold.window.dump()["undo"]) < 200  # type: ignore[arg-type]


def test_a_reader_of_the_ledger_counts_as_the_auditor_does(tmp_path: Path) -> None:
    """Also where a label was shipped behind its correction, and of what is no correction."""
    kek = Kek(bytes(range(32)))
    cipher = SegmentCipher(Keyring(kek, DirectoryStore(tmp_path / "keysets")).keyset("journal"))
    request, other = "request-1", "request-2"
    events = [
        fixed(request, "no", "yes", 2.0),
        said(request, "no", 1.0),
        said(other, "no", 1.0),
        fixed(other, "yes", "no", 2.0),
        fixed(other, "no", "yes", 3.0),
        fixed(other, "no", "yes", 4.0),
        fixed(other, "yes", "no", 5.0),
        fixed("request-3", "no", "yes", 5.0),
    ]
    ledger = Ledger(cipher, tmp_path)
    for event in events:
        ledger.add(event)
    source: Any = SimpleNamespace(blob_bytes=ledger.blobs.__getitem__)
    chunks = [entry["blob"] for entry in ledger.entries]
    found = _truths(source, cipher, "loans", chunks, ServedRules(["sex"], label="yes"), {})
    assert found == {request: [1], other: [0]}


def test_the_page_says_how_many_labels_were_corrected() -> None:
    told = str(_corrections(LabelCorrections(corrected=12, labelled=3456, withheld=1)))
    assert "Labels corrected: 12 of 3,456." in told
    assert "Unknown for that: 1." in told
    assert _corrections(LabelCorrections()) is None

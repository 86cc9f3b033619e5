"""A late label is validated once, at the door; what is in a journal all the same costs a label, never the counting."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from governed_api.governance import Bias, FavorableOutcome
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.crypto import SegmentCipher
from governed_serving.fairness.counts.truth import PostedLabel, read_truth
from governed_serving.journal import Journal, JournalFull, JournalReader
from governed_serving.records import EventRecord

from .records import SPEC, local_keyset, prediction
from .test_monitors import MANIFEST

RULES: dict[str, Any] = SPEC["spec"]["governance"]["bias"]
SCORE, TEXT = {"threshold": 0.5}, {"pattern": "granted"}


class Door:
    """The routes over a real journal, called without a socket."""

    def __init__(self, root: Path, outcome: dict[str, Any] | None = None, classes: tuple[str | int, ...] = ()) -> None:
        self.root, keyset = root, local_keyset(root)
        self.cipher = SegmentCipher(keyset)
        bias = Bias.model_validate(RULES | ({"favorableOutcome": outcome} if outcome else {}))
        self.journal = Journal(root, "auditor-pod", self.cipher, "PageCache")
        self.fold = Fold(bias, "r1", msgspec.structs.replace(MANIFEST, classes=[*classes]))
        state = AuditState(Subject("loans", "r1"), self.journal, Tail(root, keyset, self.cipher, self.fold))
        assert state.door is not None
        self.refused, recent = state.door.refused, state.door._recent
        self.kept = lambda: sum(map(len, recent.values()))
        parts = Dependencies(state, self.journal, AuditorMetrics("default", "loans"), str, dict, lambda: None)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(application(parts)), base_url="http://auditor")

    async def post(self, body: bytes) -> httpx.Response:
        return await self.client.post("/v1/labels", content=body)

    async def labels(self, **labels: Any) -> httpx.Response:
        listed = [{"id": name.replace("_", "-"), "label": label} for name, label in labels.items()]
        return await self.post(json.dumps({"labels": listed}).encode())

    def count(self) -> None:
        """What the journal has of labels is counted."""
        for _, record in JournalReader(self.root, "auditor-pod", self.cipher).read():
            self.fold.record(record)

    def bodies(self) -> list[bytes]:
        found = JournalReader(self.root, "auditor-pod", self.cipher).read()
        return [record.body for _, record in found if isinstance(record, EventRecord)]


@pytest.mark.parametrize(
    ("outcome", "label", "why"),
    [
        (None, "null", "expected a value"),
        (None, "[]", "expected a value"),
        (None, "[null]", "expected a value"),
        (None, '[["yes"]]', "expected a value"),
        (None, '{"yes": 1}', "expected a value"),
        (SCORE, '"much"', "expected numbers"),
        (SCORE, '[0.5, "much"]', "expected numbers"),
        (SCORE, "1" + "0" * 400, "labels"),
        (SCORE, '""', "expected numbers"),
        (SCORE, '"nan"', "expected numbers"),
        (SCORE, '[0.5, "-Infinity"]', "expected numbers"),
        (SCORE, "true", "expected numbers"),
        (SCORE, "[0.5, false]", "expected numbers"),
        (TEXT, "1", "expected true, false or the right text"),
        (TEXT, "[true, 2.5]", "expected true, false or the right text"),
    ],
)
async def test_what_is_no_label_is_refused_at_the_door_and_leaves_nothing(
    tmp_path: Path, outcome: dict[str, Any] | None, label: str, why: str
) -> None:
    door = Door(tmp_path, outcome)
    answer = await door.post(f'{{"labels": [{{"id": "a", "label": {label}}}]}}'.encode())
    assert (answer.status_code, door.bodies()) == (400, [])
    assert why in answer.json()["error"]
    assert len(answer.content) < 2000, "a message doesn't repeat what was sent without end"


@pytest.mark.parametrize("label", ['"yes"', '["yes","no"]', "true", "3", "2.0", '[1,"1",1.5,false]'])
async def test_what_is_recorded_is_what_was_posted(tmp_path: Path, label: str) -> None:
    """Byte for byte: ledgers hold digests of such bodies."""
    door = Door(tmp_path)
    answer = await door.post(f'{{"labels": [{{"id": "a", "label": {label}}}]}}'.encode())
    assert answer.status_code == 202
    assert door.bodies() == [f'{{"id":"a","label":{label}}}'.encode()]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"label": null}',
        b'{"label": {"x": 1}}',
        b'{"label": [[1]]}',
        b'{"id": 7, "label": 1}',
        b"[" * 5000,
    ],
)
@pytest.mark.parametrize("outcome", [None, SCORE, TEXT], ids=["class", "score", "text"])
def test_an_unreadable_label_in_the_journal_is_dropped_and_counted(outcome: dict[str, Any] | None, body: bytes) -> None:
    fold = Fold(Bias.model_validate(RULES | ({"favorableOutcome": outcome} if outcome else {})), "r1")
    fold.record(EventRecord("label", "request-1", "loans", "r1", 0.0, body))
    assert (fold.labels.dropped["unreadable"], fold.labels.waiting) == (1, 0)


def test_a_label_from_before_the_rules_changed_is_dropped_and_the_rest_is_counted() -> None:
    fold = Fold(Bias.model_validate(RULES | {"favorableOutcome": SCORE}), "r1")
    for request, label in (("a", "yes"), ("b", 0.75), ("c", "nan"), ("d", [1.0, "inf"])):
        fold.record(EventRecord("label", request, "loans", "r1", 0.0, json.dumps({"label": label}).encode()))
    assert (fold.labels.dropped["unreadable"], fold.labels.waiting) == (3, 1)


def test_labels_as_truths_and_numbers() -> None:
    score, word = FavorableOutcome(threshold=0.5), FavorableOutcome(label="1")
    assert read_truth(score, PostedLabel(label=[0.25, 1, "0.5"])) == ([0, 1, 1], [0.25, 1.0, 0.5])
    assert read_truth(word, PostedLabel(label=[1, "1", 1.0, True])) == ([1, 1, 1, 0], [1.0, 1.0, 1.0, 0.0])
    assert read_truth(word, PostedLabel(label="2")) == ([0], [0.0])


@pytest.mark.parametrize("label", ["", "  ", ["1", ""], ["\t", 2]])
def test_an_empty_text_is_no_unfavourable_label(label: str | list[str | int | float | bool]) -> None:
    """As a column with gaps has it, sent row by row."""
    with pytest.raises(ValueError, match="expected a class, found an empty text"):
        read_truth(FavorableOutcome(label="1"), PostedLabel(label=label))


@pytest.mark.parametrize(
    ("classes", "label", "said"),
    [
        (("yes", "no"), "Yes", "a class of the model (no, yes), found 'Yes'; did you mean 'yes'?"),
        (("yes", "no"), " no", "did you mean 'no'?"),
        (("yes", "no"), ["no", "maybe"], "found 'maybe'"),
        (("yes", "no"), True, "found 'true'"),
        (("yes", "no"), 1, "found '1'"),
        (("yes", *map(str, range(50))), "50", "and 41 more), found '50'"),
        (("yes", "Yes"), "YES", "found 'YES'"),
        ((0, 1), "yes", "a class of the model (0, 1), found 'yes'"),
        ((0, 1), 0.5, "found '0.5'"),
    ],
)
async def test_a_label_that_names_no_class_is_refused_and_the_classes_are_named(
    tmp_path: Path, classes: tuple[str | int, ...], label: Any, said: str
) -> None:
    """It would count as unfavourable."""
    door = Door(tmp_path, {"label": str(classes[0])}, classes)
    answer = await door.labels(a=label)
    assert (answer.status_code, said in answer.json()["error"], door.bodies()) == (400, True, []), answer.text
    assert not answer.json()["error"].endswith("?") or "mean" in said
    assert door.refused == {"unusable": 1, "contradicting": 0}
    door.fold.record(EventRecord("label", "a", "loans", "r1", 0.0, json.dumps({"id": "a", "label": label}).encode()))
    assert (door.fold.labels.dropped["unreadable"], door.fold.labels.waiting) == (1, 0), "as one in a journal is not"


@pytest.mark.parametrize(("classes", "label"), [(("yes", "no"), "no"), ((0, 1), 1.0), ((0, 1), "0"), (("true",), True)])
async def test_a_label_that_names_a_class_is_taken(tmp_path: Path, classes: tuple[str | int, ...], label: Any) -> None:
    door = Door(tmp_path, {"label": str(classes[0])}, classes)
    assert (await door.labels(a=label)).status_code == 202


# ---- one label a prediction ----


@pytest.mark.parametrize("counted", [False, True], ids=["posted", "counted"])
@pytest.mark.parametrize("early", [False, True], ids=["known", "waiting"])
async def test_the_same_label_again_changes_nothing_and_another_is_refused(
    tmp_path: Path, counted: bool, early: bool
) -> None:
    door = Door(tmp_path)
    if not early:
        door.fold.record(prediction(0, "F", "yes"))
    first = await door.labels(request_0="no")
    assert (first.status_code, first.json()) == (202, {"accepted": 1, "repeated": 0})
    if counted:
        door.count()
        (tmp_path / "again").mkdir()
        again = Door(tmp_path / "again")  # as after a restart
        again.fold.load(msgspec.msgpack.decode(msgspec.msgpack.encode(door.fold.dump())))
        door.journal.close()
        door, before = again, door.bodies()
    else:
        before = []
    for same in ("no", ["no"], "refused"):  # not favourable, all of them, and no classes are known
        answer = await door.labels(request_0=same)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "repeated": 1})
    refused = await door.labels(request_1="yes", request_0="yes")
    assert (refused.status_code, refused.json()["contradicting"]) == (409, ["request-0"])
    assert "the first label counts" in refused.json()["error"]
    assert "nothing was recorded" in refused.json()["error"]
    assert door.refused == {"unusable": 0, "contradicting": 1}
    assert before + door.bodies() == [b'{"id":"request-0","label":"no"}']


async def test_two_labels_of_one_prediction_in_one_body(tmp_path: Path) -> None:
    door = Door(tmp_path)
    answer = await door.post(b'{"labels": [{"id": "a", "label": "yes"}, {"id": "a", "label": "no"}]}')
    assert (answer.status_code, answer.json()["contradicting"], door.bodies()) == (409, ["a"], [])
    answer = await door.post(b'{"labels": [{"id": "a", "label": "yes"}, {"id": "a", "label": "yes"}]}')
    assert (answer.status_code, answer.json(), len(door.bodies())) == (202, {"accepted": 2, "repeated": 1}, 1)


async def test_labels_that_could_not_be_recorded_may_come_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(tmp_path)

    async def full(_: EventRecord) -> None:
        raise JournalFull("the spool is full")

    with monkeypatch.context() as patched:
        patched.setattr(door.journal, "append", full)
        assert (await door.labels(a="yes", b="no")).status_code == 503
    again = await door.labels(a="no", b="no")
    assert (again.status_code, again.json()) == (202, {"accepted": 2, "repeated": 0})


async def test_what_is_kept_of_a_label_does_not_grow_with_its_rows(tmp_path: Path) -> None:
    door = Door(tmp_path)
    assert (await door.labels(a=["yes", "no"] * 100_000)).status_code == 202
    assert (await door.labels(a=["no", "yes"] * 100_000)).status_code == 409
    assert door.kept() < 200


async def test_of_two_labels_at_once_one_is_recorded(tmp_path: Path) -> None:
    door = Door(tmp_path)
    answers = await asyncio.gather(*(door.labels(a=word) for word in ("yes", "no") * 8))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] * 8 + [409] * 8
    assert len(door.bodies()) == 1


async def test_a_label_for_each_row(tmp_path: Path) -> None:
    door = Door(tmp_path)
    door.fold.record(prediction(0, "F", "yes"))
    answer = await door.labels(request_0=["yes", "no"])
    assert (answer.status_code, "each of its 1 rows, found 2" in answer.json()["error"]) == (400, True)


def test_what_slips_through_two_doors_is_told_apart_when_it_is_counted() -> None:
    fold = Fold(Bias.model_validate(RULES), "r1")
    fold.record(prediction(0, "F", "yes"))
    for request in ("request-0", "request-1"):  # one is known, the other's prediction is still to come
        for label in ("yes", "yes", "no"):
            body = json.dumps({"label": label}).encode()
            fold.record(EventRecord("label", request, "loans", "r1", 0.0, body))
    fold.record(prediction(1, "F", "yes"))
    dropped = fold.labels.dropped
    assert (dropped["repeated"], dropped["contradicting"], fold.labels.joined) == (2, 2, 2)
    assert fold.cells().labelled == 2


def test_a_snapshot_of_before_knows_no_truths_and_takes_a_label_again_for_the_same() -> None:
    fold, later = (Fold(Bias.model_validate(RULES), "r1") for _ in range(2))
    fold.record(prediction(0, "F", "yes"))
    fold.record(EventRecord("label", "request-0", "loans", "r1", 0.0, b'{"label": "yes"}'))
    dumped: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(fold.dump()))
    for block in dumped["labels"]["blocks"]:
        del block["truths"]
    del dumped["labels"]["dropped"]["contradicting"]
    assert later.load(dumped)
    later.record(EventRecord("label", "request-0", "loans", "r1", 0.0, b'{"label": "no"}'))
    assert (later.labels.dropped["repeated"], later.labels.dropped["contradicting"]) == (1, 0)


def test_a_label_is_still_joined(tmp_path: Path) -> None:
    door = Door(tmp_path)
    with Journal(tmp_path, "server-pod", door.cipher, "PageCache") as journal:
        journal.append_blocking(prediction(0, "F", "yes"))
    fold = Fold(Bias.model_validate(RULES), "r1")
    for _, record in JournalReader(tmp_path, "server-pod", door.cipher).read():
        fold.record(record)
    fold.record(EventRecord("label", "request-0", "loans", "r1", 0.0, b'{"id":"request-0","label":"yes"}'))
    assert (fold.labels.joined, fold.cells().labelled) == (1, 1)

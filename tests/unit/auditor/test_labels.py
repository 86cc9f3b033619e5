"""A late label is validated once, at the door; what is in a journal all the same costs a label, never the counting."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api.governance import Bias, FavorableOutcome
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.metrics import Metrics
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.crypto import SegmentCipher
from governed_serving.fairness.counts.truth import PostedLabel, read_truth
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import EventRecord

from .records import SPEC, local_keyset, prediction

RULES: dict[str, Any] = SPEC["spec"]["governance"]["bias"]
SCORE, TEXT = {"threshold": 0.5}, {"pattern": "granted"}


class Door:
    """The routes over a real journal, called without a socket."""

    def __init__(self, root: Path, outcome: dict[str, Any] | None = None) -> None:
        self.root, keyset = root, local_keyset(root)
        self.cipher = SegmentCipher(keyset)
        bias = Bias.model_validate(RULES | ({"favorableOutcome": outcome} if outcome else {}))
        self.journal = Journal(root, "auditor-pod", self.cipher, "PageCache")
        state = AuditState(Subject("loans", "r1"), self.journal, Tail(root, keyset, self.cipher, Fold(bias, "r1")))
        parts = Dependencies(state, self.journal, Metrics("default", "loans"), str, dict, lambda: None)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(application(parts)), base_url="http://auditor")

    async def post(self, body: bytes) -> httpx.Response:
        return await self.client.post("/v1/labels", content=body)

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


def test_a_label_is_still_joined(tmp_path: Path) -> None:
    door = Door(tmp_path)
    with Journal(tmp_path, "server-pod", door.cipher, "PageCache") as journal:
        journal.append_blocking(prediction(0, "F", "yes"))
    fold = Fold(Bias.model_validate(RULES), "r1")
    for _, record in JournalReader(tmp_path, "server-pod", door.cipher).read():
        fold.record(record)
    fold.record(EventRecord("label", "request-0", "loans", "r1", 0.0, b'{"id":"request-0","label":"yes"}'))
    assert (fold.labels.joined, fold.cells().labelled) == (1, 1)

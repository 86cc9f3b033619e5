"""What the entries themselves say, batch by batch: streams without gaps, but for a loss that a person accepted."""

from pathlib import Path

import pytest

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.verify.truth import HeldTiles, Truth

from .ledgers import batch, leaf


class Told:
    """A truth that is fed with one entry at a time."""

    def __init__(self, root: Path, *, wanted: tuple[int, ...] = ()) -> None:
        self.truth = Truth("default", None, HeldTiles(root, lambda *_: None), set(), set(wanted))

    def take(self, seq: int, stream: str, type: str = "prediction", model: str = "credit", count: int = 1) -> None:
        summary = {"verdict": "Pass"} if type == "verdict" else {}
        entries = [leaf(f"{stream}/{seq + i}", type, model, summary=summary) for i in range(count)]
        self.truth.take(self.truth.size, Batch(model, stream, seq, entries))


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_a_stream_begins_at_0_or_1_and_goes_on(told: Told, first: int) -> None:
    told.take(first, "a", count=3)
    told.take(first + 3, "a")
    for seq in (first + 3, first + 5):
        with pytest.raises(
            ArchiveError, match=rf"^entry 4: stream a of credit goes on at {seq}, expected {first + 4}:"
        ):
            told.take(seq, "a")
    with pytest.raises(ArchiveError, match=r"^entry 4: stream b of credit goes on at 2, expected 0: entries were left"):
        told.take(2, "b")
    assert told.truth.size == 4


def test_entries_that_are_missing_are_named(told: Told) -> None:
    told.truth.take(0, batch(0, 3))
    with pytest.raises(ArchiveError, match=r"^entries 3 to 4 are missing$"):
        told.truth.take(5, batch(3, 1))


def test_only_behind_a_loss_may_a_stream_leave_a_gap_and_once(told: Told) -> None:
    told.take(0, "before", count=2)
    with pytest.raises(ArchiveError):
        told.take(5, "before")
    told.take(0, ARCHIVE, "loss", ARCHIVE)
    assert told.truth.losses == [2]
    told.take(5, "before")
    told.take(6, "before")
    for seq in (4, 9):
        with pytest.raises(ArchiveError, match=rf"goes on at {seq}, expected 7"):
            told.take(seq, "before")
    told.take(8, "new")
    with pytest.raises(ArchiveError, match="goes on at 10, expected 9"):
        told.take(10, "new")
    with pytest.raises(ArchiveError, match="goes on at 5, expected 1"):
        told.take(5, ARCHIVE, "key", ARCHIVE)
    told.take(1, ARCHIVE, "loss", ARCHIVE)
    told.take(10, "new")
    told.take(20, "before")


def test_a_loss_of_another_is_none(told: Told) -> None:
    told.take(0, "a", "loss")
    assert told.truth.losses == []
    with pytest.raises(ArchiveError):
        told.take(5, "a")


def test_entries_are_of_their_batchs_model_and_namespace(told: Told) -> None:
    with pytest.raises(ArchiveError, match=r"^entry 0 is of default/other, its batch of default/credit$"):
        told.truth.take(0, Batch("credit", "s", 0, [leaf("x", model="other")]))


def test_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    told = Told(tmp_path, wanted=(1, 3))
    told.take(0, "a", "verdict", count=2)
    told.take(0, "b", "training", count=2)
    assert {index: (entry.id, stream) for index, (entry, stream) in told.truth.entries.items()} == {
        1: ("a/1", "a"), 3: ("b/1", "b"),
    }  # fmt: skip
    told.truth.take(4, Batch("credit", "a", 2, [leaf("alarm", "verdict", summary={"kind": "drift"})]))
    assert told.truth.verdicts == {("credit", ""): 1}, "an alarm beside the verdicts is none"
    assert [entry.id for entry in told.truth.trained["credit"]] == ["b/0", "b/1"]

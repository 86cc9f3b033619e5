"""Groups of appends, and the runs by which a stream's entries are located again."""

import threading
from pathlib import Path

import pytest

from governed_serving.archive.ledger import appender, streams, tiles
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Appended
from governed_serving.archive.ledger.streams import Streams
from unit.archive.ledgers import batch, opened


class HeldLedger:
    """Takes groups once ``open`` is set, and remembers them."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.groups: list[list[Batch]] = []

    def append_group(self, batches: list[Batch]) -> list[Appended]:
        self.begun.set()
        assert self.open.wait(10)
        self.groups.append(batches)
        return [Appended(0, (), 0) for _ in batches]

    def checkpoint(self) -> None: ...


def test_a_group_ends_when_it_has_enough_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that never empties must not hold up the first answer for ever."""
    monkeypatch.setattr(appender, "_GROUP_ENTRIES", 10)
    ledger = HeldLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    waiting = [writing.submit(batch(0, 4, "first"))]
    assert ledger.begun.wait(10)
    waiting += [writing.submit(batch(0, 4, f"s{i}")) for i in range(6)]
    ledger.open.set()
    for future in waiting:
        future.result(10)
    writing.close()
    assert [len(group) for group in ledger.groups] == [1, 3, 3]  # 4 + 4 + 4 entries are the first sum of at least 10
    assert writing.groups == 3
    assert writing.group_seconds > 0


def test_a_stream_is_in_a_group_once_and_in_its_order() -> None:
    ledger = HeldLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    waiting = [writing.submit(batch(0, 1, "other"))]
    assert ledger.begun.wait(10)
    waiting += [writing.submit(batch(i, 1, "same")) for i in range(3)]
    ledger.open.set()
    for future in waiting:
        future.result(10)
    writing.close()
    assert [[b.first_seq for b in group] for group in ledger.groups] == [[0], [0], [1], [2]]


def test_runs_that_adjoin_become_one() -> None:
    known = Streams()
    known.add("m", "s", 1, 100, 3)
    known.add("m", "s", 4, 103, 2)
    assert known.dump() == [("m", "s", [(1, 100, 5)])]
    known.add("m", "s", 6, 200, 1)  # goes on elsewhere
    known.add("m", "s", 9, 201, 1)  # adjoins in the log and not in the stream
    assert known.dump() == [("m", "s", [(1, 100, 5), (6, 200, 1), (9, 201, 1)])]
    assert known.run_at("m", "s", 5) == (1, 100, 5)
    assert known.run_at("m", "s", 7) is None
    assert known.next_seq("m", "s") == 10


def test_a_batch_older_than_what_is_remembered_is_located_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_REMEMBERED", 4)
    ledger = opened(tmp_path)
    places = {}
    for i in range(6):  # two streams take turns, so that no run adjoins the one before
        for stream in ("a", "b"):
            places[stream, 2 * i] = ledger.append(batch(2 * i, 2, stream)).first_index
    for (stream, first), index in places.items():
        again = ledger.append(batch(first, 2, stream))
        told = [place for start, count in again.ranges for place in range(start, start + count)]
        assert (again.first_index, told) == (index, [index, index + 1]), (stream, first)
    assert ledger.size == 24
    ledger.close()


def test_full_tiles_and_their_folders_are_durable_before_a_snapshot_leans_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(tiles, "fsync_file", synced.append)
    monkeypatch.setattr(tiles, "fsync_folder", synced.append)
    ledger = opened(tmp_path)
    ledger.append(batch(0, 600))
    ledger.close()  # a snapshot, after which the log is not read again
    full = [path for path in tmp_path.rglob("*") if path.is_file() and path in set(synced)]
    assert len(full) == 2  # 600 entries fill two tiles of 256
    assert {path.parent for path in full} <= set(synced)

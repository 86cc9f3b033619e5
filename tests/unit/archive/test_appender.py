"""Groups of appends, and the runs by which a stream's entries are located again."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from governed_serving.archive.errors import Busy, LedgerDamaged, Refused
from governed_serving.archive.ledger import appender, streams, tiles
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Appended
from governed_serving.archive.ledger.streams import Streams
from support.waiting import eventually
from unit.archive.ledgers import batch, opened


class HeldLedger:
    """Takes groups once ``open`` is set, and remembers them."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.groups: list[list[Batch]] = []

    def append_group(self, batches: list[Batch]) -> list[Appended]:
        self.begun.set()
        assert self.open.wait(60)
        self.groups.append(batches)
        return [Appended(0, (), 0) for _ in batches]

    def checkpoint(self) -> None: ...


def test_a_group_ends_when_it_has_enough_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that never empties must not hold up the first answer for ever."""
    monkeypatch.setattr(appender, "_GROUP_ENTRIES", 10)
    ledger = HeldLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    waiting = [writing.submit(batch(0, 4, "first"))]
    assert ledger.begun.wait(60)
    waiting += [writing.submit(batch(0, 4, f"s{i}")) for i in range(6)]
    ledger.open.set()
    for future in waiting:
        future.result(60)
    writing.close()
    assert [len(group) for group in ledger.groups] == [1, 3, 3]  # 4 + 4 + 4 entries are the first sum of at least 10
    assert writing.groups == 3
    assert writing.group_seconds > 0


def test_a_stream_is_in_a_group_once_and_in_its_order() -> None:
    ledger = HeldLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    waiting = [writing.submit(batch(0, 1, "other"))]
    assert ledger.begun.wait(60)
    waiting += [writing.submit(batch(i, 1, "same")) for i in range(3)]
    ledger.open.set()
    for future in waiting:
        future.result(60)
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


# -- the thread that writes --------------------------------------------------------------------------------------------


class Clock:
    """In place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


class CountingLedger(HeldLedger):
    """Answers by ``answer``; counts checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.open.set()
        self.signed = 0
        self.problem: Exception | None = None

    def append_group(self, batches: list[Batch]) -> list[Appended]:
        answers = super().append_group(batches)
        if self.problem:
            raise self.problem
        return [Refused(409, "a gap") if b.stream == "gap" else a for b, a in zip(batches, answers, strict=True)]  # type: ignore[misc]

    def checkpoint(self) -> None:
        self.signed += 1
        if self.problem:
            raise self.problem


@pytest.fixture
def held() -> Iterator[tuple[HeldLedger, appender.Appender]]:
    """An appender whose ledger holds its first batch until it is opened."""
    ledger = HeldLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    assert (writing.groups, writing.group_seconds, writing.waiting) == (0, 0.0, 0)
    first = writing.submit(batch(0, 1, "first"))
    assert ledger.begun.wait(60)
    yield ledger, writing
    ledger.open.set()
    if writing._thread.is_alive():
        writing.close()
    assert first.result(60)


def streams_of(ledger: HeldLedger) -> list[list[str]]:
    return [[b.stream for b in group] for group in ledger.groups]


def test_1024_batches_wait_and_no_more(held: tuple[HeldLedger, appender.Appender]) -> None:
    ledger, writing = held
    waiting = [writing.submit(Batch("m", f"s{i}", 0, [])) for i in range(1024)]
    assert writing.waiting == 1024
    with pytest.raises(Busy, match=r"^1024 appends are waiting already; try again") as busy:
        writing.submit(batch(0, 1, "more"))
    assert busy.value.status == 503
    ledger.open.set()
    for future in waiting:
        future.result(60)
    assert writing.waiting == 0


def test_a_group_of_16384_entries_is_enough(held: tuple[HeldLedger, appender.Appender]) -> None:
    ledger, writing = held
    waiting = [writing.submit(Batch("m", "many", 0, [b""] * 16_383))]
    waiting += [writing.submit(batch(0, 1, stream)) for stream in ("a", "b")]
    ledger.open.set()
    for future in waiting:
        future.result(60)
    assert streams_of(ledger) == [["first"], ["many", "a"], ["b"]]


def test_stopping_appends_what_waits_and_takes_nothing_more(held: tuple[HeldLedger, appender.Appender]) -> None:
    ledger, writing = held
    waiting = [writing.submit(batch(i, 1, "same")) for i in range(3)]
    stopping = threading.Thread(target=writing.close)
    stopping.start()
    eventually(lambda: writing._closed, bool)
    with pytest.raises(Busy, match=r"^the archive is stopping; try again"):
        writing.submit(batch(0, 1, "late"))
    ledger.open.set()
    stopping.join(60)
    assert all(future.done() for future in waiting)
    assert streams_of(ledger) == [["first"], ["same"], ["same"], ["same"]]
    assert not writing._thread.is_alive()


def test_what_was_given_up_is_not_appended(held: tuple[HeldLedger, appender.Appender]) -> None:
    ledger, writing = held
    given_up, wanted = writing.submit(batch(0, 1, "given up")), writing.submit(batch(0, 1, "wanted"))
    assert given_up.cancel()
    ledger.open.set()
    wanted.result(60)
    assert streams_of(ledger) == [["first"], ["wanted"]]


def test_the_thread_holds_no_dying_process_up(held: tuple[HeldLedger, appender.Appender]) -> None:
    (thread,) = [t for t in threading.enumerate() if t.name == "appender" and t is held[1]._thread]
    assert thread.daemon


def test_each_batch_has_its_own_answer() -> None:
    ledger = CountingLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    good, bad = writing.submit(batch(0, 1, "good")), writing.submit(batch(0, 1, "gap"))
    assert good.result(60).size == 0
    with pytest.raises(Refused, match="a gap"):
        bad.result(60)
    writing.close()


PROBLEMS = [OSError(28, "No space left"), LedgerDamaged("it was changed", 3)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_group_that_couldnt_be_written_is_told_so_and_the_next_is_tried(problem: Exception) -> None:
    ledger = CountingLedger()
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    ledger.problem = problem
    with pytest.raises(Busy, match=r"^the ledger can't be written: .*(No space|changed)") as busy:
        writing.submit(batch(0, 1)).result(60)
    assert busy.value.status == 507
    assert writing.groups == 0
    ledger.problem = None
    writing.submit(batch(0, 1)).result(60)
    writing.close()
    assert writing.groups == 1


def signed_at(monkeypatch: pytest.MonkeyPatch, *times: float) -> list[int]:
    """How many checkpoints were signed once a batch was appended at each of these times after the start."""
    clock = Clock()
    monkeypatch.setattr(appender, "time", clock)
    ledger = CountingLedger()
    writing, start, signed = appender.Appender(ledger), clock.now, []  # type: ignore[arg-type]
    for number, moment in enumerate(times):
        clock.now = start + moment
        writing.submit(batch(number, 1)).result(60)
        writing.submit(batch(number, 0, "behind it")).result(60)  # by then the look at the clock is over
        signed.append(ledger.signed)
    writing.close()
    assert writing.group_seconds == 0.0, "no time passed while it wrote"
    return signed


def test_a_checkpoint_is_signed_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signed_at(monkeypatch, 0.5, 0.99, 1.0, 1.5, 1.99, 2.0, 2.5) == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_checkpoint_that_cant_be_written_is_tried_again(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    clock = Clock()
    monkeypatch.setattr(appender, "time", clock)
    ledger = CountingLedger()
    monkeypatch.setattr(ledger, "append_group", HeldLedger.append_group.__get__(ledger))
    ledger.problem = problem
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    for number in range(3):
        clock.now += 1.0
        writing.submit(batch(number, 1)).result(60)
        writing.submit(batch(number, 0, "behind it")).result(60)
        assert ledger.signed == number + 1
    writing.close()

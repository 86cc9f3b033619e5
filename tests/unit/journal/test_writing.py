"""A writer at its limits: how much fits, when it rolls, what it counts, and callers whose loop has ended."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_serving.crypto import CryptoError
from governed_serving.journal import (
    PROBE_SECONDS,
    Ack,
    Journal,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalReader,
    JournalStats,
    RecordRefused,
)
from governed_serving.journal import segment as segment_module
from governed_serving.journal import writer as writer_module
from governed_serving.records import encode_frame

from .samples import cipher, event, prediction
from .test_writer import FailingDisk

BAD = msgspec.structs.replace(event(1), summary={"what": object()})


def segments(journal: Journal) -> list[int]:
    return sorted(int(path.stem) for path in journal.folder.glob("*.seg"))


def size(journal: Journal) -> int:
    return sum(path.stat().st_size for path in journal.folder.iterdir())


def test_a_new_journal_has_counted_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        assert JournalStats() == JournalStats(*[0] * 13)
        mark = journal.stats.spool_bytes
        assert msgspec.structs.replace(journal.stats, spool_bytes=0) == JournalStats()
        assert mark == size(journal)


def test_what_is_written_is_counted_to_the_byte(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        for number in range(3):
            journal.append_blocking(event(number))
        stats = journal.stats
        frames = list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).frames())
        assert stats.written_bytes == sum(len(frame.raw) for frame in frames)
        assert (stats.records, stats.frames, stats.syncs, stats.waiting, stats.failed) == (3, 3, 0, 0, 0)
        mark = (journal.folder / ".acknowledged").stat().st_size
        assert stats.spool_bytes == size(journal) - mark, "written in place: it doesn't grow"


def test_a_journal_that_can_not_be_opened_leaves_its_lock(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        journal.append_blocking(event(0))
    with pytest.raises(CryptoError):
        Journal(tmp_path, "server-a", cipher(tmp_path / "others"), "PageCache")
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        assert journal.append_blocking(event(1)).seq == 1


def test_a_journal_that_rolls_begins_a_segment_with_the_next_record(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        journal.append_blocking(event(0))
        journal.roll()
        assert segments(journal) == [0]
        for number in (1, 2):
            journal.append_blocking(event(number))
        assert segments(journal) == [0, 1]


@pytest.mark.parametrize(
    ("max_bytes", "limit"),
    [(1 << 30, 16 << 20), (64 << 20, 8 << 20), (200_000, 64 << 10)],
    ids=["16 MiB", "8", "64 KiB"],
)
def test_a_segment_is_an_eighth_of_the_spool_within_bounds(tmp_path: Path, max_bytes: int, limit: int) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", max_bytes) as journal:
        assert journal.append_blocking(event(0, limit - 1_000)).seq == 0
        assert journal.append_blocking(event(1, 2_000)).seq == 1
        assert segments(journal) == [0]
        journal.append_blocking(event(2))
        assert segments(journal) == [0, 2]


# How much fits


def test_a_frame_longer_than_readers_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = event(0, 500)
    length = len(encode_frame(record))
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        monkeypatch.setattr(writer_module, "FRAME_LIMIT", length)
        journal.append_blocking(record)
        monkeypatch.setattr(writer_module, "FRAME_LIMIT", length - 1)
        words = (
            f"journal stream server-a: a frame of {length} bytes is longer than the {length - 1} allowed; send fewer"
        )
        with pytest.raises(JournalFull, match=words):
            journal.append_blocking(record)
        assert journal.stats.refused_full == 1


def test_a_spool_is_full_when_the_next_record_would_not_fit(tmp_path: Path) -> None:
    record = event(0, 500)
    length = len(encode_frame(record))
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        journal.append_blocking(record)
    used = size(journal)
    for spare in (0, 1):
        with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", used + length - spare) as journal:
            if spare:
                words = (
                    f"journal stream server-a: {used} of {used + length - 1} bytes are used and not shipped yet; look"
                )
                with pytest.raises(JournalFull, match=words):
                    journal.append_blocking(record)
            else:
                journal.append_blocking(record)
                JournalReader(tmp_path, "server-a", cipher(tmp_path)).trim(2)
        used = size(journal)


def test_a_probe_asks_for_the_room_of_a_small_record(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        journal.append_blocking(event(0, 9_000))
    used = size(journal)
    for spare, want in (
        (4096, ""),
        (4095, f"the journal is full: {used + 4095} bytes are allowed and wait to be shipped"),
    ):
        with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", used + spare) as journal:
            assert journal.obstacle().startswith(want)
            assert bool(journal.obstacle()) == bool(want)


@pytest.mark.parametrize(("record", "left"), [(20_000, 20_000), (1 << 20, 40_000)])
def test_after_a_refusal_a_probe_asks_for_that_record_s_room(tmp_path: Path, record: int, left: int) -> None:
    """At most for an eighth of the spool: one oversized record must not keep a pod unready for ever."""
    now, most = [0.0], 320_000
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", most, clock=lambda: now[0]) as journal:
        while most - size(journal) > left:
            journal.append_blocking(event(0, min(9_000, most - size(journal) - left)))
        assert journal.obstacle() == ""
        with pytest.raises(JournalFull):
            journal.append_blocking(event(1, record))
        now[0] += PROBE_SECONDS
        assert journal.obstacle().startswith(
            "the journal is full: 320000 bytes are allowed and wait to be shipped; look"
        )
        JournalReader(tmp_path, "server-a", cipher(tmp_path)).trim(1 << 30)
        now[0] += PROBE_SECONDS
        assert journal.obstacle() == ""


def test_a_probe_fsyncs_while_records_fail_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, now, asked = FailingDisk(monkeypatch), [0.0], []
    real = writer_module.write_probe

    def probe(path: Path, size: int, *, durable: bool) -> None:
        asked.append((size, durable))
        real(path, size, durable=durable)

    monkeypatch.setattr(writer_module, "write_probe", probe)
    with Journal(tmp_path, "server-a", cipher(tmp_path), clock=lambda: now[0]) as journal:

        def look() -> str:
            now[0] += PROBE_SECONDS
            return journal.obstacle()

        assert look() == ""
        disk.syncs_fail = True
        with pytest.raises(JournalError, match=r"can't be written \(Input/output error\)"):
            journal.append_blocking(event(0))
        assert "Input/output error" in look()
        assert "Input/output error" in look()
        disk.syncs_fail = False
        assert look() == ""
        assert look() == ""
        assert journal.stats.failed == 1
    assert asked == [(4096, False), (4096, True), (4096, True), (4096, True), (4096, False)]
    assert journal.obstacle() == "the journal is closed"


# Callers


def test_a_blocking_caller_is_told_what_is_wrong_with_its_record(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        with pytest.raises(RecordRefused, match="the record can't be encoded"):
            journal.append_blocking(BAD)
        stats = journal.stats
        assert (stats.refused_invalid, stats.refused_full, stats.failed, stats.records) == (1, 0, 0, 0)
    with pytest.raises(JournalClosed, match="journal stream server-a is closed"):
        journal.append_blocking(event(0))


def test_a_keyset_that_seals_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = cipher(tmp_path)
    with Journal(tmp_path, "server-a", keys, "PageCache") as journal:

        def lost(_: bytes) -> Any:
            raise CryptoError("the keyset is gone")

        with monkeypatch.context() as broken:
            broken.setattr(type(keys), "new", lambda _, aad: lost(aad))
            with pytest.raises(JournalError, match=r"^journal stream server-a: the keyset is gone$"):
                journal.append_blocking(event(0))
        assert journal.stats.failed == 1
        assert journal.append_blocking(event(1)).seq == 0


async def test_more_records_than_a_group_holds_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_GROUP", 3)
    for durability, syncs in (("PageCache", 0), ("Fsync", 4)):
        with Journal(tmp_path, f"server-{durability}", cipher(tmp_path), durability) as journal:  # type: ignore[arg-type]
            waiting = [journal.submit(prediction(number)) for number in range(10)]
            acks = await asyncio.wait_for(asyncio.gather(*waiting), 60)
            assert [ack.seq for ack in acks] == list(range(10))
            assert journal.stats.syncs == syncs


def test_a_loop_that_ended_while_the_disk_worked_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is counted; what others submitted meanwhile is written."""
    working, release = threading.Event(), threading.Event()
    real = segment_module.os.fdatasync

    def slow(fd: int) -> None:
        working.set()
        assert release.wait(60)
        real(fd)

    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        monkeypatch.setattr(segment_module.os, "fdatasync", slow)
        other: list[Ack] = []

        async def submit() -> None:
            journal.submit(event(0))
            await asyncio.sleep(0)
            await asyncio.to_thread(working.wait, 60)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(submit())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        beside = threading.Thread(target=lambda: other.append(journal.append_blocking(event(1), timeout=60)))
        beside.start()
        release.set()
        beside.join(60)
        assert [ack.seq for ack in other] == [1]
        assert asyncio.run(asyncio.wait_for(journal.append(event(2)), 60)).seq == 2
        assert journal.stats.records == 3


def test_answers_reach_every_loop_that_is_still_there() -> None:
    """Whatever became of the loops of others whose records were in the same group."""
    gone, here = asyncio.new_event_loop(), asyncio.new_event_loop()
    lost, kept = gone.create_future(), here.create_future()
    gone.close()
    ack = Ack("server-a", 3)
    writer_module._answer(
        [(writer_module._Item(event(0), loop, future), ack) for loop, future in ((gone, lost), (here, kept))]
    )
    assert here.run_until_complete(asyncio.wait_for(kept, 60)) == ack
    here.close()


def test_a_file_trimmed_while_the_spool_is_measured_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, length in (("0.seg", 10), ("1.seg", 20), ("0.damaged-7", 400), ("2.seg", 3)):
        (tmp_path / name).write_bytes(bytes(length))
    real = writer_module.os.scandir

    class Trimming:
        """Lists the folder, then takes the first segment away."""

        def __enter__(self) -> Any:
            with real(tmp_path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            (tmp_path / "0.seg").unlink()
            return found

        def __exit__(self, *_: object) -> None: ...

    assert writer_module._size_of(tmp_path) == 33
    monkeypatch.setattr(writer_module.os, "scandir", lambda _: Trimming())
    assert writer_module._size_of(tmp_path) == 23

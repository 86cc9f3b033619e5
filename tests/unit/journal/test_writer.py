"""Appending: what was acknowledged can be read, whatever waits goes out together, and what can't be kept is refused."""

import asyncio
import errno
import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from governed_serving.journal import (
    PROBE_SECONDS,
    Ack,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReader,
    JournalStalled,
    RecordRefused,
    numbers,
    strings,
)
from governed_serving.journal import segment as segment_module
from governed_serving.journal import writer as writer_module
from governed_serving.journal.writer import Durability
from governed_serving.records import PredictionFrame
from support.predictions import Field, Prediction, PredictionSchema, framed
from support.waiting import eventually

from .samples import SCHEMA, asked, cipher, event, prediction

BOTH: list[Durability] = ["Fsync", "PageCache"]


@pytest.mark.parametrize("durability", BOTH)
async def test_records_that_wait_together_cost_one_sync(tmp_path: Path, durability: Durability):
    with Journal(tmp_path, "server-a", cipher(tmp_path), durability) as journal:
        acks = await asyncio.gather(*[journal.append(prediction(n, rows=1 + n % 3)) for n in range(16)])
        stats = journal.stats
    assert [(a.stream, a.seq) for a in acks] == [("server-a", n) for n in range(16)]
    assert (stats.records, stats.frames, stats.syncs) == (16, 16, int(durability == "Fsync"))
    found = list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())
    assert [seq for seq, _ in found] == list(range(16))
    assert [frame for _, frame in found] == [prediction(n, rows=1 + n % 3) for n in range(16)]


async def test_a_batch_is_one_frame_of_columns(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        await journal.append(framed(*(asked(n, rows=1 + n % 3) for n in range(16))))
    ((_, frame),) = JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()
    assert isinstance(frame, PredictionFrame)
    assert frame.ids == [f"request-{n}" for n in range(16)]
    rows = np.frombuffer(frame.rows, "<i4")
    assert rows.tolist() == [1 + n % 3 for n in range(16)]
    assert np.frombuffer(frame.times, "<f8").tolist() == [1000.0 + n for n in range(16)]
    who = np.repeat(np.arange(16), rows)
    assert numbers(frame.features["income"]).tolist() == (who + 0.5).tolist()
    assert numbers(frame.features["years"]).tolist() == who.tolist()
    assert strings(frame.features["city"]).tolist() == [f"city {n % 3}" for n in who]
    assert len(frame.features["city"].values) == 3
    assert numbers(frame.outputs["probabilities"]).shape == (rows.sum(), 2)
    assert numbers(frame.outputs["label"]).tolist() == (who % 2).tolist()


@pytest.mark.parametrize("durability", BOTH)
async def test_while_the_disk_works_the_next_group_gathers(tmp_path: Path, durability: Durability):
    with Journal(tmp_path, "server-a", cipher(tmp_path), durability) as journal:

        async def client(first: int) -> list[Ack]:
            return [await journal.append(prediction(n)) for n in range(first, first + 20)]

        acks = [a for group in await asyncio.gather(*[client(100 * k) for k in range(8)]) for a in group]
        assert journal.stats.syncs <= 25
    assert len({a.seq for a in acks}) == 160
    frames = dict(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())
    wanted = [f"request-{100 * k + n}" for k in range(8) for n in range(20)]
    assert [frames[a.seq].ids for a in acks] == [[name] for name in wanted]  # type: ignore[union-attr]


async def test_records_of_all_kinds_keep_their_order(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        records = [prediction(0), prediction(1), event(2), prediction(3)]
        acks = await asyncio.gather(*[journal.append(r) for r in records])
    assert [a.seq for a in acks] == [0, 1, 2, 3]
    kinds = [type(r).__name__ for _, r in JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()]
    assert kinds == ["PredictionFrame", "PredictionFrame", "EventRecord", "PredictionFrame"]


@pytest.mark.parametrize("durability", BOTH)
async def test_threads_may_append_beside_the_loop(tmp_path: Path, durability: Durability):
    with Journal(tmp_path, "server-a", cipher(tmp_path), durability) as journal:
        acks: list[Ack] = []

        def work(first: int) -> None:
            acks.extend(journal.append_blocking(prediction(n), timeout=30) for n in range(first, first + 30))

        threads = [threading.Thread(target=work, args=(1000 * k,)) for k in (1, 2)]
        for thread in threads:
            thread.start()
        mine = [await journal.append(prediction(n)) for n in range(50)]
        await asyncio.to_thread(lambda: [t.join() for t in threads])
    assert len({a.seq for a in acks + mine}) == 110
    ids = [i for _, f in JournalReader(tmp_path, "server-a", cipher(tmp_path)).read() for i in f.ids]  # type: ignore[union-attr]
    assert sorted(ids) == sorted(f"request-{n}" for n in [*range(50), *range(1000, 1030), *range(2000, 2030)])


async def test_numpy_and_lists_may_meet_in_a_group(tmp_path: Path):
    arrays = Prediction(
        SCHEMA,
        "arrays",
        1.0,
        2,
        (np.array([[1.5], [2.5]], "<f4"), np.array([7, 8]), np.array(["x", "y"], object), ["p", b"q"]),
        (np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([[1], [0]])),
    )
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        await journal.append(framed(asked(0), arrays))
    ((_, frame),) = JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()
    assert isinstance(frame, PredictionFrame)
    assert numbers(frame.features["income"]).tolist() == [0.5, 1.5, 2.5]
    assert strings(frame.features["note"]).tolist() == ["secret note 0", "p", "q"]
    assert numbers(frame.outputs["probabilities"]).shape == (3, 2)


async def test_a_missing_number_is_nan(tmp_path: Path):
    schema = PredictionSchema("m", "r", "a", (Field("x", "FP32"),), ())
    with Journal(tmp_path, "s", cipher(tmp_path), "PageCache") as journal:
        await journal.append(framed(Prediction(schema, "a", 0.0, 2, ([None, 1.0],), ())))
    ((_, frame),) = JournalReader(tmp_path, "s", cipher(tmp_path)).read()
    assert isinstance(frame, PredictionFrame)
    assert np.isnan(numbers(frame.features["x"])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (([1.5], [1], ["c"], [3]), "column 'note': expected a string, found int"),
        (([1.5], ["many"], ["c"], ["n"]), "column 'years': expected values of INT64"),
        (([1.5, 2.5], [1], ["c"], ["n"]), "column 'income': expected 4 bytes for 1 rows"),
        (([1.5], [1], ["c", "d"], ["n"]), "column 'city': expected 1 strings, found 2"),
        (([1.5], [1], ["c"]), "expected 4 columns"),
    ],
)
def test_what_fits_no_column_is_refused_by_name(features: tuple[list[object], ...], says: str):
    with pytest.raises(RecordRefused, match=says):
        framed(Prediction(SCHEMA, "bad", 0.0, 1, features, ([0.1, 0.9], [1])))


async def test_a_bad_record_fails_alone(tmp_path: Path):
    bad = msgspec.structs.replace(event(1), summary={"what": object()})
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        answers = await asyncio.gather(
            *[journal.append(r) for r in (prediction(0), bad, prediction(2))], return_exceptions=True
        )
        assert journal.stats.refused_invalid == 1
        assert journal.obstacle() == ""
    assert isinstance(answers[0], Ack)
    assert isinstance(answers[2], Ack)
    assert isinstance(answers[1], RecordRefused)
    assert "the record can't be encoded" in str(answers[1])


def files_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}


async def test_nothing_of_a_record_is_on_disk_in_plaintext(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        await journal.append(prediction(7))
    files = files_below(tmp_path)
    assert any(name.endswith(".seg") for name in files)
    for content, mode in files.values():
        assert b"secret note" not in content
        assert b"request-7" not in content
        assert mode & 0o077 == 0


async def test_one_stream_has_one_writer(tmp_path: Path):
    with (
        Journal(tmp_path, "server-a", cipher(tmp_path)),
        pytest.raises(JournalLocked, match="written by another process"),
    ):
        Journal(tmp_path, "server-a", cipher(tmp_path))
    Journal(tmp_path, "server-a", cipher(tmp_path)).close()


async def test_a_closed_journal_says_so(tmp_path: Path):
    journal = Journal(tmp_path, "server-a", cipher(tmp_path))
    await journal.append(prediction(0))
    journal.close()
    journal.close()
    assert journal.obstacle()
    with pytest.raises(JournalClosed):
        await journal.append(prediction(1))


@pytest.mark.parametrize("durability", BOTH)
async def test_closing_writes_what_waits(tmp_path: Path, durability: Durability):
    journal = Journal(tmp_path, "server-a", cipher(tmp_path), durability)
    waiting = [journal.submit(prediction(n)) for n in range(5)]
    await asyncio.sleep(0)
    waiting += [journal.submit(prediction(n)) for n in range(5, 10)]
    journal.close()
    assert len({a.seq for a in await asyncio.wait_for(asyncio.gather(*waiting), 60)}) == 10


async def test_the_queue_is_bounded_and_refusals_are_counted(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path), max_waiting=3) as journal:
        waiting = [journal.submit(prediction(n)) for n in range(3)]
        with pytest.raises(JournalBusy, match="3 records wait"):
            journal.submit(prediction(3))
        assert journal.stats.refused_busy == 1
        assert len(await asyncio.gather(*waiting)) == 3


async def test_the_spool_limit_refuses_and_trimming_makes_room(tmp_path: Path):
    clock = itertools.count(step=PROBE_SECONDS)
    with Journal(
        tmp_path, "server-a", cipher(tmp_path), "PageCache", 300_000, segment_bytes=50_000, clock=lambda: next(clock)
    ) as journal:
        kept = [event(n, 10_000) for n in range(29)]
        for record in kept:
            await journal.append(record)
        with pytest.raises(JournalFull, match=r"of 300000 bytes are used and not shipped yet;.*spoolSize"):
            await journal.append(event(29, 10_000))
        assert journal.obstacle()
        assert journal.stats.refused_full == 1
        assert journal.stats.spool_bytes <= 300_000
        reader = JournalReader(tmp_path, "server-a", cipher(tmp_path))
        assert [r for _, r in reader.read()] == kept
        assert reader.trim(len(kept)) > 200_000
        await journal.append(event(99, 10_000))
        assert journal.obstacle() == ""


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    spool = tmp_path / "spool"
    spool.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(spool)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a file system isn't allowed here; test_half_a_frame_is_taken_back covers the same path")
    yield spool
    subprocess.run(["umount", str(spool)], check=True)


@pytest.mark.parametrize("durability", BOTH)
async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, tiny_disk: Path, durability: Durability):
    with Journal(tiny_disk, "server-a", cipher(tmp_path), durability, segment_bytes=40_000) as journal:
        records = [event(number, 9_000) for number in range(40)]
        answers = [(await asyncio.gather(journal.append(r), return_exceptions=True))[0] for r in records]
        kept = [r for r, a in zip(records, answers, strict=True) if isinstance(a, Ack)]
        refused = [a for a in answers if not isinstance(a, Ack)]
        assert all(isinstance(a, JournalFull) and "No space left" in str(a) for a in refused)
        assert 15 < len(kept) < 30
        assert journal.stats.refused_full == len(refused)
        reader = JournalReader(tiny_disk, "server-a", cipher(tmp_path))
        assert [r for _, r in reader.read()] == kept
        reader.trim(len(kept))
        small = [event(n, 10) for n in range(100, 103)]
        for record in small:
            await journal.append(record)
        left = [r for _, r in JournalReader(tiny_disk, "server-a", cipher(tmp_path)).read()]
        assert left == (kept + small)[-len(left) :]
    with Journal(tiny_disk, "server-a", cipher(tmp_path), durability) as journal:
        assert journal.stats.torn_bytes == 0


class FailingDisk:
    """Makes the journal's writes and fsyncs fail when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.writes_fail = self.syncs_fail = self.cuts_fail = False
        self._real = (os.pwritev, os.fdatasync, os.ftruncate)
        monkeypatch.setattr(segment_module.os, "pwritev", self.pwritev)
        monkeypatch.setattr(segment_module.os, "fdatasync", self.fdatasync)
        monkeypatch.setattr(segment_module.os, "ftruncate", self.ftruncate)

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        if self.writes_fail:
            self._real[0](fd, [b"".join(parts)[:25]], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real[0](fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        if self.syncs_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real[1](fd)

    def ftruncate(self, fd: int, size: int) -> None:
        if self.cuts_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real[2](fd, size)


@pytest.mark.parametrize("cuts_fail", [False, True])
async def test_half_a_frame_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts_fail: bool):
    disk = FailingDisk(monkeypatch)
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        await journal.append(event(0))
        disk.writes_fail, disk.cuts_fail = True, cuts_fail
        with pytest.raises(JournalFull, match="No space left on device; free space"):
            await journal.append(event(1))
        assert journal.obstacle()
        disk.writes_fail = disk.cuts_fail = False
        await journal.append(event(2))
    reader = JournalReader(tmp_path, "server-a", cipher(tmp_path))
    assert [(s, r.id) for s, r in reader.read()] == [(0, "event-0"), (1, "event-2")]  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["writes_fail", "syncs_fail"])
async def test_readiness_asks_the_disk_not_the_last_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    """Whoever isn't ready gets no requests: waiting for one that succeeds would never end."""
    disk, now = FailingDisk(monkeypatch), [0.0]
    with Journal(tmp_path, "server-a", cipher(tmp_path), clock=lambda: now[0]) as journal:
        assert journal.obstacle() == ""
        setattr(disk, fault, True)
        with pytest.raises(JournalError):
            await journal.append(event(1))
        now[0] += PROBE_SECONDS
        assert "can't be written" in journal.obstacle()
        setattr(disk, fault, False)
        assert "can't be written" in journal.obstacle(), "asked anew every two seconds at most"
        now[0] += PROBE_SECONDS
        assert journal.obstacle() == ""
        assert not list(journal.folder.glob("*probe*"))


async def test_a_full_disk_is_noticed_before_a_request_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = FailingDisk(monkeypatch)
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        disk.writes_fail = True
        assert "No space left on device" in journal.obstacle()


async def test_a_failed_fsync_acknowledges_nothing_and_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = FailingDisk(monkeypatch)
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        await journal.append(event(0))
        disk.syncs_fail = True
        with pytest.raises(Exception, match="Input/output error"):
            await journal.append(event(1))
        disk.syncs_fail = False
        await journal.append(event(2))
        assert len(list((tmp_path / "journal" / "server-a").glob("*.seg"))) == 2
    ids = [r.id for _, r in JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()]  # type: ignore[union-attr]
    assert ids[0] == "event-0"
    assert ids[-1] == "event-2"


async def test_a_cancelled_caller_disturbs_nobody(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        gone, there = journal.submit(prediction(0)), journal.submit(prediction(1))
        gone.cancel()
        assert (await there).seq == 1


class HangingDisk:
    """fsync returns once it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        really = segment_module.SegmentFile.sync

        def sync(segment: segment_module.SegmentFile) -> None:
            self.asked.set()
            assert self.go.wait(60)
            really(segment)

        monkeypatch.setattr(segment_module.SegmentFile, "sync", sync)


async def test_a_volume_that_hangs_holds_no_caller_and_is_used_again_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Journal(tmp_path, "server-a", cipher(tmp_path), patience=0.2, max_waiting=50) as journal:
        await journal.append(prediction(0))
        disk = HangingDisk(monkeypatch)
        written = asyncio.ensure_future(journal.append(prediction(1)))
        await asyncio.to_thread(disk.asked.wait, 60)
        behind = [asyncio.ensure_future(journal.append(prediction(n))) for n in range(2, 30)]
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(written, *behind, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {JournalStalled}
        with pytest.raises(JournalStalled, match="has not answered"):
            await asyncio.wait_for(journal.append(prediction(30)), 0.1)  # told at once
        assert "doesn't answer" in journal.obstacle()
        assert (journal.stats.waiting, journal.stats.refused_stalled) == (0, 30)
        disk.go.set()
        await asyncio.to_thread(eventually, journal.obstacle, lambda why: why == "", every=0.01)
        assert (await journal.append(prediction(31))).seq == 2
    # what was with the disk is there, what was behind it isn't: nobody was answered for either
    frames = dict(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())
    assert [frame.ids for frame in frames.values() if isinstance(frame, PredictionFrame)] == [
        [f"request-{n}"] for n in (0, 1, 31)
    ]


async def test_a_slow_volume_is_waited_for_as_long_as_each_group_is_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Journal(tmp_path, "server-a", cipher(tmp_path), patience=20.0) as journal:
        disk = HangingDisk(monkeypatch)
        for n in range(3):
            disk.go.clear()
            disk.asked.clear()
            ack = asyncio.ensure_future(journal.append(prediction(n)))
            await asyncio.to_thread(disk.asked.wait, 60)
            disk.go.set()
            assert (await ack).seq == n
        assert journal.stats.refused_stalled == 0


def test_a_probe_of_a_volume_that_hangs_comes_back_and_leaves_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = threading.Event()
    monkeypatch.setattr(writer_module, "write_probe", lambda *_, **__: go.wait(60))
    monkeypatch.setattr(writer_module, "_LOOK_SECONDS", 0.05)
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        assert ["doesn't answer" in journal.obstacle() for _ in range(5)] == [True] * 5
        assert sum(thread.name == "probe-server-a" for thread in threading.enumerate()) == 1
        go.set()
        for thread in threading.enumerate():
            if thread.name == "probe-server-a":
                thread.join(60)
        assert journal.obstacle() == ""

"""The writing end of a stream: group commit.

Whatever waits goes out together, with one fsync. So the cost per request falls as load
rises, and a caller that was answered knows that its record is on disk. The event loop encodes and writes at the end of
its round (a few microseconds per record: a thread's hop costs more); only fsync, which takes milliseconds, is left to a
thread, and while it runs the next group gathers.

A volume that hangs (a network disk, a controller that resets) neither takes a record nor fails: whoever waits is told
so after ``STALL_SECONDS``, and who comes then at once, until it answers again.
"""

import asyncio
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple

import msgspec

from governed_serving.containment import contained
from governed_serving.crypto import CryptoError, SegmentCipher
from governed_serving.journal.acknowledged import MarkFile
from governed_serving.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalStalled,
    RecordRefused,
)
from governed_serving.journal.format import FRAME_LIMIT
from governed_serving.journal.segment import SegmentFile, Written, recover, write_probe
from governed_serving.records import EventRecord, ExplanationRecord, PredictionFrame, SubjectFrame, encode_frame

__all__ = ["PROBE_SECONDS", "STALL_SECONDS", "Ack", "Durability", "Journal", "JournalStats", "Record"]

Durability = Literal["Fsync", "PageCache"]
Record = PredictionFrame | SubjectFrame | ExplanationRecord | EventRecord

PROBE_SECONDS = 2.0
STALL_SECONDS = 10.0
"""A caller is held for an fsync no longer than this: disks that work take milliseconds, seconds at worst. Below the
time that a pod is given to drain."""
_LOOK_SECONDS = 2.0
"""A readiness probe waits for the volume no longer than this."""
_PROBE_BYTES = 4096
_GROUP = 16_384
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Where a record is: frame ``seq`` of ``stream``, and the frame's bytes as they lie there, in two parts."""

    stream: str
    seq: int
    head: bytes = b""
    ciphertext: bytes = b""

    def digest(self) -> str:
        """SHA-256 (hex) of the frame, which is ciphertext: what a chunk that is shipped has of it."""
        whole = sha256(self.head)
        whole.update(self.ciphertext)
        return whole.hexdigest()


class JournalStats(msgspec.Struct):
    """Counters since the journal was opened (``waiting``, ``spool_bytes``: now). Everything that was refused is
    counted."""

    records: int = 0
    frames: int = 0
    written_bytes: int = 0
    syncs: int = 0
    refused_full: int = 0
    refused_busy: int = 0
    refused_invalid: int = 0
    refused_stalled: int = 0
    """Callers that were told that the volume doesn't answer; the record of some may be there all the same."""
    failed: int = 0
    torn_bytes: int = 0
    unreadable: int = 0
    """Acknowledged frames at the stream's end that couldn't be read when it was opened."""
    unmarked: int = 0
    """Acknowledgements that couldn't be written down (:mod:`~governed_serving.journal.acknowledged`)."""
    waiting: int = 0
    spool_bytes: int = 0


class _Item(NamedTuple):
    record: Record
    loop: asyncio.AbstractEventLoop | None
    future: Any


Outcome = Ack | JournalError


class _Job(NamedTuple):
    """Work for the thread: write ``items``, then fsync ``segment`` and answer ``outcomes``."""

    loop: asyncio.AbstractEventLoop
    items: list[_Item]
    outcomes: list[tuple[_Item, Outcome]]
    segment: SegmentFile | None


class Journal:
    """Appends to ``{spool}/journal/{stream}``.

    ``max_bytes``: most bytes of this stream on disk, shipped segments that were trimmed not counted; ``max_waiting``:
    most records between :meth:`append` and the disk. Opening checks the last segment and trims a torn tail
    (``stats.torn_bytes``); behind acknowledged frames that can't be read (``stats.unreadable``, ``damage``) it goes on
    in a new segment. ``patience``: seconds that a caller is held by a volume that hangs. ``clock``: seconds that pass.
    Raises JournalLocked, CryptoError, OSError.
    """

    def __init__(
        self,
        spool: Path | str,
        stream: str,
        cipher: SegmentCipher,
        durability: Durability = "Fsync",
        max_bytes: int = 1 << 30,
        *,
        max_waiting: int = 20_000,
        segment_bytes: int | None = None,
        patience: float = STALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder = Path(spool) / "journal" / stream
        self.stream = stream
        self._cipher = cipher
        self._fsync = durability == "Fsync"
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._segment_bytes = segment_bytes or min(16 << 20, max(64 << 10, max_bytes // 8))
        self._stats = JournalStats()
        self._segment: SegmentFile | None = None
        self._rolls = False
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._closed = False
        self._failing = False
        self._patience = patience
        self._job: _Job | None = None
        self._since = 0.0
        self._overdue = False
        self._stalled = ""
        self._probing: threading.Thread | None = None
        self._looking = threading.Lock()
        self._look_until = 0.0
        self._probe_at = float("-inf")
        self._found = ""
        self._wanted = 0
        self._clock = clock
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_lock()
        try:
            self._chain, self._stats.torn_bytes = recover(self.folder, stream, cipher)
            self._mark = MarkFile(self.folder)
        except BaseException:
            os.close(self._lock)
            raise
        self._stats.unreadable = self._chain.unreadable
        self._identity = self._chain.identity
        self._spool_bytes = _size_of(self.folder)
        self._writing = threading.Lock()
        self._scheduled = self._syncing = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"journal-{stream}", daemon=True)
        self._thread.start()
        if self._chain.unreadable:
            self._say_unreadable()

    @property
    def damage(self) -> str:
        """What was found unreadable at the stream's end, for the log; "" for nothing."""
        what = "acknowledged frames at its end can't be read; what is left of them is kept, and goes to the ledger"
        return f"journal stream {self.stream}: {what}" if self._stats.unreadable else ""

    async def append(self, record: Record) -> Ack:
        """Returns once the record is written (and fsynced). Raises JournalFull, JournalBusy, JournalStalled,
        RecordRefused, JournalClosed.

        A cancelled caller's record may be written all the same.
        """
        return await self.submit(record)

    def submit(self, record: Record) -> "asyncio.Future[Ack]":
        """:meth:`append` without a coroutine, for hot paths: the future of the acknowledgement."""
        self._admit()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ack] = loop.create_future()
        self._queue.put(_Item(record, loop, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._round, loop)
        return future

    def append_blocking(self, record: Record, timeout: float | None = None) -> Ack:
        """:meth:`append` for threads without an event loop."""
        self._admit()
        future: Future[Ack] = Future()
        self._queue.put(_Item(record, None, future))
        self._commit_here()
        return future.result(timeout)

    def roll(self) -> None:
        """The next record begins a segment, under the keyset's primary key as it is then."""
        self._rolls = True

    @property
    def stats(self) -> JournalStats:
        """A copy of the counters."""
        return msgspec.structs.replace(self._stats, waiting=self._queue.qsize(), spool_bytes=self._spool_bytes)

    def obstacle(self) -> str:
        """Why the next record couldn't be written, for a readiness probe; "" when it could.

        Whoever isn't ready gets no requests, so the last record says nothing of now: a few bytes are written beside the
        segments (and fsynced, where a record failed), every ``PROBE_SECONDS`` at most; others get the last answer.
        Thread-safe, blocks as long as that write, two seconds at most.
        """
        with self._looking:
            if not (self._closed or self._stalled) and self._probing is None and self._clock() >= self._probe_at:
                self._probing = threading.Thread(target=self._look, name=f"probe-{self.stream}", daemon=True)
                self._look_until = time.monotonic() + _LOOK_SECONDS
                self._probing.start()
            if (probing := self._probing) is not None:
                probing.join(max(0.0, self._look_until - time.monotonic()))
            if self._closed:
                return "the journal is closed"
            if self._stalled or (probing is not None and probing.is_alive()):
                return "the journal's volume doesn't answer; look at the spool volume and its node"
            return self._found

    def _look(self) -> None:
        try:
            self._found = contained(self._probe)
        except Exception as error:  # whatever it is: the next look must be done
            self._found = f"the journal can't be looked at ({type(error).__name__}: {error})"
        finally:
            self._probe_at = self._clock() + PROBE_SECONDS
            self._probing = None

    def _probe(self) -> str:
        most = self._max_bytes - max(_PROBE_BYTES, self._wanted)
        if self._spool_bytes > most and _size_of(self.folder) > most:
            return (
                f"the journal is full: {self._max_bytes} bytes are allowed and wait to be shipped; look whether the "
                "archive is reachable, or raise governance.audit.spoolSize"
            )
        try:
            write_probe(self.folder / ".probe", _PROBE_BYTES, durable=self._failing)
        except OSError as error:
            return f"the journal can't be written ({error.strerror}); free space on the spool volume"
        self._failing, self._wanted = False, 0
        return ""

    def close(self) -> None:
        """Write what waits, fsync. Further appends raise JournalClosed. Raises OSError when the fsync fails."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._commit_here()
        if self._segment is not None:
            self._segment.sync()
        self._leave_segment()
        self._mark.close()
        os.close(self._lock)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _admit(self) -> None:
        if self._closed:
            raise JournalClosed(f"journal stream {self.stream} is closed")
        if self._stalled:
            self._stats.refused_stalled += 1
            raise JournalStalled(self._stalled)
        if self._queue.qsize() >= self._max_waiting:
            self._stats.refused_busy += 1
            raise JournalBusy(
                f"journal stream {self.stream}: {self._max_waiting} records wait for the disk already; try again later"
            )

    def _take_lock(self) -> int:
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise JournalLocked(
                f"journal stream {self.stream} is being written by another process; stop it, or choose another pod name"
            ) from None
        return handle

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: write what waits. While an fsync runs nothing is written: the end of it comes here
        again."""
        self._scheduled = False
        if self._syncing or self._queue.empty():
            return
        if not self._writing.acquire(blocking=False):  # a blocking caller is at the disk: the loop must not wait for it
            self._hand_over(_Job(loop, self._drain(), [], None))
            return
        try:
            outcomes = self._write_all(self._drain())
            segment = self._segment
        finally:
            self._writing.release()
        if self._fsync:
            self._hand_over(_Job(loop, [], outcomes, segment))
        else:
            self._finish(outcomes)
            if not self._queue.empty():
                self._round(loop)

    def _hand_over(self, job: _Job) -> None:
        """To the thread. One timer at a time looks whether it comes back: each group's own would cost more than the
        group."""
        self._syncing, self._job, self._since = True, job, job.loop.time()
        if not self._overdue:
            self._overdue = True
            job.loop.call_later(self._patience, self._look_for, job.loop)
        self._jobs.put(job)

    def _look_for(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: has the thread what it was given for too long?"""
        self._overdue = False
        if self._job is None or self._stalled:
            return
        left = self._since + self._patience - loop.time()
        if left > 0:
            self._overdue = True
            loop.call_later(left, self._look_for, loop)
        else:
            self._give_up(self._job)

    def _give_up(self, job: _Job) -> None:
        """Tell all that wait; what is in the thread's hands may still be kept, what is behind it won't be. Callers
        without an event loop have a time of their own."""
        self._stalled = (
            f"journal stream {self.stream}: its volume has not answered for {self._patience:.0f} s; look at the spool "
            "volume and its node"
        )
        stalled = JournalStalled(self._stalled)
        held = [item for item, _ in job.outcomes] + job.items
        behind: list[_Item] = []
        while group := self._drain():
            behind += group
        for item in behind:
            if item.loop is None:
                self._queue.put(item)
        told: list[tuple[_Item, Outcome]] = [(item, stalled) for item in held + behind if item.loop is not None]
        self._stats.refused_stalled += len(told)
        _answer(told)

    def _returned(self) -> None:
        self._job, self._stalled = None, ""

    def _run(self) -> None:
        """The thread: fsync, and tell the loop."""
        while (job := self._jobs.get()) is not None:
            with self._writing:
                outcomes = job.outcomes + self._write_all(job.items)
                outcomes = self._synced(outcomes, job.segment or self._segment)
            try:
                job.loop.call_soon_threadsafe(self._after_sync, outcomes, job.loop)
            except RuntimeError:  # the loop was closed meanwhile; others may wait all the same
                self._syncing = False
                self._returned()
                self._finish(outcomes)
                self._commit_here()

    def _after_sync(self, outcomes: list[tuple[_Item, Outcome]], loop: asyncio.AbstractEventLoop) -> None:
        self._syncing = False
        self._returned()
        self._finish(outcomes)
        self._round(loop)

    def _commit_here(self) -> None:
        """Commit what waits in the calling thread."""
        while not self._queue.empty():
            with self._writing:
                outcomes = self._synced(self._write_all(self._drain()), self._segment)
            self._finish(outcomes)

    def _drain(self) -> list[_Item]:
        """What waits, in order."""
        get = self._queue.get_nowait
        batch: list[_Item] = []
        try:
            while len(batch) < _GROUP:
                batch.append(get())
        except Empty:
            pass
        return batch

    def _write_all(self, items: list[_Item]) -> list[tuple[_Item, Outcome]]:
        return [(item, self._write_one(item.record)) for item in items]

    def _synced(
        self, outcomes: list[tuple[_Item, Outcome]], segment: SegmentFile | None
    ) -> list[tuple[_Item, Outcome]]:
        """Fsync what was written, if that is wanted; a failure takes all acknowledgements back."""
        if not self._fsync or segment is None:
            return outcomes
        try:
            contained(segment.sync)
            self._stats.syncs += 1
        except Exception as error:
            # After a failed fsync the kernel may have dropped the pages: go on in a new file, answer for none of these.
            if segment is self._segment:
                self._leave_segment()
            trouble = self._trouble(error) if isinstance(error, OSError) else self._leave_broken(error)
            return [(item, trouble if isinstance(outcome, Ack) else outcome) for item, outcome in outcomes]
        return outcomes

    def _finish(self, outcomes: list[tuple[_Item, Outcome]]) -> None:
        """Count and answer."""
        refused = [o for _, o in outcomes if not isinstance(o, Ack)]
        self._stats.records += len(outcomes) - len(refused)
        for outcome in refused:
            self._stats.refused_full += isinstance(outcome, JournalFull)
            self._stats.refused_invalid += isinstance(outcome, RecordRefused)
            self._stats.failed += not isinstance(outcome, (JournalFull, RecordRefused))
        if len(refused) < len(outcomes):
            self._note_kept(max(o.seq for _, o in outcomes if isinstance(o, Ack)))
        if outcomes:
            self._failing = len(refused) == len(outcomes) and not all(isinstance(o, RecordRefused) for o in refused)
        _answer(outcomes)

    def _note_kept(self, seq: int) -> None:
        try:
            self._mark.write(self._identity, seq + 1)
        except OSError:  # a reader will call a damaged end torn; no reason to refuse what is on the disk
            self._stats.unmarked += 1

    def _say_unreadable(self) -> None:
        """Begin the segment behind what can't be read, so that readers report it now and not with the next record."""
        try:
            self._segment = SegmentFile(self.folder, self.stream, self._chain, self._cipher, self._fsync)
            self._spool_bytes += self._segment.end
        except (OSError, CryptoError):  # the next record tries again, and says what is wrong
            return

    def _write_one(self, record: Record) -> Outcome:
        """Write a frame; what is wrong with one record keeps no other from being written."""
        try:
            plaintext = contained(encode_frame, record)
        except Exception as error:  # whatever a caller's record makes of the encoder
            return RecordRefused(f"the record can't be encoded: {error}")
        try:
            return Ack(self.stream, *contained(self._write, plaintext))
        except JournalError as error:
            return error
        except Exception as error:  # a bug, a cipher's library that panics: what is half written is left behind
            return self._leave_broken(error)

    def _write(self, plaintext: bytes) -> Written:
        """Append a frame, rolling to a new segment when due; raises JournalFull or JournalError."""
        self._make_room(len(plaintext))
        try:
            if self._segment is not None and (self._rolls or self._segment.end >= self._segment_bytes):
                self._leave_segment()
            self._rolls = False
            if self._segment is None:
                self._segment = SegmentFile(self.folder, self.stream, self._chain, self._cipher, self._fsync)
                self._spool_bytes += self._segment.end
            before = self._segment.end
            written = self._segment.append(plaintext)
        except OSError as error:
            raise self._trouble(error) from None
        except CryptoError as error:
            raise JournalError(f"journal stream {self.stream}: {error}") from None
        self._chain = self._segment.chain
        self._stats.frames += 1
        self._stats.written_bytes += self._segment.end - before
        self._spool_bytes += self._segment.end - before
        return written

    def _make_room(self, size: int) -> None:
        if size > FRAME_LIMIT:
            raise JournalFull(
                f"journal stream {self.stream}: a frame of {size} bytes is longer than the {FRAME_LIMIT} allowed; send fewer rows per request"  # noqa: E501
            )
        if self._spool_bytes + size > self._max_bytes:
            self._spool_bytes = _size_of(self.folder)  # the auditor may have trimmed meanwhile
        if self._spool_bytes + size > self._max_bytes:
            # One oversized record must not keep a pod unready for ever.
            self._wanted = min(size, self._max_bytes // 8)
            raise JournalFull(
                f"journal stream {self.stream}: {self._spool_bytes} of {self._max_bytes} bytes are used and not shipped yet; "  # noqa: E501
                "look whether the archive is reachable, or raise governance.audit.spoolSize"
            )

    def _trouble(self, error: OSError) -> JournalError:
        if self._segment is not None and self._segment.broken:
            self._leave_segment()
        if error.errno in _NO_ROOM:
            return JournalFull(f"journal volume of {self.folder}: {error.strerror}; free space or enlarge it")
        return JournalError(f"journal volume of {self.folder}: can't be written ({error.strerror})")

    def _leave_broken(self, error: Exception) -> JournalError:
        """Of what nobody expected, such as a cipher's library that panics."""
        if self._segment is not None and self._segment.broken:
            self._leave_segment()
        return JournalError(f"journal stream {self.stream}: can't be written ({type(error).__name__}: {error})")

    def _leave_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._chain = segment.chain
            segment.close(sync=self._fsync)


def _answer(outcomes: list[tuple[_Item, Outcome]]) -> None:
    """Tell the callers: one wake-up per event loop, however many wait there."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Any, Outcome]]] = {}
    for item, outcome in outcomes:
        if item.loop is not None:
            loops.setdefault(item.loop, []).append((item.future, outcome))
        elif isinstance(outcome, Ack):
            item.future.set_result(outcome)
        else:
            item.future.set_exception(outcome)
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:  # the committing thread has none
        here = None
    for loop, pairs in loops.items():
        if loop is here:
            _resolve(pairs)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, pairs)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            continue


def _resolve(pairs: list[tuple["asyncio.Future[Ack]", Outcome]]) -> None:
    for future, outcome in pairs:
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(outcome, Ack):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


def _size_of(folder: Path) -> int:
    """Bytes of a stream on disk; what was damaged is kept within bounds of its own."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if ".damaged-" in entry.name:
                continue
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # trimmed meanwhile
                continue
    return total

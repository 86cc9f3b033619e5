"""The writing end of a stream: group commit by one thread.

Whatever waits when the thread comes round goes out together: predictions as one columnar frame, one write, one fsync. So the cost
per request falls as load rises, and a caller that was answered knows that its record is on disk.
"""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple

import msgspec

from governed_serving.crypto import CryptoError, SegmentCipher
from governed_serving.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    RecordRefused,
)
from governed_serving.journal.format import FRAME_LIMIT
from governed_serving.journal.predictions import Prediction, merge
from governed_serving.journal.segment import SegmentFile, recover
from governed_serving.records import EventRecord, ExplanationRecord, PredictionFrame, encode_frame

__all__ = ["Ack", "Durability", "Journal", "JournalStats", "Record"]

Durability = Literal["Fsync", "PageCache"]
Record = Prediction | PredictionFrame | ExplanationRecord | EventRecord

_FRAME_REQUESTS = 4096
_FRAME_ROWS = 65_536
_GROUP = 16_384
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Where a record is: frame ``seq`` of ``stream``, request ``index`` in it."""

    stream: str
    seq: int
    index: int


class JournalStats(msgspec.Struct):
    """Counters since the journal was opened (``waiting``, ``spool_bytes``: now). Everything that was refused is counted."""

    records: int = 0
    frames: int = 0
    written_bytes: int = 0
    syncs: int = 0
    refused_full: int = 0
    refused_busy: int = 0
    refused_invalid: int = 0
    failed: int = 0
    torn_bytes: int = 0
    waiting: int = 0
    spool_bytes: int = 0


class _Item(NamedTuple):
    record: Record
    loop: asyncio.AbstractEventLoop | None
    future: Any


Outcome = Ack | JournalError


class Journal:
    """Appends to ``{spool}/journal/{stream}``.

    ``max_bytes``: most bytes of this stream on disk, shipped segments that were trimmed not counted; ``max_waiting``: most records
    between :meth:`append` and the disk. Opening checks the last segment and trims a torn tail (``stats.torn_bytes``).
    Raises JournalLocked, JournalDamaged, CryptoError, OSError.
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
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._closed = False
        self._failing = False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_lock()
        try:
            self._chain, self._stats.torn_bytes = recover(self.folder, stream, cipher)
        except BaseException:
            os.close(self._lock)
            raise
        self._spool_bytes = _size_of(self.folder)
        self._thread = threading.Thread(target=self._run, name=f"journal-{stream}", daemon=True)
        self._thread.start()

    async def append(self, record: Record) -> Ack:
        """Returns once the record is written (and fsynced). Raises JournalFull, JournalBusy, RecordRefused, JournalClosed.

        A cancelled caller's record may be written all the same.
        """
        return await self.submit(record)

    def submit(self, record: Record) -> "asyncio.Future[Ack]":
        """:meth:`append` without a coroutine, for hot paths: the future of the acknowledgement."""
        self._admit()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ack] = loop.create_future()
        self._queue.put(_Item(record, loop, future))
        return future

    def append_blocking(self, record: Record, timeout: float | None = None) -> Ack:
        """:meth:`append` for threads without an event loop."""
        self._admit()
        future: Future[Ack] = Future()
        self._queue.put(_Item(record, None, future))
        return future.result(timeout)

    @property
    def stats(self) -> JournalStats:
        """A copy of the counters."""
        return msgspec.structs.replace(self._stats, waiting=self._queue.qsize(), spool_bytes=self._spool_bytes)

    @property
    def writable(self) -> bool:
        """Whether the last record could be written: for a readiness probe."""
        return not self._closed and not self._failing

    def close(self) -> None:
        """Write what waits, fsync, end the thread. Further appends raise JournalClosed."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        os.close(self._lock)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _admit(self) -> None:
        if self._closed:
            raise JournalClosed(f"journal stream {self.stream} is closed")
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

    # ---- the thread ----

    def _run(self) -> None:
        going = True
        while going:
            batch = self._wait()
            if batch and batch[-1] is None:
                going = False
            items = [i for i in batch if i is not None]
            if items:
                self._commit(items)
        self._refuse_late()
        self._leave_segment()

    def _wait(self) -> list[_Item | None]:
        """What waits, in order; None at the end when the journal is to close."""
        get = self._queue.get_nowait
        batch = [self._queue.get()]
        try:
            while batch[-1] is not None and len(batch) < _GROUP:
                batch.append(get())
        except Empty:
            pass
        return batch

    def _refuse_late(self) -> None:
        """A record put between the check and the end of the thread: nobody must wait for ever."""
        late = [i for i in self._drain() if i is not None]
        _answer([(i, JournalClosed(f"journal stream {self.stream} is closed")) for i in late])

    def _drain(self) -> Iterator[_Item | None]:
        while not self._queue.empty():
            yield self._queue.get_nowait()

    def _commit(self, items: list[_Item]) -> None:
        outcomes: list[tuple[_Item, Outcome]] = []
        written: list[tuple[_Item, Outcome]] = []
        for group in _groups(items):
            for part, outcome in self._write_group(group):
                (written if isinstance(outcome, Ack) else outcomes).append((part, outcome))
        if written and self._fsync:
            error = self._sync()
            if error is not None:
                written = [(item, error) for item, _ in written]
        done = sum(isinstance(o, Ack) for _, o in written)
        self._stats.records += done
        self._stats.failed += len(items) - done
        self._failing = done == 0 and not all(isinstance(o, RecordRefused) for _, o in outcomes)
        _answer(outcomes + written)

    def _write_group(self, group: list[_Item]) -> list[tuple[_Item, Outcome]]:
        """Write one frame; when a record doesn't fit its schema, each one by itself, so that it fails alone."""
        try:
            plaintext = _encode([i.record for i in group])
        except Exception as error:  # whatever a caller's record makes of the encoder, the others' must be written
            if len(group) > 1:
                return [pair for item in group for pair in self._write_group([item])]
            self._stats.refused_invalid += 1
            refused = (
                error if isinstance(error, RecordRefused) else RecordRefused(f"the record can't be encoded: {error}")
            )
            return [(group[0], refused)]
        try:
            seq = self._write(plaintext)
        except JournalError as error:
            self._stats.refused_full += len(group)
            return [(item, error) for item in group]
        return [(item, Ack(self.stream, seq, index)) for index, item in enumerate(group)]

    def _write(self, plaintext: bytes) -> int:
        """Append a frame, rolling to a new segment when due; raises JournalFull or JournalError."""
        self._make_room(len(plaintext))
        try:
            if self._segment is not None and self._segment.end >= self._segment_bytes:
                self._leave_segment()
            if self._segment is None:
                self._segment = SegmentFile(self.folder, self.stream, self._chain, self._cipher)
                self._spool_bytes += self._segment.end
            before = self._segment.end
            seq = self._segment.append(plaintext)
        except OSError as error:
            raise self._trouble(error) from None
        except CryptoError as error:
            raise JournalError(f"journal stream {self.stream}: {error}") from None
        self._chain = self._segment.chain
        self._stats.frames += 1
        self._stats.written_bytes += self._segment.end - before
        self._spool_bytes += self._segment.end - before
        return seq

    def _make_room(self, size: int) -> None:
        if size > FRAME_LIMIT:
            raise JournalFull(
                f"journal stream {self.stream}: a frame of {size} bytes is longer than the {FRAME_LIMIT} allowed; send fewer rows per request"
            )
        if self._spool_bytes + size > self._max_bytes:
            self._spool_bytes = _size_of(self.folder)  # the auditor may have trimmed meanwhile
        if self._spool_bytes + size > self._max_bytes:
            raise JournalFull(
                f"journal stream {self.stream}: {self._spool_bytes} of {self._max_bytes} bytes are used and not shipped yet; "
                "look whether the archive is reachable, or raise governance.audit.spoolSize"
            )

    def _trouble(self, error: OSError) -> JournalError:
        if self._segment is not None and self._segment.broken:
            self._leave_segment()
        if error.errno in _NO_ROOM:
            return JournalFull(f"journal volume of {self.folder}: {error.strerror}; free space or enlarge it")
        return JournalError(f"journal volume of {self.folder}: can't be written ({error.strerror})")

    def _sync(self) -> JournalError | None:
        try:
            if self._segment is not None:
                self._segment.sync()
            self._stats.syncs += 1
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: go on in a new file, answer for none of these.
            self._leave_segment()
            self._stats.refused_full += 1
            return self._trouble(error)
        return None

    def _leave_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._chain = segment.chain
            try:
                segment.sync()
            except OSError:
                self._stats.failed += 1
            segment.close()


def _groups(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Runs of items that make one frame: predictions of one schema up to the limits, anything else alone."""
    group: list[_Item] = []
    schema: object = None
    rows = 0
    for item in items:
        record = item.record
        if isinstance(record, Prediction):
            if group and record.schema is schema and len(group) < _FRAME_REQUESTS and rows < _FRAME_ROWS:
                group.append(item)
                rows += record.rows
                continue
            if group:
                yield group
            group, schema, rows = [item], record.schema, record.rows
        else:
            if group:
                yield group
            yield [item]
            group = []
    if group:
        yield group


def _encode(records: list[Record]) -> bytes:
    first = records[0]
    if isinstance(first, Prediction):
        return encode_frame(merge(records))  # type: ignore[arg-type]  # _groups never mixes kinds
    return encode_frame(first)


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
    for loop, pairs in loops.items():
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
    """Bytes of a stream on disk."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # trimmed meanwhile
                continue
    return total

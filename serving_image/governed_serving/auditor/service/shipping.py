"""Every stream of the spool to the archive: sealed chunk as a blob, one ledger entry per record, then the journal may be trimmed.

Before a chunk leaves, what it is gets written down (first and last frame, its number in the ledger). After a kill at any point the
same chunk is made again and sent again; blobs are addressed by content and appends are numbered, so it arrives once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused
from governed_serving.auditor.service.entries import entries_of
from governed_serving.crypto import SegmentCipher
from governed_serving.journal import Chunk, Cursor, CursorFiles, JournalError, JournalReader, streams
from governed_serving.journal.chunk import pack_chunk
from governed_serving.records import Frame

__all__ = ["Lifetimes", "Progress", "Shipper"]

TELL_SECONDS = 3600.0
"""How often the archive is told again how long payloads are kept and keys last: another revision's pod may have said otherwise."""
CHUNK_BYTES = 2 << 20
_BATCH = 4096


class Progress(Cursor, frozen=True):
    """Of one stream: where it is shipped to, and the ledger number of the next entry.

    ``last``: a chunk up to this frame is on its way.
    """

    number: int = 0
    last: int | None = None


@dataclass(frozen=True)
class Lifetimes:
    """Seconds that payloads are kept and keys last; None: for ever."""

    payloads: int | None
    keys: int | None


class Shipper:
    """``on_shipped(record, index)`` is told where each event went in the ledger.

    ``lifetimes`` is told to the archive now and then; None leaves it to others to say so.
    """

    def __init__(
        self,
        spool: Path,
        client: ArchiveClient,
        cipher: SegmentCipher,
        namespace: str,
        on_shipped: Callable[[Frame, int], None] = lambda *_: None,
        *,
        lifetimes: Lifetimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._spool, self._client, self._cipher, self._namespace = spool, client, cipher, namespace
        self._on_shipped = on_shipped
        self._lifetimes, self._clock = lifetimes, clock
        self._tell_at = clock()
        self._readers: dict[str, JournalReader] = {}
        self._progress: dict[str, Progress] = {}
        self._files = CursorFiles(spool / "cursors", Progress, "shipped-")
        self.behind = False
        """The last step shipped a chunk behind which there was more."""
        self.entries = 0
        self.blobs = 0
        self.bytes = 0

    def step(self) -> int:
        """Ship at most one chunk of every stream; the number of entries. Raises ArchiveError, JournalError, CryptoError, OSError.

        A stream that is damaged, or whose entries the archive refuses, holds up no other one; it is told when all were tried.
        """
        if self._lifetimes is not None and self._clock() >= self._tell_at:
            self._client.say_times(payloads=self._lifetimes.payloads, keys=self._lifetimes.keys)
            self._tell_at = self._clock() + TELL_SECONDS
        self.behind = False
        count, trouble = 0, None
        for stream in streams(self._spool):
            try:
                count += self._ship(stream)
            except (Refused, JournalError) as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return count

    def next_frame(self, stream: str) -> int:
        """Everything before it is in the archive."""
        progress = self._progress.get(stream)
        return progress.frame if progress else 0

    def reader(self, stream: str) -> JournalReader:
        """The reader of a stream."""
        return self._readers.setdefault(stream, JournalReader(self._spool, stream, self._cipher))

    def _ship(self, stream: str) -> int:
        reader = self.reader(stream)
        progress = self._progress.get(stream) or self._load(stream, reader)
        if progress is None:
            return 0
        chunk = self._chunk(reader, progress)
        if chunk is None:
            return 0
        if progress.last is None:
            progress = msgspec.structs.replace(progress, last=chunk.last_seq)
            self._save(stream, progress)
        # it ended before the stream did: it was full, or its segment was
        self.behind |= len(chunk.data) >= CHUNK_BYTES // 2 or (reader.newest_segment or 0) > chunk.last_seq
        self._client.put_blob(chunk.data)
        sent = self._append(chunk, progress)
        behind = Cursor.behind(chunk)
        self._save(stream, Progress(behind.identity, behind.frame, behind.tag, progress.number + sent))
        self.blobs += 1
        self.bytes += len(chunk.data)
        self.entries += sent
        return sent

    def _chunk(self, reader: JournalReader, progress: Progress) -> Chunk | None:
        """The next chunk; after a restart in the middle of one, that very one again."""
        if progress.last is None:
            return reader.chunk(progress.frame, CHUNK_BYTES)
        frames = []
        for frame in reader.frames(progress.frame, progress.previous):
            frames.append(frame)
            if frame.seq == progress.last:
                break
        return pack_chunk(frames)

    def _append(self, chunk: Chunk, progress: Progress) -> int:
        """Entries in batches that the archive takes; returns how many."""
        number, batch, records = progress.number, list[bytes](), list[Frame]()
        for entry, record in entries_of(chunk, self._namespace):
            batch.append(entry)
            records.append(record)
            if len(batch) >= _BATCH:
                number += self._send(chunk.identity, number, batch, records)
                batch, records = [], []
        if batch:
            number += self._send(chunk.identity, number, batch, records)
        return number - progress.number

    def _send(self, identity: str, number: int, batch: list[bytes], records: list[Frame]) -> int:
        answer = self._client.append_batch(identity, number, batch)
        indices = (first + i for first, count in answer.ranges for i in range(count))
        for record, index in zip(records, indices, strict=False):
            self._on_shipped(record, index)
        return len(batch)

    def _load(self, stream: str, reader: JournalReader) -> Progress | None:
        identity = reader.identity
        if not identity:
            return None
        progress = self._files.load(stream, identity)
        if progress is None:  # a new stream, or a new one under an old name
            progress = Progress(identity, reader.first_seq or 0, number=self._client.next_seq(identity))
        self._progress[stream] = progress
        return progress

    def _save(self, stream: str, progress: Progress) -> None:
        self._files.save(stream, progress)
        self._progress[stream] = progress

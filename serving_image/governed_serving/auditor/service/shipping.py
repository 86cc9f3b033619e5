"""Every stream of the spool to the archive: sealed chunk as a blob, one ledger entry per record, then the journal may
be trimmed.

Before a chunk leaves, what it is gets written down (first and last frame, its number in the ledger). After a kill at
any point the same chunk is made again and sent again; blobs are addressed by content and appends are numbered, so it
arrives once.

An entry that the archive refuses for ever is found by halving its batch, and a dead letter takes its place and number:
written down first as well, so that what is made again is the same. What is behind it ships on.

So does what is behind frames that were damaged before they were shipped: an entry of type unreadable, written down
first, takes their place, and their bytes are set aside.

A blob that is refused is another matter: without it the content would be lost, so its stream waits, is tried again and
says why (``refused``). Only one that is too large for what lies between is cut: a shorter chunk goes instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from governed_api.lifetimes import Lifetimes
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ENTRY_TYPE, OUT_OF_TIME, Refused
from governed_serving.auditor.service.entries import Unreadable, dead_letter, entries_of
from governed_serving.crypto import SegmentCipher
from governed_serving.durable import replace_file
from governed_serving.hosting import log
from governed_serving.journal import Chunk, Cursor, CursorFiles, Gap, JournalError, JournalReader, quarantine, streams
from governed_serving.records import APPEND_BYTES, Frame

__all__ = ["Progress", "Shipper"]

TELL_SECONDS = 3600.0
"""How often the archive is told again how long payloads are kept and keys last: another revision's pod may have said
otherwise."""
CHUNK_BYTES = 2 << 20
_BATCH = 4096
_BATCH_BYTES = APPEND_BYTES // 4
"""Of a request's entries, the last one excepted; room is left for what one entry and msgpack add."""
_REFUSED_FOR_EVER = frozenset({400, 413, 415, 422})
"""Answers to an append that say something of the entries themselves, which no later attempt changes: not canonical or
of an unknown type, too large, of the wrong kind. Everything else is tried again and never becomes a dead letter: 401
and 403 (the token: a Secret is being replaced), 404 and 405 (a wrong address), 409 (numbers), 410, 412, 429, 5xx, no
answer, a disk that fails. A blob that is refused isn't meant either: without it the content would be lost."""
_OF_THE_ENTRY = frozenset({ENTRY_TYPE, OUT_OF_TIME})
"""Likewise, whatever the status: reasons that say something of the entry, not of the token."""
_TOO_LARGE = 413


class Progress(Cursor, frozen=True):
    """Of one stream: where it is shipped to, and the ledger number of the next entry.

    ``last``: a chunk up to this frame is on its way. ``sent``: so many of its entries are in the ledger; ``refused``:
    why the one behind them is a dead letter, if it is. ``dead_letters``: how many the stream has, this one included.
    ``gap``: the frames that are next can't be read, which is what the next entry says; ``unreadable``: how many such
    frames the stream has, these included.
    """

    number: int = 0
    last: int | None = None
    sent: int = 0
    refused: str = ""
    dead_letters: int = 0
    gap: Unreadable | None = None
    unreadable: int = 0

    @property
    def dead(self) -> int:
        """Number of the chunk's newest dead letter; -1 for none."""
        return self.number + self.sent if self.refused else -1


@dataclass
class _Batch:
    """Entries of one request and their records, numbered from ``first``."""

    first: int
    entries: list[bytes] = field(default_factory=list)
    records: list[Frame] = field(default_factory=list)
    size: int = 0

    def add(self, entry: bytes, record: Frame) -> None:
        self.entries.append(entry)
        self.records.append(record)
        self.size += len(entry)

    @property
    def full(self) -> bool:
        return len(self.entries) >= _BATCH or self.size >= _BATCH_BYTES

    @property
    def end(self) -> int:
        """Number of the entry behind it."""
        return self.first + len(self.entries)

    def part(self, start: int, end: int) -> "_Batch":
        entries = self.entries[start:end]
        return _Batch(self.first + start, entries, self.records[start:end], sum(map(len, entries)))


class Shipper:
    """``on_shipped(record, index)`` is told where each event went in the ledger, ``on_refused(record)`` of one in whose
    place a dead letter is.

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
        on_refused: Callable[[Frame], None] = lambda _: None,
        lifetimes: Lifetimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._spool, self._client, self._cipher, self._namespace = spool, client, cipher, namespace
        self._on_shipped, self._on_refused = on_shipped, on_refused
        self._lifetimes, self._clock = lifetimes, clock
        self._tell_at = clock()
        self._readers: dict[str, JournalReader] = {}
        self._progress: dict[str, Progress] = {}
        self._files = CursorFiles(spool / "cursors", Progress, "shipped-")
        self._foreign: set[tuple[str, int, int]] = set()
        self._chunk_bytes = CHUNK_BYTES
        self._refusal = spool / "cursors" / "refusal"
        self.behind = False
        """The last step shipped a chunk behind which there was more."""
        self.entries = 0
        self.blobs = 0
        self.bytes = 0

    def step(self) -> int:
        """Ship at most one chunk of every stream; the number of entries. Raises ArchiveError, JournalError,
        CryptoError, OSError.

        An entry that is refused for ever becomes a dead letter. A stream that is damaged, or refused for another
        reason, holds up no other one; it is told when all were tried.
        """
        self.behind = False
        try:
            count = self._step()
        except Refused as error:
            why = f"{error.status} {error}"
            if why != self.refused:
                replace_file(self._refusal, why.encode(), durable=False)
            raise
        self._refusal.unlink(missing_ok=True)
        return count

    def _step(self) -> int:
        if self._lifetimes is not None and self._clock() >= self._tell_at:
            self._client.say_times(payloads=self._lifetimes.payloads, keys=self._lifetimes.keys)
            self._tell_at = self._clock() + TELL_SECONDS
        count = 0
        trouble: Refused | JournalError | None = None
        for stream in streams(self._spool):
            try:
                count += self._ship(stream)
            except Refused as error:
                trouble = error  # before damage, which the log and the ledger tell as well
            except JournalError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return count

    @property
    def refused(self) -> str:
        """Why the archive takes nothing of a stream that is tried again: a token that it doesn't know, a blob that it
        doesn't want; "": it does. Kept over a restart, so that what was reported of it is taken back."""
        try:
            return self._refusal.read_text(errors="replace")
        except OSError:
            return ""

    def next_frame(self, stream: str) -> int:
        """Everything before it is in the archive."""
        progress = self._progress.get(stream)
        return progress.frame if progress else 0

    @property
    def unreadable(self) -> int:
        """Frames of the spool's streams that were damaged before they were shipped, those before a restart included."""
        return sum(progress.unreadable for progress in list(self._progress.values()))

    @property
    def dead_letters(self) -> int:
        """Entries of the spool's streams that the archive refused for ever, those before a restart included."""
        return sum(progress.dead_letters for progress in list(self._progress.values()))

    def reader(self, stream: str) -> JournalReader:
        """The reader of a stream."""
        return self._readers.setdefault(stream, JournalReader(self._spool, stream, self._cipher))

    def _ship(self, stream: str) -> int:
        reader = self.reader(stream)
        progress = self._progress.get(stream) or self._load(stream, reader)
        if progress is None:
            return 0
        if progress.gap is not None:
            return self._say_unreadable(stream, progress, progress.gap)
        chunk = self._chunk(reader, progress)
        self._say_foreign(reader)
        if chunk is None:
            return 0
        if progress.last is not None and (isinstance(chunk, Gap) or chunk.last_seq < progress.last):
            progress = self._shortened(stream, progress, chunk)
        if isinstance(chunk, Gap):
            return self._quarantine(stream, reader, progress, chunk)
        if progress.last is None:
            progress = msgspec.structs.replace(progress, last=chunk.last_seq)
            self._save(stream, progress)
        # it ended before the stream did: it was full, or its segment was
        self.behind |= len(chunk.data) >= self._chunk_bytes // 2 or (reader.newest_segment or 0) > chunk.last_seq
        try:
            self._client.put_blob(chunk.data)
        except Refused as error:
            self._cut(stream, progress, chunk, error)
            return self._ship(stream)
        sent = self._append(stream, chunk, progress)
        behind = Cursor.behind(chunk)
        self._pass_by(stream, behind.frame, behind.tag, progress.number + sent)
        self.blobs += 1
        self.bytes += len(chunk.data)
        self.entries += sent
        return sent

    def _chunk(self, reader: JournalReader, progress: Progress) -> Chunk | Gap | None:
        """The next chunk; after a restart in the middle of one, that very one again, or as much of it as can still be
        read."""
        previous = progress.previous
        return reader.chunk_or_gap(progress.frame, self._chunk_bytes, upto=progress.last, previous=previous)

    def _cut(self, stream: str, progress: Progress, chunk: Chunk, error: Refused) -> None:
        """A chunk that is too large for whatever lies between goes in shorter ones. Raises Refused when it can't be
        cut, or another thing is wrong."""
        if error.status != _TOO_LARGE or chunk.first_seq == chunk.last_seq or progress.sent:
            raise error
        self._chunk_bytes = max(1, min(self._chunk_bytes, len(chunk.data)) // 2)
        shorter = "a chunk of the journal is too large for the archive, or a proxy before it: shorter ones go instead"
        log("warning", shorter, stream=progress.identity, size=len(chunk.data), limit=self._chunk_bytes)
        self._save(stream, msgspec.structs.replace(progress, last=None))

    def _shortened(self, stream: str, progress: Progress, piece: Chunk | Gap) -> Progress:
        """A chunk was on its way when its journal was damaged: what of it the ledger has is passed over, the rest goes
        in a shorter one.

        Entries of frames behind the damage, if they had arrived, arrive again: twice is better than not at all. Raises
        ArchiveError.
        """
        sent = max(progress.sent, self._client.next_seq(progress.identity) - progress.number)
        refused = progress.refused if sent == progress.sent else ""
        progress = msgspec.structs.replace(progress, last=piece.last_seq, sent=sent, refused=refused)
        if isinstance(piece, Gap):
            progress = msgspec.structs.replace(progress, last=None, number=progress.number + sent, sent=0, refused="")
        self._save(stream, progress)
        return progress

    def _quarantine(self, stream: str, reader: JournalReader, progress: Progress, hole: Gap) -> int:
        gap = Unreadable.of(hole, quarantine(reader.folder, hole), time.time())
        lost = "frames of the journal can't be read: an entry says so in their place"
        log("error", lost, stream=progress.identity, found=str(hole), kept=gap.kept)
        progress = msgspec.structs.replace(progress, gap=gap, unreadable=progress.unreadable + gap.frames)
        self._save(stream, progress)
        return self._say_unreadable(stream, progress, gap)

    def _say_unreadable(self, stream: str, progress: Progress, gap: Unreadable) -> int:
        entry = gap.entry(self._namespace, self._client.model, progress.identity)
        self._client.append_batch(progress.identity, progress.number, [entry])
        self._pass_by(stream, gap.last + 1, gap.tag, progress.number + 1)
        self.behind = True
        self.entries += 1
        return 1

    def _say_foreign(self, reader: JournalReader) -> None:
        for place, strangers in reader.foreign.items():
            if (reader.stream, *place) not in self._foreign:
                self._foreign.add((reader.stream, *place))
                log(
                    "warning",
                    "bytes in the journal that no writer of it wrote are passed over",
                    stream=reader.stream,
                    found=strangers,
                )

    def _pass_by(self, stream: str, frame: int, tag: str, number: int) -> None:
        """What is before ``frame`` is in the ledger, up to entry ``number``."""
        before = self._progress[stream]
        dead_letters, unreadable = before.dead_letters, before.unreadable
        self._save(
            stream, Progress(before.identity, frame, tag, number, dead_letters=dead_letters, unreadable=unreadable)
        )

    def _append(self, stream: str, chunk: Chunk, progress: Progress) -> int:
        """Entries in batches that the archive takes; returns how many the chunk has."""
        batch = _Batch(progress.number + progress.sent)
        for entry, record in islice(entries_of(chunk, self._namespace), progress.sent, None):
            batch.add(entry, record)
            if batch.full:
                self._send(stream, batch)
                batch = _Batch(batch.end)
        if batch.entries:
            self._send(stream, batch)
        return batch.end - progress.number

    def _send(self, stream: str, batch: _Batch) -> None:
        """Append a batch; of one that is refused for ever, the halves, down to the entry at fault. Raises
        ArchiveError."""
        try:
            self._offer(stream, batch)
        except Refused as error:
            if error.status not in _REFUSED_FOR_EVER and error.details.get("reason") not in _OF_THE_ENTRY:
                raise
            count = len(batch.entries)
            if count == 1:
                self._bury(stream, batch, error)
            else:
                self._send(stream, batch.part(0, count // 2))
                self._send(stream, batch.part(count // 2, count))

    def _offer(self, stream: str, batch: _Batch) -> None:
        """As it is, with a dead letter for what is known to be refused. Raises ArchiveError."""
        progress = self._progress[stream]
        entries, dead = batch.entries, progress.dead
        if batch.first <= dead < batch.end:
            at = dead - batch.first
            letter = dead_letter(entries[at], progress.refused, progress.identity, dead)
            entries = [*entries[:at], letter, *entries[at + 1 :]]
        answer = self._client.append_batch(progress.identity, batch.first, entries)
        indices = (first + i for first, count in answer.ranges for i in range(count))
        for number, (record, index) in enumerate(zip(batch.records, indices, strict=False), batch.first):
            if number != dead:  # its record isn't in the ledger
                self._on_shipped(record, index)

    def _bury(self, stream: str, batch: _Batch, error: Refused) -> None:
        """A dead letter in the place of a batch's only entry; all before it are in the ledger.

        Raises ArchiveError. Where even the dead letter is refused, it isn't this entry that is at fault: it stays what
        it was.
        """
        before = self._progress[stream]
        if before.dead == batch.first:
            raise error
        why = f"{error.status} {error}"
        sent = batch.first - before.number
        count = before.dead_letters + 1
        self._save(stream, msgspec.structs.replace(before, sent=sent, refused=why, dead_letters=count))
        try:
            self._offer(stream, batch)
        except Refused:
            self._save(stream, before)
            raise
        self._on_refused(batch.records[0])
        told = "ledger entry refused for ever: a dead letter took its place"
        log("error", told, stream=before.identity, sequence=batch.first, size=batch.size, why=why[:400])

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

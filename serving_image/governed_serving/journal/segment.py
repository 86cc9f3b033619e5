"""Segment files: appending frames to one, finding out after a crash where the last good frame ends, and keeping what
was damaged."""

import errno
import os
import time
from pathlib import Path
from typing import NamedTuple

from governed_serving.crypto import SegmentCipher, SegmentKey
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.durable import fsync_folder, replace_file
from governed_serving.journal.acknowledged import Mark, read_mark
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import FRAME, NO_TAG, Header, RawFrame, frame_aad, parse_segment
from governed_serving.journal.salvage import Gap, Place, heads_in, salvage, whole_end

__all__ = ["Chain", "SegmentFile", "Written", "quarantine", "recover", "segment_path", "segments", "write_probe"]

QUARANTINED = 64
QUARANTINED_BYTES = 64 << 20


class Chain(NamedTuple):
    """Where a stream stands: its identity, the next frame's number, the tag of the frame before.

    ``unreadable``: so many frames before it can't be read; no frame can follow their tag, so ``previous`` is NO_TAG.
    """

    identity: str
    next_seq: int
    previous: bytes
    unreadable: int = 0

    def over(self, seq: int) -> "Chain":
        """Behind frames up to ``seq`` that can't be read."""
        return Chain(self.identity, seq, NO_TAG, seq - self.next_seq)


def segment_path(folder: Path, first_seq: int) -> Path:
    """File of the segment that begins with ``first_seq``."""
    return folder / f"{first_seq:020d}.seg"


def segments(folder: Path) -> list[int]:
    """First frame of every segment in ``folder``, ascending."""
    return sorted(int(p.stem) for p in folder.glob("*.seg"))


class Written(NamedTuple):
    """A frame as it was written: its number, and its bytes in two parts."""

    seq: int
    head: bytes
    ciphertext: bytes


class SegmentFile:
    """The segment being written. Not thread-safe."""

    def __init__(self, folder: Path, stream: str, chain: Chain, cipher: SegmentCipher, durable: bool = True):
        """Create the file and write its header (fsynced if ``durable``); raises OSError and leaves nothing behind."""
        bare = Header(stream, chain.identity, chain.next_seq, chain.previous, time.time())
        self._key, wrapped = cipher.new(bare.aad())
        self._header = Header(stream, chain.identity, chain.next_seq, chain.previous, bare.created, wrapped)
        self.path = segment_path(folder, chain.next_seq)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._attempt = 0
        self._lost: OSError | None = None
        self.broken = False
        self.end = 0
        self.next_seq, self._previous = chain.next_seq, chain.previous
        try:
            self._write([self._header.pack_twice()])
            if durable:
                os.fsync(self._fd)
                fsync_folder(folder)
        except BaseException:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    @property
    def chain(self) -> Chain:
        """What the next frame, here or in the next segment, follows."""
        return Chain(self._header.identity, self.next_seq, self._previous)

    def append(self, plaintext: bytes) -> Written:
        """Write one frame. Whatever is raised (OSError; a cipher's library may panic), the file is as before, and the
        frame's nonce isn't used again."""
        seq = self.next_seq
        try:
            ciphertext = self._key.seal(self._attempt, seq, plaintext, frame_aad(self._header, seq, self._previous))
            head = FRAME.pack(len(ciphertext), self._attempt, seq)
            self._write([head, ciphertext])
        except BaseException:
            self._attempt += 1
            self._take_back()
            raise
        self.next_seq, self._previous = seq + 1, ciphertext[-TAG_BYTES:]
        return Written(seq, head, ciphertext)

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.end)
        except OSError:
            self.broken = True  # a piece of a frame stays at the end: nothing may be written behind it

    def sync(self) -> None:
        """Make all frames durable; raises OSError, after which the file must not be written any more."""
        if self._lost is not None:
            raise self._lost
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def close(self, sync: bool = False) -> None:
        """Close the file; ``sync``: make it durable first. If that fails, :meth:`sync` says so to whoever asks
        later."""
        if self._fd >= 0:
            try:
                if sync:
                    os.fdatasync(self._fd)
            except OSError as error:
                self._lost = error
            os.close(self._fd)
            self._fd = -1

    def _write(self, parts: list[bytes]) -> None:
        expected = sum(map(len, parts))
        written = os.pwritev(self._fd, parts, self.end)
        if written < expected:  # a disk that fills up takes a part first
            rest = b"".join(parts)
            while written < expected:
                written += os.pwrite(self._fd, rest[written:], self.end + written)
        self.end += expected


def write_probe(path: Path, size: int, *, durable: bool) -> None:
    """Write ``size`` bytes as a segment is written, and take them away again. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.pwritev(handle, [bytes(size)], 0) < size:  # a disk that fills up takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fdatasync(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


def recover(folder: Path, stream: str, cipher: SegmentCipher) -> tuple[Chain, int]:
    """Check the last segment and set a torn tail aside; returns where to go on, and the bytes set aside.

    A tail is torn when nobody was told that it is kept (:mod:`~governed_serving.journal.acknowledged`): what a killed
    process or a power cut leaves. It stays beside its segment as ``.torn-{offset}`` until the segment is trimmed.
    Acknowledged frames that can't be read stay where they are, for the readers to report: the chain then goes on
    behind them, ``chain.unreadable`` says how many end the stream. Raises CryptoError when a key is lost, OSError.
    """
    mark, torn = read_mark(folder), 0
    for first in reversed(segments(folder)):
        path = segment_path(folder, first)
        data = path.read_bytes()
        opened = _opened(data, stream, first, cipher)
        told = mark is not None and mark.next_seq > first
        if opened is None and not told:  # killed while the segment was made: no frame can be in it
            torn += len(data)
            path.unlink()
            continue
        if opened is None or isinstance(opened, JournalDamaged):
            return _behind_unreadable(folder, first, mark, max(1, heads_in(data, first)), cipher), torn
        header, key, start = opened
        chain, end = _last_good(data, Place(header, key, first, header.previous, start))
        if mark is not None and mark.identity == chain.identity and mark.next_seq > chain.next_seq:
            return chain.over(mark.next_seq), torn
        if end < len(data):
            torn += len(data) - end
            _set_aside(path, data, end)
        if chain.next_seq == first:  # no frame: the next writer makes it anew, with a key of its own
            path.unlink()
            fsync_folder(folder)
        return chain, torn
    return Chain(os.urandom(6).hex(), 0, NO_TAG) if mark is None else Chain(mark.identity, 0, NO_TAG).over(
        mark.next_seq
    ), torn


def _opened(
    data: bytes, stream: str, first: int, cipher: SegmentCipher
) -> tuple[Header, SegmentKey, int] | JournalDamaged | None:
    """Header, key and offset of the first frame; None where the header isn't whole; the damage."""
    try:
        parsed = parse_segment(data, stream)
        if parsed is None:
            return None
        header, start = parsed
        if (header.stream, header.first_seq) != (stream, first):
            return JournalDamaged(stream, first, "its segment was put into another's place")
        return header, header.key(cipher), start
    except JournalDamaged as error:
        return error


def _behind_unreadable(folder: Path, first: int, mark: Mark | None, least: int, cipher: SegmentCipher) -> Chain:
    """The chain behind the last segment, ``first``, none of whose frames can be read; they are ``least`` by their
    heads."""
    identity = mark.identity if mark is not None else ""
    for earlier in reversed([s for s in segments(folder) if s < first]):
        opened = _opened(segment_path(folder, earlier).read_bytes(), folder.name, earlier, cipher)
        if not identity and isinstance(opened, tuple):
            identity = opened[0].identity
    end = max(mark.next_seq if mark is not None else 0, first + least)
    return Chain(identity or os.urandom(6).hex(), first, NO_TAG).over(end)


def _last_good(data: bytes, place: Place) -> tuple[Chain, int]:
    """(chain behind the last frame that opens, its end), over whatever lies before it."""
    start = place.offset
    identity = place.header.identity
    while True:
        at = place.offset
        end = whole_end(data, at, place.seq)
        piece: RawFrame | Gap | None = None
        if end is not None:
            _, attempt, _ = FRAME.unpack_from(data, at)
            piece = place._replace(offset=0).frame(data, at, end, place.seq, place.previous, attempt)
        if piece is None and at < len(data):
            piece = salvage(data[at:], place)
        if piece is None:
            return Chain(identity, place.seq, place.previous), max(at, start)
        place = place._replace(seq=piece.last_seq + 1, previous=piece.tag, offset=piece.end)


def _set_aside(path: Path, data: bytes, end: int) -> None:
    aside = path.with_suffix(f".torn-{end}")
    try:
        aside.write_bytes(data[end:])
    except OSError:  # no room for the copy: nobody was told that this tail was kept, so it may go
        aside.unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    fsync_folder(path.parent)


def quarantine(folder: Path, gap: Gap) -> str:
    """Keep the bytes of a gap as ``….damaged-{offset}`` when its segment is trimmed; the file's name, or "" where there
    is no room: at most ``QUARANTINED`` files and ``QUARANTINED_BYTES`` of a stream are kept. What they were is in the
    ledger all the same. Raises OSError where the segment can't be read."""
    path = segment_path(folder, gap.segment)
    aside = path.with_suffix(f".damaged-{gap.offset}")
    if aside.exists():
        return aside.name
    kept = [file.stat().st_size for file in folder.glob("*.damaged-*")]
    if not gap.length or len(kept) >= QUARANTINED or sum(kept) + gap.length > QUARANTINED_BYTES:
        return ""
    with path.open("rb") as file:
        file.seek(gap.offset)
        data = file.read(gap.length)
    try:
        replace_file(aside, data)
    except OSError:  # a full volume: evidence must not keep others from being answered
        return ""
    return aside.name

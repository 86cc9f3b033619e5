"""Segment files: appending frames to one, and finding out after a crash where the last good frame ends."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from governed_serving.crypto import SegmentCipher
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.durable import fsync_folder
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import FRAME, NO_TAG, Header, frame_aad, frames_in, parse_header

__all__ = ["Chain", "SegmentFile", "recover", "segment_path", "segments"]


class Chain(NamedTuple):
    """Where a stream stands: its identity, the next frame's number, the tag of the frame before."""

    identity: str
    next_seq: int
    previous: bytes


def segment_path(folder: Path, first_seq: int) -> Path:
    """File of the segment that begins with ``first_seq``."""
    return folder / f"{first_seq:020d}.seg"


def segments(folder: Path) -> list[int]:
    """First frame of every segment in ``folder``, ascending."""
    return sorted(int(p.stem) for p in folder.glob("*.seg"))


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
            self._write([self._header.pack()])
            if durable:
                os.fsync(self._fd)
                fsync_folder(folder)
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    @property
    def chain(self) -> Chain:
        """What the next frame, here or in the next segment, follows."""
        return Chain(self._header.identity, self.next_seq, self._previous)

    def append(self, plaintext: bytes) -> int:
        """Write one frame and return its number. On OSError the file is as before; the frame's nonce isn't used
        again."""
        seq = self.next_seq
        ciphertext = self._key.seal(self._attempt, seq, plaintext, frame_aad(self._header, seq, self._previous))
        try:
            self._write([FRAME.pack(len(ciphertext), self._attempt, seq), ciphertext])
        except OSError:
            self._attempt += 1
            self._take_back()
            raise
        self.next_seq, self._previous = seq + 1, ciphertext[-TAG_BYTES:]
        return seq

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


def recover(folder: Path, stream: str, cipher: SegmentCipher) -> tuple[Chain, int]:
    """Check the last segment and set a torn tail aside; returns where to go on, and the bytes set aside.

    A tail is torn when nothing whole follows it: what a killed process or a power cut leaves. A bad frame before good
    ones is no accident: JournalDamaged. A torn tail stays beside its segment as ``.torn-{offset}`` until the segment is
    trimmed.
    """
    torn = 0
    for first in reversed(segments(folder)):
        path = segment_path(folder, first)
        data = path.read_bytes()
        parsed = parse_header(data, stream)
        if parsed is None:  # killed while the segment was made: no frame can be in it
            torn += len(data)
            path.unlink()
            continue
        header, start = parsed
        chain, end = _check(data, header, start, cipher)
        if end < len(data):
            torn += len(data) - end
            _set_aside(path, data, end)
        if chain.next_seq == first:  # no frame: the next writer makes it anew, with a key of its own
            path.unlink()
            fsync_folder(folder)
        return chain, torn
    return Chain(os.urandom(6).hex(), 0, NO_TAG), torn


def _check(data: bytes, header: Header, start: int, cipher: SegmentCipher) -> tuple[Chain, int]:
    """(chain after the last good frame, its end). Raises JournalDamaged when frames follow a bad one."""
    key = header.key(cipher)
    chain, end = Chain(header.identity, header.first_seq, header.previous), start
    try:
        for frame in frames_in(data[start:], header, key, chain.next_seq, chain.previous, start):
            frame.open()
            chain, end = Chain(header.identity, frame.seq + 1, frame.tag), frame.end
    except JournalDamaged:
        if _later_frame(data[end + FRAME.size :], chain.next_seq):
            raise
    return chain, end


def _later_frame(rest: bytes, seq: int) -> bool:
    """Whether the number of a later frame stands in ``rest``; in random ciphertext it doesn't (chance 2⁻⁶⁴ per
    byte)."""
    return any((seq + ahead).to_bytes(8, "big") in rest for ahead in (1, 2))


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

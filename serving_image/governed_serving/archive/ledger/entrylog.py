"""Entries on disk: append-only segments of encrypted frames, one frame per appended batch.

Segment ``{first index:020d}.seg``: magic, then frames ``u32 length ‖ u64 first index ‖ u32 count ‖ ciphertext``. The
plaintext is a msgpack :class:`Batch`; the origin, the first index and the count are authenticated with it, so that
frames can't change places. A torn last frame (power cut, kill -9) is trimmed when the log is opened; anything else that
doesn't open is an error.
"""

import os
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import msgspec

from governed_serving.archive.errors import LedgerDamaged
from governed_serving.decoding import decode_msgpack
from governed_serving.durable import fsync_folder

__all__ = ["REMEDY", "Batch", "Cipher", "EntryLog"]

REMEDY = "restore the archive from a backup, or serve it with --accept-loss, which an entry will say for ever"
_MAGIC = b"GMLEDG1\n"
_HEADER = struct.Struct(">IQI")
_SEGMENT_ENTRIES = 65_536
_SEGMENT_BYTES = 32 << 20
_CACHED_FRAMES = 64


class Cipher(Protocol):
    """What the log needs of the archive's keyring."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        """Ciphertext of ``data``, bound to ``aad``."""
        ...

    def open(self, data: bytes, aad: bytes) -> bytes:
        """Inverse of ``seal``; raises on anything that was not sealed with this ``aad``."""
        ...


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """Entries appended together: numbered from ``first_seq`` in ``stream`` of ``model``."""

    model: str
    stream: str
    first_seq: int
    entries: list[bytes]


@dataclass(frozen=True)
class _Place:
    """Where a frame lies in its segment."""

    first: int
    count: int
    offset: int
    length: int


class EntryLog:
    """The segments below ``root``. One writer; readers may read whatever lies below the size that the writer has
    announced."""

    def __init__(self, root: Path, cipher: Cipher, origin: str):
        self.root = root
        self._cipher = cipher
        self._origin = origin.encode()
        self._segments = sorted(int(p.stem) for p in root.glob("*.seg"))
        self._places: OrderedDict[int, list[_Place]] = OrderedDict()
        self._frames: OrderedDict[int, Batch] = OrderedDict()
        self._file = -1
        self._end: int  # bytes and entries of the last segment, known once :meth:`recover` has opened it
        self._entries: int

    @property
    def segments(self) -> list[int]:
        """First index of every segment."""
        return list(self._segments)

    def batches(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """(first index, batch) of every frame from the segment that holds ``start``; frames below ``start`` are passed
        over.

        Raises :class:`LedgerDamaged` naming the entry at which the log can't be read.
        """
        for number in range(max(bisect_right(self._segments, start) - 1, 0), len(self._segments)):
            for place in self._index(self._segments[number]):
                if place.first >= start:
                    yield place.first, self._frame(self._segments[number], place)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Entries ``start`` … ``end`` − 1 as they were appended."""
        number = bisect_right(self._segments, start) - 1
        while start < end and 0 <= number < len(self._segments):
            segment = self._segments[number]
            for place in self._index(segment, until=end):
                if place.first + place.count > start and place.first < end:
                    batch = self._frame(segment, place)
                    yield from batch.entries[start - place.first : end - place.first]
                    start = min(end, place.first + place.count)
            number += 1

    @property
    def end(self) -> int:
        """Index behind the last entry, once :meth:`recover` has opened the log."""
        return self._segments[-1] + self._entries

    def opens(self) -> bool:
        """Whether there is an entry and the first one decrypts: the key is this log's."""
        try:
            return next(self.batches(), None) is not None
        except LedgerDamaged:
            return False

    def forget(self) -> None:
        """Read from the disk again what was read before."""
        self._frames.clear()
        self._places.clear()

    def check_segments(self) -> None:
        """Raises LedgerDamaged where a segment, or the end of one, is missing."""
        expected = 0
        for segment in self._segments:
            if segment != expected:
                raise LedgerDamaged(
                    f"entries {expected} to {segment - 1} are missing from {self.root}: restore it from a backup",
                    index=expected,
                )
            places = self._index(segment)
            expected = places[-1].first + places[-1].count if places else segment

    def coverage(self) -> Iterator[tuple[str, int, int, int]]:
        """(file name, index behind its last whole frame, bytes of whole frames, bytes) of every segment: what lies
        behind the last frame is in no batch."""
        for first in self._segments:
            places = self._scan(first, torn_allowed=True)
            end = places[-1].first + places[-1].count if places else first
            whole = places[-1].offset + places[-1].length if places else len(_MAGIC)
            yield self._path(first).name, end, whole, self._path(first).stat().st_size

    def extent(self, size: int) -> list[tuple[str, int]]:
        """(file name, bytes) of the segments that hold the first ``size`` entries, up to where these end."""
        files: list[tuple[str, int]] = []
        for number, first in enumerate(self._segments):
            following = self._segments[number + 1] if number + 1 < len(self._segments) else None
            if first > size or (first == size and files):
                break
            if following is not None and following <= size:
                end = self._path(first).stat().st_size
            else:
                places = [p for p in self._scan(first, torn_allowed=True) if p.first + p.count <= size]
                end = places[-1].offset + places[-1].length if places else len(_MAGIC)
            files.append((self._path(first).name, end))
        return files

    def recover(self, at_least: int, *, accept_loss: bool = False) -> None:
        """Trim a torn tail and open the last segment for appending (making the first when there is none).

        What is trimmed is kept beside it as ``.torn``. Raises :class:`LedgerDamaged`, and changes nothing, when fewer
        than ``at_least`` entries (those of the last signed checkpoint) would be left, or later ones open: then it
        was no torn write. ``accept_loss``: it goes on from there all the same, with ``at_least`` 0.
        """
        if not self._segments:
            self._refuse_cut(0, at_least)
            self._start_segment(0)
            return
        first = self._segments[-1]
        places = self._scan(first, torn_allowed=True)
        whole = list(takewhile(lambda place: self._opens(first, place), places))
        self._entries = sum(p.count for p in whole)
        self._refuse_cut(first + self._entries, at_least)
        if not accept_loss and any(self._opens(first, place) for place in places[len(whole) :]):
            bad = places[len(whole)]
            raise LedgerDamaged(
                f"entries {bad.first} to {bad.first + bad.count - 1} can't be read, later ones can: no torn write, they were changed; {REMEDY}",  # noqa: E501
                index=bad.first,
            )
        self._end = whole[-1].offset + whole[-1].length if whole else len(_MAGIC)
        self._file = os.open(self._path(first), os.O_RDWR)
        self._trim(first)

    def _refuse_cut(self, size: int, at_least: int) -> None:
        if size < at_least:
            raise LedgerDamaged(
                f"{size} entries can be read, but a checkpoint over {at_least} was signed: the tail was cut or changed; {REMEDY}",  # noqa: E501
                index=size,
            )

    def _trim(self, first: int) -> None:
        size = os.fstat(self._file).st_size
        if size > self._end:
            self._path(first).with_suffix(f".torn-{self._end}").write_bytes(
                os.pread(self._file, size - self._end, self._end)
            )
        if size < len(_MAGIC):
            os.pwrite(self._file, _MAGIC, 0)
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        self._places.pop(first, None)

    @property
    def full(self) -> bool:
        """Whether the current segment has reached its size; :meth:`roll` then starts the next."""
        return self._entries >= _SEGMENT_ENTRIES or self._end >= _SEGMENT_BYTES

    def roll(self, first: int) -> None:
        """Start the segment of entry ``first``."""
        self.close()
        self._start_segment(first)

    def append(self, batches: list[tuple[int, Batch]]) -> None:
        """Write (first index, batch) frames and fsync once. On OSError nothing of them stays."""
        frames = b"".join(self._sealed(first, batch) for first, batch in batches)
        try:
            view, offset = memoryview(frames), self._end
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end = offset
        self._entries += sum(len(b.entries) for _, b in batches)
        self._places.pop(self._segments[-1], None)

    def close(self) -> None:
        """Close the segment being written."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _start_segment(self, first: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path(first), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(self._file, _MAGIC, 0)
        os.fsync(self._file)
        fsync_folder(self.root)
        self._segments.append(first)
        self._end, self._entries = len(_MAGIC), 0

    def _path(self, first: int) -> Path:
        return self.root / f"{first:020d}.seg"

    def _aad(self, first: int, count: int) -> bytes:
        return b"governed ledger 1\0" + self._origin + b"\0" + struct.pack(">QI", first, count)

    def _sealed(self, first: int, batch: Batch) -> bytes:
        count = len(batch.entries)
        body = self._cipher.seal(msgspec.msgpack.encode(batch), self._aad(first, count))
        return _HEADER.pack(len(body), first, count) + body

    def _index(self, segment: int, until: int = 0) -> list[_Place]:
        """Frames of a segment, cached; looked at again when it has grown and entries up to ``until`` are asked for."""
        places = self._places.get(segment)
        end = places[-1].first + places[-1].count if places else -1
        if places is None or (segment == self._segments[-1] and until > end):
            places = self._scan(segment, torn_allowed=segment == self._segments[-1])
            self._places[segment] = places
            if len(self._places) > _CACHED_FRAMES:
                self._places.popitem(last=False)
        return places

    def _scan(self, segment: int, torn_allowed: bool) -> list[_Place]:
        path = self._path(segment)
        size = path.stat().st_size
        places: list[_Place] = []
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC[: len(magic)]:
                raise LedgerDamaged(f"{path.name} doesn't begin like a ledger segment", index=segment)
            offset, expected = len(_MAGIC), segment
            while offset + _HEADER.size <= size:
                file.seek(offset)
                length, first, count = _HEADER.unpack(file.read(_HEADER.size))
                if first != expected or count == 0 or offset + _HEADER.size + length > size:
                    break
                places.append(_Place(first, count, offset, _HEADER.size + length))
                offset, expected = offset + _HEADER.size + length, expected + count
        if offset != size and not torn_allowed:
            raise LedgerDamaged(f"{path.name} can't be read past byte {offset} of {size}", index=expected)
        return places

    def _frame(self, segment: int, place: _Place) -> Batch:
        batch = self._frames.get(place.first)
        if batch is None:
            batch = self._decrypt(segment, place)
            self._frames[place.first] = batch
            while len(self._frames) > _CACHED_FRAMES:
                self._frames.popitem(last=False)
        return batch

    def _decrypt(self, segment: int, place: _Place) -> Batch:
        with self._path(segment).open("rb") as file:
            file.seek(place.offset + _HEADER.size)
            body = file.read(place.length - _HEADER.size)
        try:
            plain = self._cipher.open(body, self._aad(place.first, place.count))
        except Exception as error:  # each cipher has an error type of its own
            raise LedgerDamaged(
                f"entries {place.first} to {place.first + place.count - 1} in {segment:020d}.seg don't decrypt: "
                "they were changed, or this is another archive's key",
                index=place.first,
            ) from error
        return decode_msgpack(plain, type=Batch)

    def _opens(self, segment: int, place: _Place) -> bool:
        try:
            self._decrypt(segment, place)
        except LedgerDamaged:
            return False
        return True

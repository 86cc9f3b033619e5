"""Bytes of a segment: its header, twice, and frames ``u32 length ‖ u32 attempt ‖ u64 seq ‖ ciphertext ‖ tag``.

Version 2 writes ``magic ‖ u32 length ‖ header ‖ u32 CRC-32`` two times over, since all frames are lost with the data
key in it; version 1 (and a chunk) has ``magic ‖ u32 length ‖ header`` once. Both are read.

A frame's associated data are stream, identity, seq and the tag of the frame before it, across segments too: a frame
that is cut out, swapped, or taken from elsewhere doesn't open. The header carries the segment's data key, wrapped by
the journal keyset with all other header fields as associated data.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from governed_serving.crypto import CryptoError, SegmentCipher, SegmentKey, Tampered
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.decoding import decode_msgpack
from governed_serving.journal.errors import JournalDamaged
from governed_serving.records import EventRecord, Frame, SubjectFrame, decode_frame, personal_key

__all__ = [
    "FRAME",
    "FRAME_LIMIT",
    "MAGIC",
    "NO_TAG",
    "Header",
    "RawFrame",
    "frame_aad",
    "frames_in",
    "parse_header",
    "parse_segment",
    "same_copies",
]

MAGIC = b"GMJSEG1\n"
MAGIC_TWICE = b"GMJSEG2\n"
FRAME = struct.Struct(">IIQ")
NO_TAG = bytes(TAG_BYTES)
"""Before a stream's first frame; and before a segment that a writer began behind frames that it couldn't read."""
FRAME_LIMIT = 256 << 20
"""Longest frame, bytes: more is taken for damage when read and refused when written."""
_LENGTH = _CRC = struct.Struct(">I")
_HEADER_LIMIT = 1 << 16


class Header(msgspec.Struct, frozen=True, array_like=True):
    """``identity`` is drawn when a stream begins, so that a stream made anew under an old name is another one."""

    stream: str
    identity: str
    first_seq: int
    previous: bytes
    created: float
    wrapped: bytes = b""

    def pack(self) -> bytes:
        """Bytes at the beginning of a chunk, and of a segment of version 1."""
        body = msgspec.msgpack.encode(self)
        return MAGIC + _LENGTH.pack(len(body)) + body

    def pack_twice(self) -> bytes:
        """Bytes at the beginning of a segment's file."""
        body = msgspec.msgpack.encode(self)
        return (MAGIC_TWICE + _LENGTH.pack(len(body)) + body + _CRC.pack(zlib.crc32(body))) * 2

    def aad(self) -> bytes:
        """What the data key is bound to."""
        return b"governed journal 1\0" + msgspec.msgpack.encode(msgspec.structs.replace(self, wrapped=b""))

    def key(self, cipher: SegmentCipher) -> SegmentKey:
        """The segment's data key; raises JournalDamaged when the header was changed, CryptoError when the key is
        lost."""
        try:
            return cipher.open(self.wrapped, self.aad())
        except Tampered:
            raise JournalDamaged(self.stream, self.first_seq, "the segment's header was changed") from None


class RawFrame(NamedTuple):
    """A frame as it lies on disk, and all that is needed to open it."""

    header: Header
    key: SegmentKey
    seq: int
    attempt: int
    previous: bytes
    ciphertext: bytes
    offset: int
    plaintext: bytes | None = None
    """Once it has been opened."""

    @property
    def last_seq(self) -> int:
        """As of a :class:`~governed_serving.journal.salvage.Gap`, which may be longer."""
        return self.seq

    @property
    def identity(self) -> str:
        """``{stream}.{identity}`` of the frame's stream, as :attr:`JournalReader.identity`."""
        return f"{self.header.stream}.{self.header.identity}"

    @property
    def tag(self) -> bytes:
        """What the next frame is chained to."""
        return self.ciphertext[-TAG_BYTES:]

    @property
    def raw(self) -> bytes:
        """Header and ciphertext, as in the file."""
        return FRAME.pack(len(self.ciphertext), self.attempt, self.seq) + self.ciphertext

    @property
    def end(self) -> int:
        """Offset behind the frame."""
        return self.offset + FRAME.size + len(self.ciphertext)

    def opened(self, previous: bytes | None = None) -> "RawFrame | None":
        """The frame with its plaintext, behind a frame with tag ``previous`` (default: the one that lies there); None
        when it doesn't authenticate."""
        before = self.previous if previous is None else previous
        try:
            plain = self.key.open(self.attempt, self.seq, self.ciphertext, frame_aad(self.header, self.seq, before))
        except CryptoError:
            return None
        return RawFrame(self.header, self.key, self.seq, self.attempt, before, self.ciphertext, self.offset, plain)

    def open(self) -> bytes:
        """The plaintext; raises JournalDamaged."""
        if self.plaintext is not None:
            return self.plaintext
        try:
            return self.key.open(
                self.attempt, self.seq, self.ciphertext, frame_aad(self.header, self.seq, self.previous)
            )
        except CryptoError:
            raise JournalDamaged(
                self.header.stream,
                self.seq,
                f"was changed, or the frame before it isn't the one it follows (segment {self.header.first_seq}, byte {self.offset})",  # noqa: E501
            ) from None

    def record(self) -> Frame:
        """The decoded record; raises JournalDamaged. What is sealed under a data subject's key is opened where the
        cipher has these."""
        record = decode_frame(self.open())
        if self.key.subjects is not None and (
            isinstance(record, SubjectFrame) or (isinstance(record, EventRecord) and personal_key(record))
        ):
            return self.key.subjects.opened(record)
        return record


def frame_aad(header: Header, seq: int, previous: bytes) -> bytes:
    """Associated data of a frame."""
    return f"{header.stream}\0{header.identity}\0{seq}\0".encode() + previous


def parse_header(data: bytes, name: str) -> tuple[Header, int] | None:
    """(header, offset of the first frame); None when ``data`` is too short to tell. Raises JournalDamaged."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise JournalDamaged(name, 0, f"expected a journal segment, found bytes that begin with {data[:8]!r}")
    start = len(MAGIC) + _LENGTH.size
    if len(data) < start:
        return None
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > _HEADER_LIMIT:
        raise JournalDamaged(name, 0, f"a segment header of {length} bytes can't be")
    if len(data) < start + length:
        return None
    try:
        return decode_msgpack(data[start : start + length], type=Header), start + length
    except msgspec.DecodeError as error:
        raise JournalDamaged(name, 0, f"the segment's header was changed ({error})") from None


def parse_segment(data: bytes, name: str) -> tuple[Header, int] | None:
    """:func:`parse_header` of a segment's file of any version: of two copies of its header, one is enough."""
    first, second = _copy(data, 0), data.find(MAGIC_TWICE, 1)
    if first is not None:
        return first[0], 2 * first[1]
    # Frames may hold these bytes as well; a copy of the header ends where its length, twice, says.
    again = _copy(data, second) if second > 0 else None
    if again is not None and again[1] == 2 * second:
        return again
    if data[: len(MAGIC_TWICE)] != MAGIC_TWICE[: len(data)]:
        return parse_header(data, name)  # says what is wrong
    if second < 0:  # its writer has not finished the first
        return None
    raise JournalDamaged(name, 0, "both copies of the segment's header were changed")


def same_copies(data: bytes) -> bool:
    """Whether both copies of a segment's header are whole and the same; version 1 has one."""
    first = _copy(data, 0)
    if first is None:
        return data.startswith(MAGIC)
    return data[: first[1]] == data[first[1] : 2 * first[1]]


def _copy(data: bytes, place: int) -> tuple[Header, int] | None:
    """(header, end) of a copy at ``place``; None when it isn't whole."""
    start = place + len(MAGIC_TWICE) + _LENGTH.size
    if data[place : place + len(MAGIC_TWICE)] != MAGIC_TWICE or len(data) < start:
        return None
    (length,) = _LENGTH.unpack_from(data, place + len(MAGIC_TWICE))
    body = data[start : start + length]
    if length > _HEADER_LIMIT or len(data) < start + length + _CRC.size:
        return None
    (said,) = _CRC.unpack_from(data, start + length)
    if said != zlib.crc32(body):
        return None
    try:
        return decode_msgpack(body, type=Header), start + length + _CRC.size
    except msgspec.DecodeError:
        return None


def frames_in(
    data: bytes, header: Header, key: SegmentKey, seq: int, previous: bytes, base: int = 0
) -> Iterator[RawFrame]:
    """Whole frames in ``data``, which begins with frame ``seq`` at offset ``base`` of its segment; an unfinished last
    one is left out.

    Raises JournalDamaged at a frame whose number isn't the next one. Nothing is decrypted.
    """
    offset, size = 0, len(data)
    while offset + FRAME.size <= size:
        length, attempt, number = FRAME.unpack_from(data, offset)
        if number != seq or not TAG_BYTES <= length <= FRAME_LIMIT:
            raise JournalDamaged(
                header.stream,
                seq,
                f"expected frame {seq} at byte {base + offset} of segment {header.first_seq}, found {number} of {length} bytes",  # noqa: E501
            )
        end = offset + FRAME.size + length
        if end > size:
            return
        ciphertext = data[offset + FRAME.size : end]
        yield RawFrame(header, key, seq, attempt, previous, ciphertext, base + offset)
        offset, seq, previous = end, seq + 1, ciphertext[-TAG_BYTES:]

"""Bytes of a segment: ``magic ‖ u32 length ‖ header`` and frames ``u32 length ‖ u32 attempt ‖ u64 seq ‖ ciphertext ‖
tag``.

A frame's associated data are stream, identity, seq and the tag of the frame before it, across segments too: a frame
that is cut out, swapped, or taken from elsewhere doesn't open. The header carries the segment's data key, wrapped by
the journal keyset with all other header fields as associated data.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from governed_serving.crypto import CryptoError, SegmentCipher, SegmentKey, Tampered
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.decoding import decode_msgpack
from governed_serving.journal.errors import JournalDamaged
from governed_serving.records import Frame, decode_frame

__all__ = ["FRAME", "FRAME_LIMIT", "MAGIC", "NO_TAG", "Header", "RawFrame", "frame_aad", "frames_in", "parse_header"]

MAGIC = b"GMJSEG1\n"
FRAME = struct.Struct(">IIQ")
NO_TAG = bytes(TAG_BYTES)
FRAME_LIMIT = 256 << 20
"""Longest frame, bytes: more is taken for damage when read and refused when written."""
_LENGTH = struct.Struct(">I")
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
        """Bytes at the beginning of the segment's file."""
        body = msgspec.msgpack.encode(self)
        return MAGIC + _LENGTH.pack(len(body)) + body

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

    def open(self) -> bytes:
        """The plaintext; raises JournalDamaged."""
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
        """The decoded record; raises JournalDamaged."""
        return decode_frame(self.open())


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


def frames_in(
    data: bytes, header: Header, key: SegmentKey, seq: int, previous: bytes, base: int = 0
) -> Iterator[RawFrame]:
    """Whole frames in ``data``, which begins with frame ``seq`` at offset ``base`` of its segment; an unfinished last
    one is left out.

    Raises JournalDamaged at a frame whose number isn't the next one. Nothing is decrypted.
    """
    offset, size = 0, len(data)
    while offset + FRAME.size <= size:
        length, attempt, found = FRAME.unpack_from(data, offset)
        if found != seq or not TAG_BYTES <= length <= FRAME_LIMIT:
            raise JournalDamaged(
                header.stream,
                seq,
                f"expected frame {seq} at byte {base + offset} of segment {header.first_seq}, found {found} of {length} bytes",  # noqa: E501
            )
        end = offset + FRAME.size + length
        if end > size:
            return
        ciphertext = data[offset + FRAME.size : end]
        yield RawFrame(header, key, seq, attempt, previous, ciphertext, base + offset)
        offset, seq, previous = end, seq + 1, ciphertext[-TAG_BYTES:]

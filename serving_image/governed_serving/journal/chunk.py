"""What is shipped: frames of one segment with its header, so that a blob opens by itself with the journal keyset.

``magic ‖ segment header ‖ tag before the first frame ‖ u64 first seq ‖ frames``, all of it ciphertext or public.
"""

import secrets
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256

import msgspec

from governed_serving.crypto import SegmentCipher, Tampered
from governed_serving.crypto.sealed import JOURNAL_CHUNK
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import FRAME, NO_TAG, Header, RawFrame, frame_aad, frames_in, parse_header
from governed_serving.records import Frame, encode_frame

__all__ = ["Chunk", "chunk_identity", "chunk_of", "frame_of_chunk", "open_chunk", "pack_chunk"]

_SEQ = struct.Struct(">Q")


class Chunk(msgspec.Struct, frozen=True):
    """Frames ``first_seq`` … ``last_seq`` of a stream. ``data`` goes to the archive; ``records`` are the same,
    decoded."""

    header: Header
    first_seq: int
    last_seq: int
    tag: bytes
    data: bytes
    records: list[Frame]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of ``data``: the blob's address, and what ledger entries commit to."""
        return sha256(self.data).hexdigest()

    @property
    def identity(self) -> str:
        """``{stream}.{identity}``, as :attr:`JournalReader.identity`."""
        return f"{self.header.stream}.{self.header.identity}"


def pack_chunk(frames: Sequence[RawFrame]) -> Chunk:
    """Make a chunk of adjoining frames of one segment; opens every frame, so raises JournalDamaged at a bad one."""
    records = [frame.record() for frame in frames]
    first, last = frames[0], frames[-1]
    parts = [JOURNAL_CHUNK, first.header.pack(), first.previous, _SEQ.pack(first.seq)]
    return Chunk(first.header, first.seq, last.seq, last.tag, b"".join(parts + [f.raw for f in frames]), records)


def chunk_of(stream: str, record: Frame, cipher: SegmentCipher, now: float) -> Chunk:
    """A chunk of one record that lies in no journal: what is put into the ledger at once."""
    bare = Header(stream, secrets.token_hex(6), 0, NO_TAG, now)
    key, wrapped = cipher.new(bare.aad())
    key.subjects = None  # what is sealed once more stays so
    header = Header(stream, bare.identity, 0, NO_TAG, now, wrapped)
    sealed = key.seal(0, 0, encode_frame(record), frame_aad(header, 0, NO_TAG))
    return pack_chunk([RawFrame(header, key, 0, 0, NO_TAG, sealed, 0)])


def chunk_identity(data: bytes) -> str:
    """Which stream a chunk was cut from, as :attr:`Chunk.identity`; its header is public. Raises Tampered."""
    parsed = parse_header(data[len(JOURNAL_CHUNK) :], "chunk") if data.startswith(JOURNAL_CHUNK) else None
    if parsed is None:
        raise Tampered(f"expected a journal chunk, found {len(data)} bytes that begin otherwise")
    return f"{parsed[0].stream}.{parsed[0].identity}"


def open_chunk(data: bytes, cipher: SegmentCipher) -> Iterator[tuple[int, Frame]]:
    """(number, record) of every frame; raises Tampered, JournalDamaged, KeyMissing when it isn't what was shipped."""
    if data[: len(JOURNAL_CHUNK)] != JOURNAL_CHUNK:
        raise Tampered(f"expected a journal chunk, found {len(data)} bytes that begin otherwise")
    parsed = parse_header(data[len(JOURNAL_CHUNK) :], "chunk")
    if parsed is None or len(data) < len(JOURNAL_CHUNK) + parsed[1] + TAG_BYTES + _SEQ.size:
        raise Tampered(f"a journal chunk was cut: {len(data)} bytes are less than its header")
    header, length = parsed
    place = len(JOURNAL_CHUNK) + length
    previous = data[place : place + TAG_BYTES]
    (seq,) = _SEQ.unpack_from(data, place + TAG_BYTES)
    body, end = data[place + TAG_BYTES + _SEQ.size :], 0
    for frame in frames_in(body, header, header.key(cipher), seq, previous):
        yield frame.seq, frame.record()
        end = frame.end
    if end != len(body):
        raise JournalDamaged(
            header.stream, seq, f"chunk was cut: {len(body) - end} bytes of an unfinished frame at its end"
        )


def frame_of_chunk(data: bytes, seq: int) -> bytes | None:
    """Frame ``seq`` as it lies in a chunk, ciphertext, for whom has no key; None where it isn't there. Raises
    Tampered, JournalDamaged."""
    parsed = parse_header(data[len(JOURNAL_CHUNK) :], "chunk") if data.startswith(JOURNAL_CHUNK) else None
    if parsed is None:
        raise Tampered(f"expected a journal chunk, found {len(data)} bytes that begin otherwise")
    offset = len(JOURNAL_CHUNK) + parsed[1] + TAG_BYTES + _SEQ.size
    while offset + FRAME.size <= len(data):
        length, _, number = FRAME.unpack_from(data, offset)
        end = offset + FRAME.size + length
        if number == seq and end <= len(data):
            return data[offset:end]
        offset = end
    return None

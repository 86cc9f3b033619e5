"""What lies on the disk, byte by byte: marks, headers, frames and chunks; cut anywhere, they say what is wrong."""

import struct
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governed_serving.crypto import Tampered
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.journal import Cursor, Journal, JournalDamaged, JournalReader, RecordRefused, open_chunk, strings
from governed_serving.journal.acknowledged import Mark, MarkFile, read_mark
from governed_serving.journal.chunk import Chunk, chunk_identity
from governed_serving.journal.columns import joined, numbers, pack
from governed_serving.journal.format import (
    FRAME,
    FRAME_LIMIT,
    MAGIC,
    MAGIC_TWICE,
    NO_TAG,
    Header,
    RawFrame,
    frames_in,
    parse_header,
    parse_segment,
    same_copies,
)
from governed_serving.journal.segment import segment_path

from .samples import cipher, event

HEADER = Header("server-a", "0123456789ab", 7, NO_TAG, 1000.0, b"wrapped")
ONCE, TWICE = HEADER.pack(), HEADER.pack_twice()
BODY = ONCE[12:]


def test_a_mark_is_read_as_it_was_written_and_damaged_it_says_nothing(tmp_path: Path) -> None:
    assert read_mark(tmp_path) is None
    MarkFile(tmp_path).write("0123456789ab", 1 << 40)
    file = tmp_path / ".acknowledged"
    data = file.read_bytes()
    assert read_mark(tmp_path) == Mark("0123456789ab", 1 << 40)
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert read_mark(tmp_path) is None, place
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert read_mark(tmp_path) is None, length
    file.write_bytes(data + b"\0")
    assert read_mark(tmp_path) is None
    other = b"GMJACK2\n" + data[8:28]
    file.write_bytes(other + struct.pack(">I", zlib.crc32(other)))
    assert read_mark(tmp_path) is None, "of another version"
    odd = b"GMJACK1\n" + b"\xff" * 12 + bytes(8)
    file.write_bytes(odd + struct.pack(">I", zlib.crc32(odd)))
    assert read_mark(tmp_path) == Mark("\ufffd" * 12, 0), "no name of a stream, and no reason not to start"


def test_a_header_of_version_1_is_whole_or_not_there_yet() -> None:
    assert ONCE[:12] == b"GMJSEG1\n" + len(BODY).to_bytes(4, "big")
    assert parse_header(ONCE, "s") == (HEADER, len(ONCE))
    assert parse_header(ONCE + b"frames", "s") == (HEADER, len(ONCE))
    assert [parse_header(ONCE[:n], "s") for n in range(len(ONCE))] == [None] * len(ONCE)
    assert parse_segment(ONCE + b"frames", "s") == (HEADER, len(ONCE))
    assert Header("s", "i", 0, NO_TAG, 0.0).wrapped == b""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GMJSEG9\n and more", r"expected a journal segment, found bytes that begin with b'GMJSEG9\\n'"),
        (b"PK", r"expected a journal segment, found bytes that begin with b'PK'"),
        (MAGIC + ((1 << 16) + 1).to_bytes(4, "big"), "a segment header of 65537 bytes can't be"),
        (MAGIC + bytes(4), r"the segment's header was changed \("),
        (MAGIC + (3).to_bytes(4, "big") + b"\xc1\xc1\xc1", r"the segment's header was changed \("),
    ],
)
def test_what_is_no_header_is_told_as_such(data: bytes, words: str) -> None:
    with pytest.raises(JournalDamaged, match=f"^journal stream s, frame 0: {words}"):
        parse_header(data, "s")


def test_the_longest_header_may_come() -> None:
    assert parse_header(MAGIC + (1 << 16).to_bytes(4, "big"), "s") is None
    long = Header("s", "i", 0, NO_TAG, 0.0, bytes((1 << 16) - 100))
    assert parse_segment(long.pack_twice(), "s") == (long, len(long.pack_twice()))
    longer = Header("s", "i", 0, NO_TAG, 0.0, bytes(1 << 16))
    with pytest.raises(JournalDamaged, match="both copies"):
        parse_segment(longer.pack_twice(), "s")


def test_a_header_stands_twice_and_one_copy_is_enough() -> None:
    half = len(TWICE) // 2
    assert TWICE[:12] == b"GMJSEG2\n" + len(BODY).to_bytes(4, "big")
    assert TWICE[:half] == TWICE[half:] == TWICE[:12] + BODY + struct.pack(">I", zlib.crc32(BODY))
    for length in range(len(TWICE) + 1):
        want = (HEADER, len(TWICE)) if length >= half else None
        assert parse_segment(TWICE[:length], "s") == want, length
    for place in range(half):
        first = bytearray(TWICE)
        first[place] ^= 1
        assert parse_segment(bytes(first), "s") == (HEADER, len(TWICE)), place
        both = bytearray(first)
        both[half + place] ^= 1
        with pytest.raises(JournalDamaged, match=r"^journal stream s, frame 0: "):
            parse_segment(bytes(both), "s")


def test_a_copy_is_taken_from_its_own_place_only() -> None:
    """A frame may hold the bytes of a header, another segment's even."""
    spoiled = bytearray(TWICE)
    spoiled[14] ^= 1
    spoiled[14 + len(TWICE) // 2] ^= 1
    with pytest.raises(JournalDamaged, match="both copies of the segment's header were changed"):
        parse_segment(bytes(spoiled) + TWICE, "s")
    body = b"\xc1" * 20
    garbage = (MAGIC_TWICE + len(body).to_bytes(4, "big") + body + struct.pack(">I", zlib.crc32(body))) * 2
    with pytest.raises(JournalDamaged, match="both copies of the segment's header were changed"):
        parse_segment(garbage, "s")


def test_copies_are_the_same_or_not() -> None:
    half = len(TWICE) // 2
    assert same_copies(TWICE + b"frames") is True
    assert same_copies(ONCE) is True
    for place in (0, 9, 20, half - 1, half, half + 9, half + 20, len(TWICE) - 1):
        changed = TWICE[:place] + bytes([TWICE[place] ^ 1]) + TWICE[place + 1 :]
        assert same_copies(changed + b"frames") is False, place
    assert same_copies(TWICE[:-1]) is False
    assert same_copies(b"rubbish") is False
    assert same_copies(b"") is False


def head(length: int, seq: int) -> bytes:
    return FRAME.pack(length, 0, seq)


def found_in(data: bytes) -> list[RawFrame]:
    key: Any = None
    return list(frames_in(data, HEADER, key, 7, NO_TAG, 100))


def test_whole_frames_are_cut_out_and_an_unfinished_one_is_left() -> None:
    least = head(TAG_BYTES, 7) + b"t" * TAG_BYTES
    next_one = head(TAG_BYTES + 2, 8) + b"xy" + b"u" * TAG_BYTES
    frames = found_in(least + next_one)
    assert [(f.seq, f.offset, f.end, f.previous, f.tag) for f in frames] == [
        (7, 100, 132, NO_TAG, b"t" * 16),
        (8, 132, 166, b"t" * 16, b"u" * 16),
    ]
    assert b"".join(f.raw for f in frames) == least + next_one
    for length in range(len(least), len(least + next_one)):
        assert [f.seq for f in found_in((least + next_one)[:length])] == [7], length
    assert found_in(head(FRAME_LIMIT, 7)) == []
    assert found_in(least[:-1]) == found_in(b"") == []


@pytest.mark.parametrize("bad", [head(TAG_BYTES - 1, 8), head(FRAME_LIMIT + 1, 8), head(TAG_BYTES, 9), head(40, 7)])
def test_a_head_of_another_number_or_length_is_damage(bad: bytes) -> None:
    length, _, seq = FRAME.unpack(bad)
    words = (
        f"journal stream server-a, frame 8: expected frame 8 at byte 132 of segment 7, found {seq} of {length} bytes"
    )
    with pytest.raises(JournalDamaged, match=words):
        found_in(head(TAG_BYTES, 7) + bytes(TAG_BYTES) + bad)


@pytest.fixture
def chunk(tmp_path: Path) -> Chunk:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        for number in range(3):
            journal.append_blocking(event(number))
    found = JournalReader(tmp_path, "server-a", cipher(tmp_path)).chunk(0)
    assert found is not None
    return found


def test_a_chunk_names_its_stream_and_its_digest(chunk: Chunk, tmp_path: Path) -> None:
    assert chunk.digest == sha256(chunk.data).hexdigest()
    assert (
        chunk_identity(chunk.data) == chunk.identity == JournalReader(tmp_path, "server-a", cipher(tmp_path)).identity
    )
    assert Cursor.behind(chunk) == Cursor(chunk.identity, 3, chunk.tag.hex())
    assert Cursor("server-a.0") == Cursor("server-a.0", 0, "")
    assert Cursor("server-a.0").previous is None


def begins(chunk: Chunk) -> tuple[int, int]:
    """Lengths of its magic and header, and of all before its first frame."""
    magic = len(chunk.data) - len(chunk.data[chunk.data.index(b"GMJSEG1\n") :])
    header = magic + len(chunk.header.pack())
    return header, header + TAG_BYTES + 8


def test_a_chunk_that_was_cut_says_what_is_missing(chunk: Chunk, tmp_path: Path) -> None:
    header, frames = begins(chunk)

    def opened(data: bytes) -> list[int]:
        return [seq for seq, _ in open_chunk(data, cipher(tmp_path))]

    assert opened(chunk.data) == [0, 1, 2]
    assert opened(chunk.data[:frames]) == [], "the ledger's digest tells that frames were cut off"
    for length in range(header, frames):
        with pytest.raises(Tampered, match=f"was cut: {length} bytes are less than its header"):
            opened(chunk.data[:length])
    for length in (1, 15, 16, 40):
        words = f"^journal stream server-a, frame 0: chunk was cut: {length} bytes of an unfinished frame at its end"
        with pytest.raises(JournalDamaged, match=words):
            opened(chunk.data[: frames + length])
    with pytest.raises(JournalDamaged, match="chunk was cut: 1 bytes"):
        opened(chunk.data + b"\0")


@pytest.mark.parametrize("use", [chunk_identity, lambda data: list(open_chunk(data, None))])  # type: ignore[arg-type]
def test_what_is_no_chunk_is_told_as_such(chunk: Chunk, use: Any) -> None:
    for data in (b"", b"hello", b"\0" + chunk.data, chunk.data[1:]):
        with pytest.raises(Tampered, match=f"expected a journal chunk, found {len(data)} bytes that begin otherwise"):
            use(data)
    place = chunk.data.index(b"GMJSEG1\n")
    with pytest.raises(JournalDamaged, match=r"^journal stream chunk, frame 0: expected a journal segment"):
        use(chunk.data[:place] + b"X" + chunk.data[place + 1 :])
    with pytest.raises(Tampered):
        use(chunk.data[: place + 20])


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("dtype", ["FP32", "FP64", "INT64", "INT8", "BOOL"])
def test_numbers_come_back_row_by_row(dtype: str, width: int) -> None:
    values = [n % 2 for n in range(6 * width)]
    columns = [pack(dtype, width, [values[: 4 * width]], 4), pack(dtype, width, [np.array(values[4 * width :])], 2)]
    whole = pack(dtype, width, [values], 6)
    assert joined(columns) == whole == joined([whole])
    want: list[Any] = values if width == 1 else [values[n : n + width] for n in range(0, len(values), width)]
    assert numbers(whole).tolist() == want


@pytest.mark.parametrize("width", [1, 2])
def test_strings_come_back_row_by_row_whatever_they_came_as(width: int) -> None:
    first, second = ["a", None, b"\xff", "b"] * width, ["c", "b", "a", "a"] * width
    columns = [pack("BYTES", width, [part], 4) for part in (first, second)]
    words = ["a", "", "\ufffd", "b"] * width + second
    want: list[Any] = words if width == 1 else [words[n : n + width] for n in range(0, len(words), width)]
    assert strings(joined(columns)).tolist() == want
    assert joined(columns) == pack("BYTES", width, [first, np.array(second, object)], 8)
    assert sorted(joined(columns).values) == ["", "a", "b", "c", "\ufffd"]


def test_values_that_no_column_holds_are_refused() -> None:
    for parts, words in (
        ([["many"]], r"expected values of INT64 \("),
        ([np.array(["many"], object)], r"expected values of INT64 \("),
        ([[1, 2]], "expected 8 bytes for 1 rows × 1 of INT64, found 16"),
    ):
        with pytest.raises(RecordRefused, match=words):
            pack("INT64", 1, parts, 1)
    with pytest.raises(RecordRefused, match=r"expected values of FP99 \("):
        pack("FP99", 1, [[1]], 1)


def test_a_segment_s_file_is_named_after_its_first_frame(tmp_path: Path) -> None:
    assert segment_path(tmp_path, 42).name == "00000000000000000042.seg"

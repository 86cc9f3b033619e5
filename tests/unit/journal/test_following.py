"""A reader in every situation of a stream: beside a writer, behind what was lost, and between segments."""

import itertools
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from governed_serving.crypto import SegmentKey
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.journal import Chunk, Gap, Journal, JournalDamaged
from governed_serving.journal import reader as reader_module
from governed_serving.journal.format import FRAME, FRAME_LIMIT, NO_TAG, Header, RawFrame, frame_aad
from governed_serving.journal.salvage import Place, heads_in, salvage, whole_end

from .samples import cipher, event
from .test_damage import empty, flip, lose, reader, spoil_header, spooled


def fields(gap: Gap) -> tuple[int, int, int, int, int]:
    """(segment, first frame, last frame, offset, length)"""
    return gap.segment, gap.seq, gap.last_seq, gap.offset, gap.length


def of_segment(spool: Path, segment: Path) -> list[RawFrame]:
    return [frame for frame in reader(spool).frames() if frame.header.first_seq == int(segment.stem)]


# Which stream it is


def test_a_stream_s_identity_is_that_of_any_segment_that_can_be_read(tmp_path: Path) -> None:
    assert (reader(tmp_path).identity, reader(tmp_path).newest_segment, reader(tmp_path).first_seq) == ("", None, None)
    segments = spooled(tmp_path, segment_bytes=700)
    found = reader(tmp_path)
    identity = found.identity
    assert re.fullmatch(r"server-a\.[0-9a-f]{12}", identity)
    assert (found.first_seq, found.newest_segment) == (0, int(segments[-1].stem))
    empty(segments[0])
    assert reader(tmp_path).identity == identity
    segments[0].write_bytes(b"what is this")
    assert reader(tmp_path).identity == identity
    for segment in segments[1:]:
        spoil_header(segment)
    with pytest.raises(JournalDamaged, match="expected a journal segment, found bytes that begin with b'what is '"):
        _ = reader(tmp_path).identity
    with pytest.raises(JournalDamaged, match="expected a journal segment, found bytes that begin with b'what is '"):
        list(reader(tmp_path).frames())


# Chunks


def test_a_chunk_ends_before_a_gap_and_the_gap_comes_next(tmp_path: Path) -> None:
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    for number in (3, 4):
        flip(segment, frames[number].offset + 40)
    source = reader(tmp_path)
    first = source.chunk_or_gap(0)
    assert isinstance(first, Chunk)
    assert (first.first_seq, first.last_seq) == (0, 2)
    gap = source.chunk_or_gap(3)
    assert isinstance(gap, Gap)
    assert fields(gap) == (0, 3, 4, frames[3].offset, frames[5].offset - frames[3].offset)
    assert gap.digest == sha256(segment.read_bytes()[gap.offset : gap.end]).hexdigest()
    rest = source.chunk_or_gap(5)
    assert isinstance(rest, Chunk)
    assert (rest.first_seq, rest.last_seq) == (5, 7)
    assert source.chunk_or_gap(8) is None
    with pytest.raises(JournalDamaged, match=r"frame 3: was changed, or is missing: frames 3 to 4 are unreadable"):
        source.chunk(3)
    chunk = source.chunk(5)
    assert chunk is not None
    assert chunk.first_seq == 5


def test_a_chunk_is_as_long_as_it_may_be_and_of_one_segment(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=1_000)
    frames = of_segment(tmp_path, segments[0])
    assert len(frames) > 2
    two = len(frames[0].raw) + len(frames[1].ciphertext)

    def last(max_bytes: int, upto: int | None = None) -> int:
        found = reader(tmp_path).chunk_or_gap(0, max_bytes, upto=upto)
        assert isinstance(found, Chunk)
        return found.last_seq

    assert (last(two), last(two - 1), last(1), last(1 << 30)) == (1, 0, 0, frames[-1].seq)
    assert (last(1, upto=1), last(1 << 30, upto=0), last(1, upto=99)) == (1, 0, frames[-1].seq)


def foreign(segment: Path, at: int, count: int = 24) -> None:
    data = segment.read_bytes()
    segment.write_bytes(data[:at] + b"\xee" * count + data[at:])


def test_bytes_put_between_frames_are_passed_over_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    for number in (5, 2):
        foreign(segment, frames[number].offset)
    source = reader(tmp_path)
    chunk = source.chunk_or_gap(0)
    assert isinstance(chunk, Chunk)
    assert (chunk.first_seq, chunk.last_seq) == (0, 7)
    assert list(source.foreign) == [(0, frames[2].offset), (0, frames[5].offset + 24)]
    digest = sha256(b"\xee" * 24).hexdigest()
    where = f"bytes {frames[2].offset} to {frames[2].offset + 24} of segment 0"
    assert source.foreign[0, frames[2].offset] == f"foreign bytes lie before frame 2 ({where}, SHA-256 {digest})"
    monkeypatch.setattr(reader_module, "_FOREIGN", 1)
    bounded = reader(tmp_path)
    assert bounded.chunk_or_gap(0) == chunk
    assert list(bounded.foreign) == [(0, frames[2].offset)]


# Between segments


def test_the_tag_of_a_segment_s_last_frame_is_named_by_the_next_segment(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    whole = [(frame.seq, frame.tag) for frame in reader(tmp_path).frames()]
    last = of_segment(tmp_path, segments[0])[-1]
    flip(segments[0], last.end - 3)
    assert [(frame.seq, frame.tag) for frame in reader(tmp_path).frames()] == whole
    flip(segments[0], last.offset + 40)
    (gap,) = (piece for piece in reader(tmp_path).pieces(0) if isinstance(piece, Gap))
    assert fields(gap) == (0, last.seq, last.seq, last.offset, last.end - last.offset)


@pytest.mark.parametrize("harm", [lose, empty, spoil_header])
def test_the_gap_of_a_segment_holds_all_its_bytes(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    first, behind = int(segments[1].stem), int(segments[2].stem)
    place = of_segment(tmp_path, segments[0])[-1].end
    harm(segments[1])
    data = segments[1].read_bytes() if segments[1].exists() else b""
    (gap,) = (piece for piece in reader(tmp_path).pieces(0) if isinstance(piece, Gap))
    if harm is lose:
        assert fields(gap) == (0, first, behind - 1, place, 0)
        assert "nothing is left" in str(gap)
    else:
        assert fields(gap) == (first, first, behind - 1, 0, len(data))
    assert gap.digest == sha256(data).hexdigest()
    why = {lose: "", empty: "its header is missing", spoil_header: "both copies of the segment's header were changed"}
    assert gap.why == why[harm]


def test_segments_of_another_stream_of_that_name_do_not_join(tmp_path: Path) -> None:
    segments = spooled(tmp_path / "one", segment_bytes=700)
    keys = cipher(tmp_path / "one")
    with Journal(tmp_path / "two", "server-a", keys, "PageCache", segment_bytes=700) as journal:
        for number in range(8):
            journal.append_blocking(event(number, 200))
    other = sorted((tmp_path / "two" / "journal" / "server-a").glob("*.seg"))
    assert [path.name for path in other] == [path.name for path in segments]
    segments[1].write_bytes(other[1].read_bytes())
    words = f"frame {int(segments[1].stem)}: is missing or was changed: segment 0 doesn't lead to segment"
    with pytest.raises(JournalDamaged, match=words):
        list(reader(tmp_path / "one").pieces(0))


def beside(monkeypatch: pytest.MonkeyPatch, turn: int, act: Callable[[], object]) -> None:
    """``act`` comes before the reader lists the segments for that time (from 0 on)."""
    real, turns = reader_module.segments, itertools.count()

    def listed(folder: Path) -> list[int]:
        if next(turns) == turn:
            act()
        return real(folder)

    monkeypatch.setattr(reader_module, "segments", listed)


@pytest.mark.parametrize("rolls", [False, True])
def test_what_a_writer_adds_while_a_reader_is_at_the_end_is_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolls: bool
) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:

        def add() -> None:
            for _ in range(2):
                journal.append_blocking(event(0))
            if rolls:
                journal.roll()
                journal.append_blocking(event(0))

        add()
        beside(monkeypatch, 1, add)  # the first time it looks for its place, the second for the next segment
        source = reader(tmp_path)
        seen = [piece.seq for piece in source.pieces(0)]
        assert seen == list(range(6 if rolls else 2))
        assert [piece.seq for piece in source.pieces(len(seen))] == list(range(len(seen), 6 if rolls else 4))


def test_frames_added_while_a_reader_works_on_the_last_one_are_read_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        for _ in range(3):
            journal.append_blocking(event(0))
        for start in (0, 7):
            pieces = reader(tmp_path).pieces(start)
            seen = []
            for piece in pieces:
                seen.append(piece.seq)
                if len(seen) == 3 and start == 0:
                    for _ in range(6):
                        journal.append_blocking(event(0))
            assert seen == list(range(start, 9))


def test_a_reader_whose_segment_was_trimmed_begins_with_the_oldest_left(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    source = reader(tmp_path)
    place = of_segment(tmp_path, segments[0])[-1].seq
    pieces = source.pieces(0)
    for _ in range(place + 1):
        next(pieces)
    segments[0].unlink()
    behind = int(segments[1].stem)
    assert [piece.seq for piece in source.pieces(behind)] == list(range(behind, 8))


@pytest.mark.parametrize(
    ("tail", "torn"),
    [
        (FRAME.pack(TAG_BYTES, 0, 8), True),
        (FRAME.pack(FRAME_LIMIT, 0, 8) + b"and some of it", True),
        (FRAME.pack(TAG_BYTES, 0, 8)[:-1], True),
        (b"\xee" * (FRAME.size - 1), True),
        (b"\xee" * FRAME.size, False),
        (FRAME.pack(TAG_BYTES - 1, 0, 8), False),
        (FRAME.pack(FRAME_LIMIT + 1, 0, 8), False),
        (FRAME.pack(TAG_BYTES, 0, 9), False),
        (FRAME.pack(TAG_BYTES, 0, 8) + bytes(TAG_BYTES), False),
    ],
)
def test_an_end_that_may_still_grow_is_waited_for_and_another_is_damage(
    tmp_path: Path, tail: bytes, torn: bool
) -> None:
    (segment,) = spooled(tmp_path)
    end = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + tail)
    source = reader(tmp_path)
    if torn:
        assert [piece.seq for piece in source.pieces(0)] == list(range(8))
        return
    words = f"frame 8: was changed, or the frame before it isn't the one it follows (segment 0, byte {end})"
    with pytest.raises(JournalDamaged, match=re.escape(words)):
        list(source.pieces(0))


# What can be salvaged

KEY = SegmentKey(b"k" * 32)
HEADER = Header("server-a", "0123456789ab", 5, NO_TAG, 0.0, b"")
AT = 1000
"""Where the bytes lie in their segment."""


def sealed(seq: int, text: bytes, previous: bytes, attempt: int = 0) -> bytes:
    ciphertext = KEY.seal(attempt, seq, text, frame_aad(HEADER, seq, previous))
    return FRAME.pack(len(ciphertext), attempt, seq) + ciphertext


def chained(*texts: bytes, attempt: int = 0) -> list[bytes]:
    """Frames from 5 on."""
    frames: list[bytes] = []
    for number, text in enumerate(texts):
        frames.append(sealed(5 + number, text, frames[-1][-TAG_BYTES:] if frames else NO_TAG, attempt))
    return frames


def salvaged(data: bytes, successor: bytes | None = None) -> tuple[int, int, int, bytes] | tuple[int, int, int] | None:
    """(number, offset, end, plaintext) of a frame, (first, last, end) of a gap."""
    found = salvage(data, Place(HEADER, KEY, 5, NO_TAG, AT), successor)
    if isinstance(found, Gap):
        assert (found.stream, found.identity, found.segment) == ("server-a", "server-a.0123456789ab", 5)
        assert found.digest == sha256(data[: found.length]).hexdigest()
        assert (found.offset, found.frames) == (AT, found.last_seq + 1 - found.seq)
        return found.seq, found.last_seq, found.end - AT
    return (found.seq, found.offset - AT, found.end - AT, found.open()) if found else None


@pytest.mark.parametrize("attempt", range(5))
def test_a_frame_whose_head_is_gone_is_found_by_its_few_first_attempts(attempt: int) -> None:
    first, second = chained(b"one", b"two", attempt=attempt)
    spoiled = b"\xff" * FRAME.size + first[FRAME.size :]
    end = len(first)
    assert salvaged(spoiled + second) == ((5, 0, end, b"one") if attempt < 4 else (5, 5, end))
    assert salvaged(spoiled) == ((5, 0, end, b"one") if attempt < 4 else None)
    told = FRAME.pack(0, attempt, 99) + first[FRAME.size :]
    assert salvaged(told) == (5, 0, end, b"one")


@pytest.mark.parametrize("text", [b"", b"x"])
def test_the_shortest_frame_is_one(text: bytes) -> None:
    (frame,) = chained(text)
    assert salvaged(b"\xff" * FRAME.size + frame[FRAME.size :]) == (5, 0, len(frame), text)
    assert salvaged((b"\xff" * FRAME.size + frame[FRAME.size :])[:-1]) is None
    assert salvaged(frame[: FRAME.size + TAG_BYTES - 1]) is None
    assert salvaged(frame[: FRAME.size - 1]) is salvaged(b"") is None


def test_a_changed_tag_is_made_again_where_what_follows_names_it() -> None:
    first, second = chained(b"one", b"two")
    spoiled = first[:-1] + bytes([first[-1] ^ 1])
    assert salvaged(spoiled + second) == (5, 0, len(first), b"one")
    assert salvaged(spoiled) is None
    assert salvaged(spoiled, first[-TAG_BYTES:]) == (5, 0, len(first), b"one")
    assert salvaged(spoiled, bytes(TAG_BYTES)) is salvaged(spoiled, spoiled[-TAG_BYTES:]) is None
    assert salvaged(spoiled + b"more", first[-TAG_BYTES:]) is None, "the frame before the next segment is another one"
    other = sealed(6, b"two", b"o" * TAG_BYTES)
    assert salvaged(spoiled + other) is None


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_behind_frames_that_are_lost_the_next_one_is_found(lost: int) -> None:
    frames = chained(*[b"text %d" % n for n in range(5)])
    size = sum(map(len, frames[:lost]))
    rubbish = b"\xee" * (size - TAG_BYTES) + frames[lost - 1][-TAG_BYTES:]
    assert salvaged(rubbish + b"".join(frames[lost:])) == (5, 4 + lost, size)
    assert salvaged(b"\xee" * size + b"".join(frames[lost:])) == (5, 5 + lost, size + len(frames[lost]))


def test_bytes_before_a_frame_make_no_frame_of_a_gap() -> None:
    first, second = chained(b"one", b"two")
    assert salvaged(b"\xee" * 40 + first + second) == (5, 4, 40)
    assert salvaged(b"\xee" * TAG_BYTES + first + second) == (5, 4, TAG_BYTES)
    assert str(salvage(b"\xee" * 40 + first, Place(HEADER, KEY, 5, NO_TAG, AT))).startswith(
        "foreign bytes lie before frame 5 (bytes 1000 to 1040 of segment 5, SHA-256 "
    )


@pytest.mark.parametrize(
    ("seqs", "data", "why", "words"),
    [
        ((5, 6), b"x", "", "frame 5 is unreadable (bytes 1000 to 1001 of segment 5, SHA-256 {})"),
        ((5, 7), b"xy", "", "frames 5 to 6 are unreadable (bytes 1000 to 1002 of segment 5, SHA-256 {})"),
        ((5, 8), b"", "it is lost", "frames 5 to 7 are unreadable (nothing is left, SHA-256 {}): it is lost"),
    ],
)
def test_a_gap_says_what_it_is(seqs: tuple[int, int], data: bytes, why: str, words: str) -> None:
    gap = Gap.of(("server-a", "0123"), seqs, (5, AT), data, tag=b"t", why=why)
    assert str(gap) == words.format(sha256(data).hexdigest())
    assert (gap.stream, gap.identity, gap.tag, gap.end) == ("server-a", "server-a.0123", b"t", AT + len(data))
    assert (gap.clipped(4), gap.clipped(6).seq, gap.clipped(6).last_seq) == (gap, 6, seqs[1] - 1)


def test_a_whole_frame_ends_where_its_head_says() -> None:
    data = b"##" + FRAME.pack(TAG_BYTES, 3, 5) + bytes(TAG_BYTES)
    assert whole_end(data, 2, 5) == whole_end(data + b"more", 2, 5) == len(data)
    assert [whole_end(data[:n], 2, 5) for n in range(len(data))] == [None] * len(data)
    assert whole_end(data, 2, 6) is whole_end(b"##" + FRAME.pack(TAG_BYTES - 1, 3, 5) + bytes(99), 2, 5) is None


def test_heads_are_counted_in_their_order() -> None:
    rubbish = b"\xee" * 40
    frames = chained(b"one", b"two", b"three")
    assert heads_in(rubbish + b"".join(frames), 5) == 3
    assert heads_in(rubbish + frames[0] + frames[2], 5) == 1
    assert heads_in(rubbish + b"".join(frames), 6) == 2
    assert heads_in(rubbish + b"".join(frames)[:-1], 5) == 2
    assert heads_in(rubbish, 5) == heads_in(b"", 5) == 0
    assert heads_in(bytes(TAG_BYTES) + frames[0], 5) == 1
    assert heads_in(bytes(TAG_BYTES - 1) + frames[0], 5) == 0, "a header is longer"

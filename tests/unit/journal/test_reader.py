"""Following, shipping, trimming; and every harm to a stream is noticed and named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.crypto import CryptoError, Tampered, is_sealed
from governed_serving.journal import Cursor, CursorFiles, Journal, JournalDamaged, JournalReader, open_chunk, streams
from governed_serving.journal.segment import SegmentFile, recover
from governed_serving.records import PredictionFrame

from .samples import cipher, event, prediction


def reader(spool: Path) -> JournalReader:
    return JournalReader(spool, "server-a", cipher(spool))


def cursors(spool: Path) -> CursorFiles[Cursor]:
    return CursorFiles(spool / "cursors", Cursor)


def fill(spool: Path, frames: int, stream: str = "server-a", first: int = 0) -> list[Path]:
    """A stream of ``frames`` events of about 1 KB in segments of about 4; returns the segments."""
    with Journal(spool, stream, cipher(spool), "PageCache", segment_bytes=4_000) as journal:
        for number in range(first, first + frames):
            journal.append_blocking(event(number, 1_000))
    return sorted((spool / "journal" / stream).glob("*.seg"))


def numbers_of(spool: Path, start: int = 0) -> list[int]:
    return [seq for seq, _ in reader(spool).read(start)]


def test_an_empty_spool_has_no_streams(tmp_path: Path):
    assert streams(tmp_path) == []
    assert list(reader(tmp_path).read()) == []
    assert reader(tmp_path).chunk(0) is None


def test_a_reader_follows_a_writer_across_segments_and_restarts(tmp_path: Path):
    following = reader(tmp_path)
    seen: list[int] = []
    for round_ in range(4):
        with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", segment_bytes=3_000) as journal:
            for number in range(5):
                journal.append_blocking(event(10 * round_ + number, 1_000))
                seen += [seq for seq, _ in following.read(len(seen))]
    assert seen == list(range(20))
    assert streams(tmp_path) == ["server-a"]


@pytest.mark.parametrize("start", [0, 1, 7, 11, 12])
def test_reading_may_start_anywhere(tmp_path: Path, start: int):
    fill(tmp_path, 12)
    assert numbers_of(tmp_path, start) == list(range(start, 12))


def test_going_back_is_possible(tmp_path: Path):
    fill(tmp_path, 12)
    same = reader(tmp_path)
    assert [s for s, _ in same.read()] == list(range(12))
    assert next(same.frames(3)).seq == 3
    assert next(same.frames(9)).record().id == "event-9"  # type: ignore[union-attr]
    assert [s for s, _ in same.read(5)] == list(range(5, 12))
    assert next(same.frames(12), None) is None


def test_chunks_cover_the_stream_and_open_alone(tmp_path: Path):
    fill(tmp_path, 12)
    source, shipped, place = reader(tmp_path), [], 0
    while (chunk := source.chunk(place, max_bytes=2_500)) is not None:
        assert is_sealed(chunk.data[:8])
        assert chunk.identity == source.identity
        opened = list(open_chunk(chunk.data, cipher(tmp_path)))
        assert [r for _, r in opened] == chunk.records
        shipped += [seq for seq, _ in opened]
        place = chunk.last_seq + 1
    assert shipped == list(range(12))


@pytest.mark.parametrize("place", [4, 60, 100, 300, 900, -1])
def test_a_changed_or_cut_chunk_is_refused(tmp_path: Path, place: int):
    fill(tmp_path, 3)
    chunk = reader(tmp_path).chunk(0)
    assert chunk is not None
    data = bytearray(chunk.data)
    data[place] ^= 1
    for harmed in (bytes(data), chunk.data[:place]):
        with pytest.raises((JournalDamaged, CryptoError)):
            list(open_chunk(harmed, cipher(tmp_path)))


def test_something_else_is_no_chunk(tmp_path: Path):
    with pytest.raises(Tampered, match="expected a journal chunk"):
        list(open_chunk(b"hello world", cipher(tmp_path)))


def test_a_cursor_remembers_and_trimming_keeps_the_rest(tmp_path: Path):
    fill(tmp_path, 12)
    source = reader(tmp_path)
    assert cursors(tmp_path).load("server-a", source.identity) is None
    chunk = source.chunk(0)
    assert chunk is not None
    cursors(tmp_path).save("server-a", Cursor.behind(chunk))
    assert source.trim(chunk.last_seq + 1) > 0
    again = reader(tmp_path)
    cursor = cursors(tmp_path).load("server-a", again.identity)
    assert cursor is not None
    assert cursor.frame == chunk.last_seq + 1 == again.first_seq
    assert [f.seq for f in again.frames(cursor.frame, cursor.previous)] == list(range(cursor.frame, 12))


def test_a_followers_own_cursor_keeps_what_it_adds(tmp_path: Path):
    class Numbered(Cursor, frozen=True):
        number: int = 0

    files = CursorFiles(tmp_path / "cursors", Numbered, "numbered-")
    files.save("server-a", Numbered("server-a.0", 3, "ab" * 16, number=7))
    assert files.load("server-a", "server-a.0") == Numbered("server-a.0", 3, "ab" * 16, number=7)
    assert files.load("server-b", "server-b.0") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"next": 3}', b'{"identity": "server-a.0", "frame": "3"}', b"\xff"]
)
def test_a_cursor_that_cant_be_read_is_named_not_guessed(tmp_path: Path, content: bytes):
    (tmp_path / "cursors").mkdir()
    (tmp_path / "cursors" / "server-a").write_bytes(content)
    with pytest.raises(JournalDamaged, match=r"its cursor .*server-a can't be read .*remove it to begin anew"):
        cursors(tmp_path).load("server-a", "server-a.0")


def test_the_segment_being_written_is_never_trimmed(tmp_path: Path):
    segments = fill(tmp_path, 12)
    reader(tmp_path).trim(1_000)
    assert segments[-1].exists()
    assert not any(s.exists() for s in segments[:-1])
    assert fill(tmp_path, 1, first=12)
    assert numbers_of(tmp_path)[-1] == 12


def harm_flip(segments: list[Path]) -> None:
    data = bytearray(segments[1].read_bytes())
    data[-40] ^= 1
    segments[1].write_bytes(data)


def harm_cut_middle_segment(segments: list[Path]) -> None:
    segments[1].unlink()


def harm_cut_end_of_segment(segments: list[Path]) -> None:
    data = segments[1].read_bytes()
    segments[1].write_bytes(data[: len(data) // 2])


def harm_swap_segments(segments: list[Path]) -> None:
    one, two = segments[0].read_bytes(), segments[1].read_bytes()
    segments[0].write_bytes(two)
    segments[1].write_bytes(one)


def harm_header(segments: list[Path]) -> None:
    data = bytearray(segments[1].read_bytes())
    for place in (60, 60 + data.find(b"GMJSEG2", 1)):  # it stands there twice
        data[place] ^= 1
    segments[1].write_bytes(data)


def harm_drop_frame(segments: list[Path]) -> None:
    spool = segments[0].parents[2]
    frames = [f for f in reader(spool).frames() if f.header.first_seq == int(segments[1].stem)]
    data = segments[1].read_bytes()
    segments[1].write_bytes(data[: frames[0].offset] + data[frames[1].offset :])


def harm_reorder_frames(segments: list[Path]) -> None:
    spool = segments[0].parents[2]
    frames = [f for f in reader(spool).frames() if f.header.first_seq == int(segments[1].stem)]
    data = segments[1].read_bytes()
    a, b = frames[0], frames[1]
    segments[1].write_bytes(data[: a.offset] + data[b.offset : b.end] + data[a.offset : a.end] + data[b.end :])


def harm_double_frame(segments: list[Path]) -> None:
    spool = segments[0].parents[2]
    frame = next(f for f in reader(spool).frames() if f.header.first_seq == int(segments[1].stem))
    data = segments[1].read_bytes()
    segments[1].write_bytes(data[: frame.end] + data[frame.offset :])


HARMS = [v for k, v in sorted(globals().items()) if k.startswith("harm_")]


@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_noticed_and_named(tmp_path: Path, harm: Callable[[list[Path]], None]):
    segments = fill(tmp_path, 12)
    first, following = int(segments[1].stem), int(segments[2].stem)
    harm(segments)
    with pytest.raises(JournalDamaged, match="journal stream server-a, frame ") as caught:
        numbers_of(tmp_path)
    assert 0 <= caught.value.seq <= following
    if harm is not harm_swap_segments:
        assert caught.value.seq >= first
    assert "\n" not in str(caught.value)


def test_a_segment_of_another_stream_is_not_taken(tmp_path: Path):
    mine, theirs = fill(tmp_path, 12), fill(tmp_path, 12, stream="server-b")
    shutil.copy(theirs[1], mine[1])
    with pytest.raises(JournalDamaged, match="of stream server-b, put into another's place"):
        numbers_of(tmp_path)


def test_an_older_copy_of_the_stream_is_noticed_by_the_cursor(tmp_path: Path):
    fill(tmp_path, 6)
    shutil.copytree(tmp_path / "journal" / "server-a", tmp_path / "older")
    fill(tmp_path, 6, first=6)
    cursors(tmp_path).save("server-a", Cursor.behind(next(reader(tmp_path).frames(11))))
    shutil.rmtree(tmp_path / "journal" / "server-a")
    shutil.copytree(tmp_path / "older", tmp_path / "journal" / "server-a")
    again = reader(tmp_path)
    cursor = cursors(tmp_path).load("server-a", again.identity)
    assert cursor is not None
    with pytest.raises(
        JournalDamaged, match="frame 6: is missing: the stream ends here, but was read up to frame 12 before"
    ):
        list(again.frames(cursor.frame, cursor.previous))
    fill(tmp_path, 6, first=20)  # and a fork of the same length
    with pytest.raises(JournalDamaged, match="frame 11: isn't the one that was read before"):
        list(reader(tmp_path).frames(cursor.frame, cursor.previous))


def test_a_stream_made_anew_under_an_old_name_is_another_one(tmp_path: Path):
    fill(tmp_path, 3)
    source = reader(tmp_path)
    before = source.identity
    cursors(tmp_path).save("server-a", Cursor.behind(next(source.frames(2))))
    shutil.rmtree(tmp_path / "journal")
    fill(tmp_path, 5)
    assert reader(tmp_path).identity != before
    assert cursors(tmp_path).load("server-a", before) is not None
    assert cursors(tmp_path).load("server-a", reader(tmp_path).identity) is None


def test_a_lost_key_is_named(tmp_path: Path):
    fill(tmp_path, 3)
    shutil.rmtree(tmp_path / "keysets")
    with pytest.raises(CryptoError, match="'journal' keyset"):
        numbers_of(tmp_path)


def test_frames_longer_than_a_read_block_come_through(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        for number, size in enumerate((10, 9 << 20, 10)):
            journal.append_blocking(event(number, size))
    assert [len(r.body) for _, r in reader(tmp_path).read()] == [10, 9 << 20, 10]  # type: ignore[union-attr]


def test_a_big_group_is_complete(tmp_path: Path):
    import asyncio

    async def run() -> None:
        with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache", max_waiting=10_000) as journal:
            await asyncio.gather(*[journal.append(prediction(n)) for n in range(9_000)])

    asyncio.run(run())
    frames = [f for _, f in reader(tmp_path).read() if isinstance(f, PredictionFrame)]
    assert [i for f in frames for i in f.ids] == [f"request-{n}" for n in range(9_000)]


def test_a_reader_that_waits_in_a_segment_which_is_made_anew_goes_on(tmp_path: Path):
    fill(tmp_path, 3)
    following = reader(tmp_path)
    assert [s for s, _ in following.read()] == [0, 1, 2]
    chain, _ = recover(tmp_path / "journal" / "server-a", "server-a", cipher(tmp_path))
    SegmentFile(
        tmp_path / "journal" / "server-a", "server-a", chain, cipher(tmp_path)
    ).close()  # killed before its first frame
    assert list(following.read(3)) == []
    fill(tmp_path, 2, first=3)
    assert [s for s, _ in following.read(3)] == [3, 4]


def test_a_slow_reader_goes_on_with_the_oldest_frame_that_is_left(tmp_path: Path):
    fill(tmp_path, 12)
    slow, quick = reader(tmp_path), reader(tmp_path)
    frames = slow.frames()
    next(frames)
    quick.trim(12)
    rest = [f.seq for f in frames]
    assert rest == list(range(1, 1 + len(rest)))
    oldest = slow.first_seq
    assert oldest is not None
    assert [s for s, _ in slow.read(1)] == list(range(oldest, 12))

"""One changed byte, or a lost file: what can be read is read, the rest is named, and nobody is held up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.journal import Gap, Journal, JournalDamaged, JournalReader, quarantine
from governed_serving.journal import segment as segment_module
from governed_serving.journal.format import MAGIC_TWICE, Header, RawFrame

from .samples import cipher, event

FRAMES = 8


def spooled(spool: Path, frames: int = FRAMES, segment_bytes: int = 1 << 20) -> list[Path]:
    """A stream of acknowledged frames; its segments."""
    with Journal(spool, "server-a", cipher(spool), "PageCache", segment_bytes=segment_bytes) as journal:
        for number in range(frames):
            journal.append_blocking(event(number, 200))
    return sorted((spool / "journal" / "server-a").glob("*.seg"))


def reader(spool: Path) -> JournalReader:
    return JournalReader(spool, "server-a", cipher(spool))


def flip(path: Path, place: int, by: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= by
    path.write_bytes(data)


def read(spool: Path) -> tuple[list[int], list[Gap]]:
    """Numbers that are read, and gaps; each record must be the one that was written under its number."""
    found: list[int] = []
    gaps: list[Gap] = []
    for piece in reader(spool).pieces(0):
        if isinstance(piece, Gap):
            gaps.append(piece)
        else:
            assert piece.record().id == f"event-{piece.seq}"  # type: ignore[union-attr]
            found.append(piece.seq)
    return found, gaps


def restarted(spool: Path) -> tuple[list[int], list[Gap]]:
    """:func:`read` once a writer has been started again and has written one more record."""
    with Journal(spool, "server-a", cipher(spool), "PageCache") as journal:
        seq = journal.append_blocking(event(FRAMES)).seq
    assert seq == FRAMES, "a number that was given out was given out again"
    return read(spool)


def accounted(found: list[int], gaps: list[Gap]) -> bool:
    """Every frame was read or named, once."""
    named = [n for gap in gaps for n in range(gap.seq, gap.last_seq + 1)]
    return sorted(found + named) == list(range(FRAMES + 1))


PLACES = {
    "length": lambda f: range(f.offset, f.offset + 4),
    "attempt": lambda f: range(f.offset + 4, f.offset + 8),
    "number": lambda f: range(f.offset + 8, f.offset + 16),
    "ciphertext": lambda f: range(f.offset + 16, f.end - 16, 37),
    "tag": lambda f: range(f.end - 16, f.end),
}


@pytest.mark.parametrize("which", [0, 3, FRAMES - 1])
@pytest.mark.parametrize("part", PLACES)
def test_a_changed_byte_of_a_frame_costs_that_frame_at_most(tmp_path: Path, part: str, which: int):
    (segment,) = spooled(tmp_path)
    frame = list(reader(tmp_path).frames())[which]
    pristine = segment.read_bytes()
    for place in PLACES[part](frame):
        for file in segment.parent.iterdir():
            if file.name != ".lock" and file != segment:
                file.unlink()
        segment.write_bytes(pristine)
        mark(segment, frame.header.identity)
        flip(segment, place, 0x81)
        found, gaps = restarted(tmp_path)
        assert accounted(found, gaps), (place, found, gaps)
        lost = [gap.seq for gap in gaps]
        last_tag = part == "tag" and which == FRAMES - 1  # nothing names the tag that it had
        assert lost == ([which] if part == "ciphertext" or last_tag else [])


def mark(segment: Path, identity: str) -> None:
    from governed_serving.journal.acknowledged import MarkFile

    MarkFile(segment.parent).write(identity, FRAMES)


def test_a_changed_byte_anywhere_in_a_segments_header_costs_nothing(tmp_path: Path):
    (segment,) = spooled(tmp_path)
    pristine = segment.read_bytes()
    start = next(iter(reader(tmp_path).frames())).offset
    for place in range(0, start, 3):
        segment.write_bytes(pristine)
        flip(segment, place)
        assert read(tmp_path) == (list(range(FRAMES)), []), place


def test_a_segment_of_version_1_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Header, "pack_twice", Header.pack)
    (old,) = spooled(tmp_path)
    assert not old.read_bytes().startswith(MAGIC_TWICE)
    monkeypatch.undo()
    assert restarted(tmp_path) == (list(range(FRAMES + 1)), [])


def lose(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_header(path: Path) -> None:
    for place in (60, 60 + path.read_bytes().find(MAGIC_TWICE, 1)):
        flip(path, place)


def zero_page(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:700] + bytes(300) + data[1000:])


@pytest.mark.parametrize("harm", [lose, empty, halve, spoil_header, zero_page])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_harmed_segment_is_named_and_the_others_are_read(tmp_path: Path, harm: Callable[[Path], None], which: int):
    segments = spooled(tmp_path, segment_bytes=700)
    assert len(segments) >= 3
    harm(segments[which])
    found, gaps = restarted(tmp_path)
    assert accounted(found, gaps)
    first = int(segments[which].stem)
    behind = int(segments[which + 1].stem) if which >= 0 else FRAMES
    assert gaps
    assert all(first <= gap.seq and gap.last_seq < behind for gap in gaps)


def test_two_writers_later_the_gap_is_the_same(tmp_path: Path):
    (segment,) = spooled(tmp_path)
    flip(segment, list(reader(tmp_path).frames())[3].offset + 40)
    _, gaps = restarted(tmp_path)
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache"):
        assert read(tmp_path)[1] == gaps


def test_readers_go_on_behind_a_gap_from_a_cursor_in_it_or_behind_it(tmp_path: Path):
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    for place in (3, 4, 5):
        flip(segment, frames[place].offset + 40)
    restarted(tmp_path)
    for start, want in ((3, (3, 5)), (4, (4, 5)), (5, (5, 5))):
        gap = next(iter(reader(tmp_path).pieces(start)))
        assert isinstance(gap, Gap)
        assert (gap.seq, gap.last_seq) == want
    assert [p.seq for p in reader(tmp_path).pieces(6)] == [6, 7, 8]


def test_a_reader_beside_a_live_writer_goes_on(tmp_path: Path):
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        for number in range(4):
            journal.append_blocking(event(number))
        source = reader(tmp_path)
        last = list(source.pieces(0))[-1]
        assert isinstance(last, RawFrame)
        (path,) = journal.folder.glob("*.seg")
        flip(path, last.offset + 30)
        with pytest.raises(JournalDamaged, match="frame 3: was changed"):
            list(source.pieces(3))  # nothing behind it authenticates: its writer may be at it
        journal.append_blocking(event(4))
        (gap, frame) = source.pieces(3)
        assert isinstance(gap, Gap)
        assert (gap.seq, gap.last_seq, frame.seq) == (3, 3, 4)


def test_the_tag_of_a_frame_that_was_read_before_may_change(tmp_path: Path):
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    flip(segment, frames[3].end - 1)
    assert [p.seq for p in reader(tmp_path).pieces(4, frames[3].tag)] == [4, 5, 6, 7]
    with pytest.raises(JournalDamaged, match="isn't the one that was read before"):
        list(reader(tmp_path).pieces(4, frames[2].tag))


def test_planted_heads_are_not_taken_for_frames(tmp_path: Path):
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    data = segment.read_bytes()
    planted = b"".join((24).to_bytes(4, "big") + bytes(4) + n.to_bytes(8, "big") + bytes(24) for n in range(3, 200))
    segment.write_bytes(
        data[: frames[2].offset] + planted[: frames[5].offset - frames[2].offset] + data[frames[5].offset :]
    )
    found, gaps = restarted(tmp_path)
    assert accounted(found, gaps)
    assert set(found) >= {0, 1, 6, 7, 8}


def test_what_was_damaged_is_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    segments = spooled(tmp_path, segment_bytes=700)
    for segment in segments[:3]:
        spoil_header(segment)
    _, gaps = restarted(tmp_path)
    folder = segments[0].parent
    monkeypatch.setattr(segment_module, "QUARANTINED", 2)
    names = [quarantine(folder, gap) for gap in gaps]
    assert [bool(name) for name in names] == [True, True, False]
    assert (folder / names[0]).read_bytes() == segments[0].read_bytes()
    assert quarantine(folder, gaps[0]) == names[0]
    source = reader(tmp_path)
    source.trim(FRAMES + 1)
    assert (folder / names[0]).exists()
    assert source.identity.startswith("server-a.")
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        assert journal.stats.spool_bytes < 4_000

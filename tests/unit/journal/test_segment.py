"""Segments on a disk that fails, and what a writer finds when it starts again."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from governed_serving.journal import Gap, Journal, JournalDamaged, JournalReader, quarantine
from governed_serving.journal import segment as segment_module
from governed_serving.journal.acknowledged import MarkFile
from governed_serving.journal.format import NO_TAG, RawFrame
from governed_serving.journal.segment import Chain, SegmentFile, recover, segment_path, write_probe

from .samples import cipher, event
from .test_damage import empty, flip, lose, reader, spoil_header, spooled

FAILED = OSError(errno.EIO, "the disk is gone")


def failing(*_: Any) -> Any:
    raise FAILED


def recovered(spool: Path, stream: str = "server-a") -> tuple[Chain, int]:
    return recover(spool / "journal" / stream, stream, cipher(spool))


def began(spool: Path) -> SegmentFile:
    """A stream's first segment, with two frames."""
    folder = spool / "journal" / "server-a"
    folder.mkdir(parents=True)
    file = SegmentFile(folder, "server-a", Chain("0123456789ab", 0, NO_TAG), cipher(spool), durable=False)
    assert [file.append(b"one").seq, file.append(b"two").seq] == [0, 1]
    return file


def test_a_failed_fsync_at_the_end_is_told_to_whoever_asks_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = began(tmp_path)
    file.sync()
    monkeypatch.setattr(segment_module.os, "fdatasync", failing)
    file.close(sync=True)
    with pytest.raises(OSError, match="the disk is gone"):
        file.sync()
    file.close(sync=True)


def test_a_segment_that_was_closed_whole_has_nothing_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = began(tmp_path)
    monkeypatch.setattr(segment_module.os, "fdatasync", failing)
    file.close()
    file.sync()


def test_a_segment_whose_header_can_not_be_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, chain = cipher(tmp_path), Chain("0123456789ab", 0, NO_TAG)
    monkeypatch.setattr(segment_module.os, "fsync", failing)
    handles = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="the disk is gone"):
        SegmentFile(tmp_path, "server-a", chain, keys)
    assert list(tmp_path.glob("*.seg")) == []
    assert len(os.listdir("/proc/self/fd")) == handles
    SegmentFile(tmp_path, "server-a", chain, keys, durable=False).close()


@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_disk_that_takes_a_part_at_a_time_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    real = os.pwrite
    monkeypatch.setattr(segment_module.os, "pwritev", lambda fd, parts, at: real(fd, b"".join(parts)[:most], at))
    monkeypatch.setattr(segment_module.os, "pwrite", lambda fd, data, at: real(fd, data[:most], at))
    file = began(tmp_path)
    assert file.end == file.path.stat().st_size
    assert [frame.open() for frame in reader(tmp_path).frames()] == [b"one", b"two"]


def test_a_frame_that_could_not_be_written_uses_up_its_nonce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = began(tmp_path)
    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(segment_module.os, "pwritev", failing)
            with pytest.raises(OSError, match="the disk is gone"):
                file.append(b"lost")
    assert (file.append(b"three").seq, file.broken) == (2, False)
    assert [(frame.seq, frame.attempt) for frame in reader(tmp_path).frames()] == [(0, 0), (1, 0), (2, 2)]


# A probe of the disk


@pytest.mark.parametrize("durable", [False, True])
def test_a_probe_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    probe, synced, handles = tmp_path / ".probe", [], len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(segment_module.os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    write_probe(probe, 4096, durable=durable)
    assert synced == ([4096] if durable else [])
    monkeypatch.setattr(segment_module.os, "pwritev", lambda *_: 4095)
    with pytest.raises(OSError, match="No space left on device") as told:
        write_probe(probe, 4096, durable=durable)
    assert told.value.errno == errno.ENOSPC
    assert not probe.exists()
    assert len(os.listdir("/proc/self/fd")) == handles


# Starting again


def test_without_a_segment_the_mark_says_how_many_frames_are_lost(tmp_path: Path) -> None:
    folder = tmp_path / "journal" / "server-a"
    folder.mkdir(parents=True)
    chain, torn = recovered(tmp_path)
    assert (chain, torn) == (Chain(chain.identity, 0, NO_TAG, 0), 0)
    assert len(chain.identity) == 12
    assert recovered(tmp_path)[0].identity != chain.identity
    MarkFile(folder).write("0123456789ab", 7)
    assert recovered(tmp_path) == (Chain("0123456789ab", 7, NO_TAG, 7), 0)


def test_a_whole_stream_goes_on_behind_its_last_frame(tmp_path: Path) -> None:
    spooled(tmp_path)
    last = list(reader(tmp_path).frames())[-1]
    assert recovered(tmp_path) == (Chain(last.header.identity, 8, last.tag, 0), 0)


@pytest.mark.parametrize("told", [8, 9, 10])
def test_acknowledged_frames_that_are_gone_are_counted(tmp_path: Path, told: int) -> None:
    (segment,) = spooled(tmp_path)
    last = list(reader(tmp_path).frames())[-1]
    MarkFile(segment.parent).write(last.header.identity, told)
    want = Chain(last.header.identity, told, NO_TAG, told - 8) if told > 8 else Chain(last.header.identity, 8, last.tag)
    assert recovered(tmp_path) == (want, 0)


def test_a_mark_of_another_stream_says_nothing(tmp_path: Path) -> None:
    (segment,) = spooled(tmp_path)
    last = list(reader(tmp_path).frames())[-1]
    MarkFile(segment.parent).write("ba9876543210", 99)
    assert recovered(tmp_path) == (Chain(last.header.identity, 8, last.tag), 0)


def unmarked(segments: list[Path]) -> None:
    (segments[0].parent / ".acknowledged").unlink()


@pytest.mark.parametrize("marked", [True, False])
def test_a_last_segment_that_can_not_be_read_is_gone_round(tmp_path: Path, marked: bool) -> None:
    """The frames that it holds are counted by their heads where no mark tells."""
    segments = spooled(tmp_path, segment_bytes=700)
    identity = next(iter(reader(tmp_path).frames())).header.identity
    first = int(segments[-1].stem)
    if not marked:
        unmarked(segments)
    spoil_header(segments[-1])
    assert recovered(tmp_path) == (Chain(identity, 8, NO_TAG, 8 - first), 0)
    assert segments[-1].exists()


@pytest.mark.parametrize("marked", [True, False])
def test_a_segment_of_another_stream_in_the_last_one_s_place_is_gone_round(tmp_path: Path, marked: bool) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    identity = next(iter(reader(tmp_path).frames())).header.identity
    first = int(segments[-1].stem)
    with Journal(tmp_path, "server-b", cipher(tmp_path), "PageCache") as journal:
        journal.append_blocking(event(0))
    (other,) = journal.folder.glob("*.seg")
    segments[-1].write_bytes(other.read_bytes())
    if not marked:
        unmarked(segments)
    chain, torn = recovered(tmp_path)
    assert (chain.identity, chain.previous, torn) == (identity, NO_TAG, 0)
    assert chain.next_seq == (8 if marked else first + 1)
    assert chain.unreadable == chain.next_seq - first


def test_where_no_segment_can_be_read_the_stream_is_another_one(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    identity = next(iter(reader(tmp_path).frames())).header.identity
    for segment in segments:
        spoil_header(segment)
    assert recovered(tmp_path)[0].identity == identity, "the mark has it"
    unmarked(segments)
    chain, _ = recovered(tmp_path)
    assert len(chain.identity) == 12
    assert chain.identity != identity


def test_an_acknowledged_segment_without_a_header_is_not_taken_for_a_killed_writer_s(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    identity = next(iter(reader(tmp_path).frames())).header.identity
    first = int(segments[-1].stem)
    MarkFile(segments[-1].parent).write(identity, first + 1)
    empty(segments[-1])
    assert recovered(tmp_path) == (Chain(identity, first + 1, NO_TAG, 1), 0)
    assert segments[-1].exists()
    MarkFile(segments[-1].parent).write(identity, first)
    segments[-1].write_bytes(b"GMJS")
    chain, torn = recovered(tmp_path)
    assert (chain.next_seq, chain.unreadable, torn) == (first, 0, 4)
    assert not segments[-1].exists()


def test_a_torn_tail_for_whose_copy_there_is_no_room_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (segment,) = spooled(tmp_path)
    end = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + b"torn")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if ".torn-" in path.name:
            write(path, data[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert recovered(tmp_path)[1] == 4
    assert segment.stat().st_size == end
    assert list(segment.parent.glob("*.torn-*")) == []


# What was damaged is kept


def gap_in(spool: Path) -> Gap:
    (gap,) = (piece for piece in reader(spool).pieces(0) if isinstance(piece, Gap))
    return gap


def test_the_bytes_of_a_gap_are_kept_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (segment,) = spooled(tmp_path)
    frames = list(reader(tmp_path).frames())
    flip(segment, frames[3].offset + 40)
    gap = gap_in(tmp_path)
    folder = segment.parent
    monkeypatch.setattr(segment_module, "QUARANTINED_BYTES", gap.length - 1)
    assert quarantine(folder, gap) == ""
    monkeypatch.setattr(segment_module, "QUARANTINED_BYTES", gap.length)
    assert quarantine(folder, gap._replace(length=0)) == ""
    assert quarantine(folder, gap) == f"{segment.stem}.damaged-{gap.offset}"
    kept = folder / f"{segment.stem}.damaged-{gap.offset}"
    assert kept.read_bytes() == segment.read_bytes()[gap.offset : gap.end]
    assert quarantine(folder, gap._replace(offset=gap.offset + 1, length=1)) == ""


def test_a_gap_for_whose_copy_there_is_no_room_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (segment,) = spooled(tmp_path)
    flip(segment, list(reader(tmp_path).frames())[3].offset + 40)
    gap = gap_in(tmp_path)
    monkeypatch.setattr(segment_module, "replace_file", failing)
    assert quarantine(segment.parent, gap) == ""
    lose(segment)
    with pytest.raises(FileNotFoundError):
        quarantine(segment.parent, gap)


def test_a_stream_s_files_are_for_its_owner_alone(tmp_path: Path) -> None:
    (segment,) = spooled(tmp_path)
    assert segment == segment_path(tmp_path / "journal" / "server-a", 0)
    assert (segment.stat().st_mode & 0o777, segment.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for name in (".lock", ".acknowledged"):
        assert (segment.parent / name).stat().st_mode & 0o777 == 0o600


def test_reading_goes_on_where_the_writer_went_round_damage(tmp_path: Path) -> None:
    segments = spooled(tmp_path, segment_bytes=700)
    spoil_header(segments[-1])
    with Journal(tmp_path, "server-a", cipher(tmp_path), "PageCache") as journal:
        lost = 8 - int(segments[-1].stem)
        assert journal.stats.unreadable == lost
        assert journal.damage == (
            "journal stream server-a: acknowledged frames at its end can't be read; what is left of them is kept, and "
            "goes to the ledger"
        )
        pieces = list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).pieces(0))
        assert isinstance(pieces[-1], Gap), "told before the next record is written"
        assert pieces[-1].frames == lost
        assert all(isinstance(piece, RawFrame) for piece in pieces[:-1])
    with Journal(tmp_path, "server-b", cipher(tmp_path), "PageCache") as sound:
        assert (sound.damage, sound.stats.unreadable) == ("", 0)
    with pytest.raises(JournalDamaged):
        list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).frames())

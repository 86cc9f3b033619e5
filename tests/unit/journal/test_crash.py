"""What a writer that was killed can leave at the end of a stream; what no accident leaves: test_damage.py."""

import os
from pathlib import Path

import pytest

from governed_serving.journal import Journal, JournalReader
from governed_serving.journal.acknowledged import MarkFile, read_mark

from .samples import cipher, prediction


def written(spool: Path, frames: int) -> Path:
    """A stream of some frames in one segment; returns the segment's file."""
    with Journal(spool, "server-a", cipher(spool), "PageCache") as journal:
        for number in range(frames):
            journal.append_blocking(prediction(number))
    (segment,) = (spool / "journal" / "server-a").glob("*.seg")
    return segment


def acknowledged(folder: Path, frames: int) -> None:
    """Of the stream, callers had only been told of these when its writer was killed."""
    mark = read_mark(folder)
    assert mark is not None
    MarkFile(folder).write(mark.identity, frames)


@pytest.mark.parametrize("tail", ["cut 1", "cut 30", "zeros", "garbage", "flipped", "header only"])
def test_a_torn_tail_is_set_aside_and_writing_goes_on(tmp_path: Path, tail: str):
    segment = written(tmp_path, 5)
    acknowledged(segment.parent, 4)
    frames = list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).frames())
    data = segment.read_bytes()
    last = data[frames[4].offset :]
    harmed = {
        "cut 1": last[:-1],
        "cut 30": last[:-30],
        "zeros": last[:20] + bytes(len(last) - 20),
        "garbage": os.urandom(len(last)),
        "flipped": last[:-1] + bytes([last[-1] ^ 1]),
        "header only": last[:16],
    }[tail]
    segment.write_bytes(data[: frames[4].offset] + harmed)
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        assert journal.stats.torn_bytes == len(harmed)
        assert journal.append_blocking(prediction(50)).seq == 4
    (aside,) = segment.parent.glob("*.torn-*")
    assert aside.read_bytes() == harmed
    records = [r.ids[0] for _, r in JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()]  # type: ignore[union-attr]
    assert records == ["request-0", "request-1", "request-2", "request-3", "request-50"]


@pytest.mark.parametrize("kept", [0, 5, 40])
def test_a_segment_without_a_whole_header_is_made_anew(tmp_path: Path, kept: int):
    segment = written(tmp_path, 1)
    following = segment.with_name(f"{1:020d}.seg")
    following.write_bytes(segment.read_bytes()[:kept])
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        assert journal.append_blocking(prediction(1)).seq == 1
    assert len(list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())) == 2

"""kill -9 in mid-write, fifty times: every acknowledged record is readable, and the stream goes on."""

import asyncio
import os
import random
import signal
import struct
from pathlib import Path

import pytest

from governed_serving.journal import Journal, JournalDamaged, JournalReader
from governed_serving.journal.writer import Durability

from .samples import cipher, prediction

ROUNDS = 50
ACKNOWLEDGED = struct.Struct(">QQI")


def write_for_ever(spool: Path, first: int, durability: Durability, pipe: int) -> None:
    """Append from four clients, and tell each acknowledgement by an atomic write to a pipe."""

    async def client(journal: Journal, number: int) -> None:
        while True:
            ack = await journal.append(prediction(number, rows=1 + number % 5))
            os.write(pipe, ACKNOWLEDGED.pack(number, ack.seq, ack.index))
            number += 4

    async def run() -> None:
        journal = Journal(spool, "server-a", cipher(spool), durability, segment_bytes=20_000)
        await asyncio.gather(*[client(journal, first + k) for k in range(4)])

    asyncio.run(run())


def one_life(spool: Path, life: int, durability: Durability) -> dict[int, tuple[int, int]]:
    """Start a writer, kill it somewhere in its first hundred records, and return what it had acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(spool, life * 1_000_000, durability, writing)
        finally:
            os._exit(1)
    os.close(writing)
    enough = random.Random(life).randrange(1, 100) * ACKNOWLEDGED.size
    received = b""
    while len(received) < enough and (more := os.read(reading, 4096)):
        received += more
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(reading, 1 << 16):
        received += more
    os.close(reading)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    return {number: (seq, index) for number, seq, index in ACKNOWLEDGED.iter_unpack(received)}


@pytest.mark.parametrize("durability", ["Fsync", "PageCache"])
def test_fifty_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path, durability: Durability):
    acknowledged: dict[int, tuple[int, int]] = {}
    for life in range(ROUNDS):
        acknowledged |= one_life(tmp_path, life, durability)
    frames = dict(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())
    assert list(frames) == list(range(len(frames)))
    for number, (seq, index) in acknowledged.items():
        assert frames[seq].ids[index] == f"request-{number}"  # type: ignore[union-attr]
    assert len(acknowledged) > 20 * ROUNDS
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        assert journal.append_blocking(prediction(1)).seq == len(frames)


def written(spool: Path, frames: int) -> Path:
    """A stream of some frames in one segment; returns the segment's file."""
    with Journal(spool, "server-a", cipher(spool), "PageCache") as journal:
        for number in range(frames):
            journal.append_blocking(prediction(number))
    (segment,) = (spool / "journal" / "server-a").glob("*.seg")
    return segment


@pytest.mark.parametrize("tail", ["cut 1", "cut 30", "zeros", "garbage", "flipped", "header only"])
def test_a_torn_tail_is_set_aside_and_writing_goes_on(tmp_path: Path, tail: str):
    segment = written(tmp_path, 5)
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


def test_a_bad_frame_before_good_ones_is_no_accident(tmp_path: Path):
    segment = written(tmp_path, 5)
    frames = list(JournalReader(tmp_path, "server-a", cipher(tmp_path)).frames())
    data = bytearray(segment.read_bytes())
    data[frames[2].offset + 30] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalDamaged, match="stream server-a, frame 2: was changed") as caught:
        Journal(tmp_path, "server-a", cipher(tmp_path))
    assert caught.value.seq == 2
    assert segment.read_bytes() == data

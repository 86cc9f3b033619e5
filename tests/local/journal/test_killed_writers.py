"""kill -9 in mid-write, fifty times (TESTS_KILLS): every acknowledged record is readable, and the stream goes on."""

import asyncio
import os
import random
import signal
import struct
from pathlib import Path

import pytest

from governed_serving.journal import Journal, JournalReader
from governed_serving.journal.writer import Durability
from unit.journal.samples import cipher, prediction

ROUNDS = int(os.environ.get("TESTS_KILLS", "50"))
ACKNOWLEDGED = struct.Struct(">QQ")


def write_for_ever(spool: Path, first: int, durability: Durability, pipe: int) -> None:
    """Append from four clients, and tell each acknowledgement by an atomic write to a pipe."""

    async def client(journal: Journal, number: int) -> None:
        while True:
            ack = await journal.append(prediction(number, rows=1 + number % 5))
            os.write(pipe, ACKNOWLEDGED.pack(number, ack.seq))
            number += 4

    async def run() -> None:
        journal = Journal(spool, "server-a", cipher(spool), durability, segment_bytes=20_000)
        await asyncio.gather(*[client(journal, first + k) for k in range(4)])

    asyncio.run(run())


def one_life(spool: Path, life: int, durability: Durability) -> dict[int, int]:
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
    return dict(ACKNOWLEDGED.iter_unpack(received))


@pytest.mark.parametrize("durability", ["Fsync", "PageCache"])
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path, durability: Durability):
    acknowledged: dict[int, int] = {}
    for life in range(ROUNDS):
        acknowledged |= one_life(tmp_path, life, durability)
    frames = dict(JournalReader(tmp_path, "server-a", cipher(tmp_path)).read())
    assert list(frames) == list(range(len(frames)))
    for number, seq in acknowledged.items():
        assert frames[seq].ids == [f"request-{number}"]  # type: ignore[union-attr]
    assert len(acknowledged) > 20 * ROUNDS
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        assert journal.append_blocking(prediction(1)).seq == len(frames)

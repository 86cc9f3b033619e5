"""Who computes next."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from governed_serving.server.backlog import Backlog
from governed_serving.server.lane import ComputeLane
from unit.server.planes import until


@dataclass
class Piece:
    name: str
    rows: int = 1


class Bench:
    """A lane whose calls end when told to."""

    def __init__(self, **limits: Any) -> None:
        self.started: list[list[str]] = []
        self.gates: list[asyncio.Event] = []
        self.time = 0.0
        self.backlog = Backlog(lambda: self.time)
        options = {"slots": 1, "max_requests": 8, "max_rows": 10, "backlog": self.backlog} | limits
        self.lane = ComputeLane(self.run, **options)

    async def run(self, batch: list[Piece]) -> None:
        await self._call([piece.name for piece in batch])

    async def _call(self, names: list[str]) -> None:
        self.started.append(names)
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()

    async def settle(self, count: int) -> None:
        await until(lambda: len(self.started) >= count)

    async def end(self) -> None:
        while not self.lane.idle:
            for gate in self.gates:
                gate.set()
            await asyncio.sleep(0)

    def finish(self) -> None:
        next(g for g in self.gates if not g.is_set()).set()


async def test_what_came_together_goes_together_and_the_rest_waits_for_the_slot() -> None:
    bench = Bench()
    for name in "abc":
        bench.lane.put(Piece(name))
    await bench.settle(1)
    bench.lane.put(Piece("d"))
    bench.lane.put(Piece("e"))
    assert bench.lane.waiting == 2
    bench.finish()
    await bench.settle(2)
    assert bench.started == [["a", "b", "c"], ["d", "e"]]
    bench.finish()
    await until(lambda: bench.lane.idle)


async def test_batches_are_bounded_by_requests_and_rows() -> None:
    bench = Bench(max_requests=2)
    for piece in (Piece("a"), Piece("b"), Piece("c", 50), Piece("d", 6), Piece("e", 6)):
        bench.lane.put(piece)
    for k in range(1, 5):
        await bench.settle(k)
        bench.finish()
    assert bench.started == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_what_waits_is_said_in_seconds_of_the_turns_behind_which_others_waited() -> None:
    bench = Bench()
    for name in "abcd":
        bench.lane.put(Piece(name, rows=5))
    await bench.settle(1)
    assert (bench.started, bench.backlog.waiting) == ([["a", "b"]], 10)
    bench.time = 100.0  # nothing was seen yet of how long a turn takes behind which others wait
    bench.finish()
    await bench.settle(2)
    for name in "efgh":
        bench.lane.put(Piece(name, rows=5))
    bench.time = 104.0
    assert bench.backlog.seconds() == 0
    bench.finish()
    await bench.settle(3)
    assert bench.backlog.seconds() == 0, "d was the last when its turn began: nobody waited behind it"
    bench.time = 112.0
    bench.finish()
    await bench.settle(4)
    assert bench.backlog.waiting == 0
    assert bench.backlog.seconds() == 0
    bench.lane.put(Piece("i", rows=5))
    assert bench.backlog.seconds() == 4, "ten rows took eight seconds"
    await bench.end()


async def test_what_was_seen_long_ago_counts_less() -> None:
    bench = Bench(max_requests=1)
    for name in "abcdef":
        bench.lane.put(Piece(name, rows=1))
    for turn, seconds in enumerate((1.0, 8.0, 8.0, 1.0, 1.0), 1):
        await bench.settle(turn)
        bench.time += seconds
        bench.finish()
    await bench.settle(6)
    bench.lane.put(Piece("g", rows=1))
    # (8 + 8) / 2 seconds for 2 / 2 turns, then one of 1 second; behind the last but one nobody was to wait
    assert bench.backlog.seconds() == (8 + 1 + 1) / 3
    await bench.end()


def test_the_shorter_the_deadline_the_sooner_it_is_sure_and_forgets() -> None:
    now = 0.0
    short, long = Backlog(lambda: now, 2.0), Backlog(lambda: now, 60.0)

    def turn(seconds: float) -> None:
        nonlocal now
        now += seconds
        for backlog in (short, long):
            backlog.take(1)
            backlog.finished(1)
            backlog.next()

    for backlog in (short, long):
        backlog.put(11)
    turn(0.0)
    turn(0.5)
    assert (short.seconds(), long.seconds()) == (9 * 0.5, 0.0)
    for seconds in (4.0, 0.1, 0.1, 0.1):
        turn(seconds)
    assert long.seconds() == pytest.approx(5 * 4.8 / 5)
    assert short.seconds() == pytest.approx(5 * (((0.5 + 4.0) / 2 + 0.1) / 2 + 0.2) / 3)

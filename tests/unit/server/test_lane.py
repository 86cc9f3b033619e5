"""Who computes next."""

import asyncio
from dataclasses import dataclass
from typing import Any

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
        options = {"slots": 1, "max_requests": 8, "max_rows": 10} | limits
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

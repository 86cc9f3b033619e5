"""How fast: a twentieth of a core while the server is at work, all of it otherwise.

Low priority keeps requests from waiting; this keeps the rest honest. The server's container pays for these rows: its
autoscaler would take them for load, and under a CPU limit they would use up what the server is allowed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["CpuThrottle", "cpu_of", "piece_rows"]

T = TypeVar("T")

SHARE = 0.05
AT_WORK = 0.02
"""Of a core: what a server uses that answers requests, and doesn't only answer probes."""
LATELY = 0.5
"""Seconds over which that is looked at."""
LEAST, MOST = 16, 256
WEIGHT = 64 * 2**20
"""Bytes of the model that a piece reads at most, once per row."""


def piece_rows(model_size: int) -> int:
    """Rows of one piece, from the model's size in bytes alone: a sum's order depends on the rows beside, and a replay
    gives the same bits."""
    return max(LEAST, min(MOST, WEIGHT // max(model_size, 1)))


def cpu_of(pid: int) -> Callable[[], float]:
    """CPU seconds of a process (its clock: clock_getcpuclockid(3)). Raises OSError when there is none."""
    clock = (~pid << 3) | 2
    return lambda: time.clock_gettime(clock)


class CpuThrottle:
    """``rows`` a piece, one at a time, whoever asks. ``server`` and ``spent`` are CPU seconds, of the server and of
    this process."""

    def __init__(
        self,
        rows: int,
        server: Callable[[], float],
        *,
        threads: int = 1,
        spent: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows, self._server, self._threads = rows, server, threads
        self._spent, self._clock, self._sleep = spent, clock, sleep
        self._turn = asyncio.Lock()
        self._rest_until = float("-inf")
        self._paid = spent()
        self._seen = (clock(), server())
        self._at_work = False

    async def pieces(self, rows: int, compute: Callable[[slice], Awaitable[T]]) -> list[T]:
        """``compute`` for consecutive slices of ``rows``, each in its turn."""
        parts: list[T] = []
        for start in range(0, rows, self._rows):
            async with self._turn:
                await self._rest()
                parts.append(await compute(slice(start, min(rows, start + self._rows))))
                self._owe()
        return parts

    def _owe(self) -> None:
        """Rest for all that was spent since the piece before: decoding and answering are work as well."""
        spent = self._spent()
        self._rest_until = self._clock() + (spent - self._paid) / self._threads * (1 / SHARE - 1)
        self._paid = spent

    async def _rest(self) -> None:
        while self._busy() and (left := self._rest_until - self._clock()) > 0:
            await self._sleep(min(left, LATELY))

    def _busy(self) -> bool:
        now, (then, before) = self._clock(), self._seen
        if now - then >= LATELY:
            used = self._server()
            self._at_work = used - before > AT_WORK * (now - then)
            self._seen = now, used
        return self._at_work

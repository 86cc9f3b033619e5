"""When rows that no client waits for are computed: in the gaps that requests leave, and while requests come a twentieth of the time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["SpareTime"]

T = TypeVar("T")

SHARE = 0.05
"""Of the time, for pieces, while requests come: so few requests meet one."""
LATELY = 0.5
"""Seconds since the last request after which none is expected: then pieces follow each other without a rest."""
PATIENCE = 0.05
"""Seconds that a piece waits for a moment without a request being computed: load that never pauses leaves it two hundredths."""
PIECE_SECONDS = 0.001
"""Of one piece at most. What it holds meanwhile (the core, the interpreter's lock) a request may have to wait for."""
LEAST, MOST = 16, 65_536
DOUBT = 1.1
"""By how much a row may be dearer than the piece before said: a piece that was interrupted says little about the next."""


class SpareTime:
    """Hands out turns to compute a piece, one at a time.

    The best moment is when a request has just been computed: its record goes to the disk then, and the core is idle about as long
    as a piece takes. After a piece comes a rest in proportion, measured by the clock: where the machine is busy pieces take longer,
    and rests with them.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._computing = 0
        self._requested = float("-inf")
        self._rest_until = float("-inf")
        self._row_seconds = PIECE_SECONDS / LEAST
        self.rows = LEAST
        """Of the next piece."""

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around the computation of requests: no piece begins meanwhile."""
        self._computing += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._computing -= 1
            self._requested = self._clock()
            if not self._computing:
                self._quiet.set()

    async def pieces(self, rows: int, compute: Callable[[slice], Awaitable[T]]) -> list[T]:
        """``compute`` for consecutive slices of ``rows``, each in its turn."""
        parts: list[T] = []
        start = 0
        while start < rows:
            async with self._turn:
                await self._gap()
                stop = min(rows, start + self.rows)
                began = self._clock()
                parts.append(await compute(slice(start, stop)))
                self._learn(stop - start, self._clock() - began)
            start = stop
        return parts

    async def _gap(self) -> None:
        """Until the rest is over and no request is being computed, or has not stopped being for a while."""
        while (left := self._rest_until - self._clock()) > 0 and self._clock() - self._requested < LATELY:
            await self._sleep(min(left, LATELY))
        if self._computing:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._quiet.wait()
            except TimeoutError:
                return
            await asyncio.sleep(0)  # what was computed is written first

    def _learn(self, rows: int, seconds: float) -> None:
        """Rest, and fit the next piece to what rows cost undisturbed."""
        self._rest_until = self._clock() + seconds * (1 / SHARE - 1)
        self._row_seconds = min(max(seconds / rows, 1e-9), DOUBT * self._row_seconds)
        self.rows = max(LEAST, min(MOST, round(PIECE_SECONDS / self._row_seconds), 2 * self.rows))

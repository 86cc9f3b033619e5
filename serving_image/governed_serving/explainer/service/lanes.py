"""Where explanations are computed: a lane for requests, a slower one for jobs and sampled traffic, both bounded."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from governed_serving.blackbox.errors import ExplainerError
from governed_serving.containment import Threads

__all__ = ["Busy", "Lane"]

T = TypeVar("T")


class Busy(ExplainerError):
    """Too many requests wait already (HTTP 503 with Retry-After)."""


class Lane:
    """At most ``workers`` computations at once, at most ``waiting`` more in line; beyond that :class:`Busy`."""

    def __init__(self, name: str, workers: int, waiting: int) -> None:
        self.name, self.capacity = name, workers + waiting
        self.inside = 0
        self._pool = Threads(workers, thread_name_prefix=f"explain-{name}")

    async def run(self, work: Callable[[], T]) -> T:
        """Result of ``work()`` in a thread of this lane."""
        if self.inside >= self.capacity:
            raise Busy(
                f"{self.inside} explanations are computed or wait already, at most {self.capacity}; try again later"
            )
        self.inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.inside -= 1

    def close(self) -> None:
        """Waits for what runs; nothing new starts."""
        self._pool.shutdown(wait=True, cancel_futures=True)

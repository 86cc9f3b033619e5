"""Who computes next: requests merge while the predictor is busy.

Nothing waits on a timer: a call starts as soon as a slot is free with all that has arrived by then, so that one request
alone has no added latency and many at once share a call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Generic, Protocol, TypeVar

from governed_serving.hosting.logs import log
from governed_serving.server.backlog import Backlog

__all__ = ["ComputeLane", "Work"]


class Work(Protocol):
    """Something with rows."""

    @property
    def rows(self) -> int: ...


W = TypeVar("W", bound=Work)


class ComputeLane(Generic[W]):
    """``run`` is awaited with each batch; ``slots`` batches run at a time.

    ``max_requests`` and ``max_rows`` bound a batch (a larger request goes alone). ``backlog`` counts what waits.
    """

    def __init__(
        self,
        run: Callable[[list[W]], Coroutine[object, None, None]],
        *,
        slots: int,
        max_requests: int,
        max_rows: int,
        backlog: Backlog,
    ) -> None:
        self._run = run
        self._slots = slots
        self._max_requests = max_requests
        self._max_rows = max_rows
        self._backlog = backlog
        self._waiting: deque[W] = deque()
        self._busy = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Requests that no batch has taken yet."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._busy or self._waiting)

    def put(self, work: W) -> None:
        """Queue ``work``; the batch is formed after the current turn of the event loop, so that what was read together
        goes together."""
        self._waiting.append(work)
        self._backlog.put(work.rows)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._busy < self._slots:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        while self._waiting and self._busy < self._slots:
            batch = self._batch()
            rows = sum(work.rows for work in batch)
            self._backlog.take(rows)
            self._start(self._run(batch), rows)

    def _batch(self) -> list[W]:
        waiting = self._waiting
        batch = [waiting.popleft()]
        rows = batch[0].rows
        while waiting and len(batch) < self._max_requests and rows + waiting[0].rows <= self._max_rows:
            rows += waiting[0].rows
            batch.append(waiting.popleft())
        return batch

    def _start(self, call: Coroutine[object, None, None], rows: int) -> None:
        self._busy += 1
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, rows))

    def _done(self, rows: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy -= 1
        self._backlog.finished(rows)
        if self._waiting:
            self._pump()
        self._backlog.next()
        if not task.cancelled() and (error := task.exception()) is not None:
            log("error", "a batch failed unexpectedly", exception=error)

"""A work queue of models: each at most once, never two workers on one model, back-off per model."""

import asyncio
import heapq
import time
from collections.abc import Iterable

from governed_operator.watch.cache import ModelKey

FIRST, CAP = 1.0, 300.0


class WorkQueue:
    """Keys wait until due; adding a key that waits only moves it forward."""

    def __init__(self, settle: float = 0.1) -> None:
        self._settle = settle
        self._due: dict[ModelKey, float] = {}
        self._heap: list[tuple[float, ModelKey]] = []
        self._busy: set[ModelKey] = set()
        self._again: set[ModelKey] = set()
        self._low_priority: dict[ModelKey, None] = {}
        self._failures: dict[ModelKey, int] = {}
        self._change = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._low_priority)

    def wake(self, key: ModelKey) -> None:
        """Something changed: look at it shortly, together with what else changes meanwhile."""
        if key in self._failures:
            self.add(key, self._delay(key))
        else:
            self.add(key, self._settle)

    def enqueue_low_priority(self, keys: Iterable[ModelKey]) -> None:
        """Look at them when nothing else is due: a start with many models must not keep a change waiting."""
        self._low_priority.update(dict.fromkeys(keys))
        self._change.set()

    def wake_low_priority(self, keys: Iterable[ModelKey]) -> None:
        """Something changed for many: look at each after what else is due, also where it was to wait for longer. What
        failed is looked at when its back-off ends."""
        soon = time.monotonic() + self._settle
        for key in [k for k in keys if k not in self._failures]:
            if key in self._busy:
                self._again.add(key)
            elif self._due.get(key, float("inf")) > soon:
                self._due.pop(key, None)
                self._low_priority[key] = None
        self._change.set()

    def add(self, key: ModelKey, delay: float) -> None:
        if key in self._busy:
            self._again.add(key)
        due = time.monotonic() + delay
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._change.set()

    async def take(self) -> ModelKey:
        """The next due key; the caller must give it back by done() or failed()."""
        while True:
            key = self._next()
            if key is not None:
                self._busy.add(key)
                return key
            self._change.clear()
            wait = max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
            try:
                await asyncio.wait_for(self._change.wait(), wait)
            except TimeoutError:
                continue

    def _next(self) -> ModelKey | None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue
            del self._due[key]
            if key not in self._busy:
                self._low_priority.pop(key, None)
                return key
            self._again.add(key)
        while self._low_priority:
            key = next(iter(self._low_priority))
            del self._low_priority[key]
            if key not in self._busy and key not in self._due:
                return key
        return None

    def done(self, key: ModelKey, again_in: float | None = None) -> None:
        self._failures.pop(key, None)
        self._release(key)
        if again_in is not None:
            self.add(key, again_in)

    def failed(self, key: ModelKey) -> float:
        """Back-off of this key alone; the delay in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._delay(key)
        self._again.discard(key)
        self._release(key)
        self._due.pop(key, None)
        self.add(key, delay)
        return delay

    def _delay(self, key: ModelKey) -> float:
        return min(CAP, FIRST * 2.0 ** (self._failures.get(key, 1) - 1))

    def _release(self, key: ModelKey) -> None:
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key, self._settle)

"""Folds what is new in the journal into the counts, and keeps them: the only worker that changes them."""

import time
from collections.abc import Callable

from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState

__all__ = ["FoldWorker"]

POLL = 0.5
"""Looks are paced, not chained: what came meanwhile is folded and judged together. A look costs the same for one record
as for hundreds, and the server that makes the records wants the same core and the same disk."""
SNAPSHOT_SECONDS = 30.0
SNAPSHOT_SHARE = 0.01
"""Of the time: with hundreds of thousands of requests remembered the state is tens of megabytes, and the disk is the
server's too."""


class FoldWorker(Worker):
    """Journal → counts, with the labels that were settled elsewhere; a snapshot now and then."""

    name = "folding"
    every = POLL
    longest_pause = 5.0
    wakes = ("judging",)
    vital = True

    def __init__(self, state: AuditState, clock: Callable[[], float] = time.monotonic) -> None:
        self._state, self._clock = state, clock
        self._snapshot_due = clock() + SNAPSHOT_SECONDS

    def run_once(self) -> int:
        """Records folded and labels settled. Raises JournalError, CryptoError, OSError."""
        state, tail = self._state, self._state.counted
        settled = 0
        with state.lock:
            records = tail.step()
            while state.settled:
                tail.settle(*state.settled.popleft())
                settled += 1
        state.catching_up = records > 0
        self._snapshot()
        return records + settled

    @property
    def behind(self) -> bool:
        """Frames were left unread."""
        return self._state.counted.behind

    def _snapshot(self) -> None:
        began = self._clock()
        if began < self._snapshot_due:
            return
        with self._state.lock:
            self._state.counted.save()
        now = self._clock()
        self._snapshot_due = now + max(SNAPSHOT_SECONDS, (now - began) / SNAPSHOT_SHARE)

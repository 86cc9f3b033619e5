"""Looks up in the ledger which contested decisions wait for a person."""

import time
from collections.abc import Callable

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.contests import OpenContest, read_contests
from governed_serving.auditor.service.scheduling import Worker

__all__ = ["ContestWorker"]


class ContestWorker(Worker):
    """Ledger → ``counts``: (open, overdue) at the last look, over the whole model, whichever pod took them."""

    name = "contests"
    every = 30.0
    wakes = ("reporting",)

    def __init__(self, archive: ArchiveClient, seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._archive, self._seconds, self._clock = archive, seconds, clock
        self.counts = (0, 0)

    def run_once(self) -> int:
        """1 when something has changed. Raises ArchiveError."""
        found = self.counted(read_contests(self._archive, self._seconds))
        changed = found != self.counts
        self.counts = found
        return int(changed)

    def counted(self, contests: list[OpenContest]) -> tuple[int, int]:
        """(open, overdue)."""
        now = self._clock()
        return len(contests), sum(one.overdue(now) for one in contests)

    def finish(self) -> None:
        """Nothing is left undone."""

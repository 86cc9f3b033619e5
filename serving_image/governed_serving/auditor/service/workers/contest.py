"""Looks up in the ledger which contested decisions wait for a person."""

import time
from collections.abc import Callable

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.contests import ContestBook, OpenContest
from governed_serving.auditor.service.scheduling import Worker

__all__ = ["ContestWorker"]


class ContestWorker(Worker):
    """Ledger → ``counts``: (open, overdue) at the last look, over the whole model, whichever pod took them."""

    name = "contests"
    every = 30.0
    wakes = ("reporting",)

    def __init__(self, archive: ArchiveClient, seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._book, self._clock = ContestBook(archive, seconds), clock
        self.counts = (0, 0)

    def run_once(self) -> int:
        """1 when something has changed. Raises ArchiveError."""
        contests = self.counted(self._book.look())
        changed = contests != self.counts
        self.counts = contests
        return int(changed)

    def counted(self, contests: list[OpenContest]) -> tuple[int, int]:
        """(open, overdue)."""
        now = self._clock()
        return len(contests), sum(contest.overdue(now) for contest in contests)

    def finish(self) -> None:
        """Nothing is left undone."""

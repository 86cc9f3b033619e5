"""Contested decisions: which the ledger says are open, and until when a person has to decide them."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from governed_serving.archive.client import ArchiveClient, FetchedEntry
from governed_serving.decoding import decode_json
from governed_serving.records import timestamp

__all__ = ["OPENED", "REVIEW", "ContestBook", "OpenContest", "open_contests", "read_contests"]

OPENED = "acknowledgement"
"""Type of the entry that opens one; its summary's ``kind`` is ``review``."""
REVIEW = "review"
"""Type of the entry that closes one."""


class OpenContest(NamedTuple):
    """``id``: of the prediction. ``entry``: of the ledger, that opened it. Times are RFC 3339."""

    id: str
    entry: int
    time: str
    deadline: str

    def overdue(self, now: float) -> bool:
        """Whether it should have been decided by ``now`` (seconds since the epoch)."""
        return datetime.fromisoformat(self.deadline).timestamp() < now


def read_contests(archive: ArchiveClient, seconds: int, id: str = "") -> list[OpenContest]:
    """The model's open contests, or those of one prediction, by all entries of either type: none is pushed out by
    later ones. Raises ArchiveError."""
    opened, decided = (archive.find_all(id=id, type=kind) for kind in (OPENED, REVIEW))
    return open_contests(opened, decided, seconds)


class ContestBook:
    """The model's open contests, read on from where the last look ended."""

    def __init__(self, archive: ArchiveClient, seconds: int):
        self._archive, self._seconds = archive, seconds
        self._open: list[FetchedEntry] = []
        self._decided: list[FetchedEntry] = []
        self._after = (-1, -1)
        """The last entries that were read, of either type."""

    def look(self) -> list[OpenContest]:
        """Oldest deadline first. Raises ArchiveError."""
        opened = [*self._open, *self._archive.find_all(type=OPENED, after=self._after[0])]
        read = self._archive.find_all(type=REVIEW, after=self._after[1])
        decided = [*self._decided, *read]
        contests = open_contests(opened, decided, self._seconds)
        still = {contest.entry for contest in contests}
        self._after = (opened[-1].index if opened else -1, decided[-1].index if decided else -1)
        self._open = [contest for contest in opened if contest.index in still or contest is opened[-1]]
        self._decided = [contest for contest in decided if contest.index > self._after[0] or contest is decided[-1]]
        return contests


def open_contests(opened: Iterable[FetchedEntry], decided: Iterable[FetchedEntry], seconds: int) -> list[OpenContest]:
    """Those that no later entry decides, oldest deadline first. ``seconds``: until when one without a deadline, of an
    older version, was to be decided."""
    last = {_said(closing).id: closing.index for closing in decided}
    contests = [
        _opened(opening.index, said, seconds)
        for opening in opened
        if (said := _said(opening)).summary.kind == REVIEW and last.get(said.id, -1) < opening.index
    ]
    return sorted(contests, key=lambda one: (one.deadline, one.entry))


class _Summary(msgspec.Struct):
    kind: str = ""
    deadline: str = ""


class _Said(msgspec.Struct):
    """What of an entry is needed here."""

    id: str
    time: str
    summary: _Summary = msgspec.field(default_factory=_Summary)


def _said(found: FetchedEntry) -> _Said:
    return decode_json(found.entry, type=_Said)


def _opened(index: int, said: _Said, seconds: int) -> OpenContest:
    deadline = said.summary.deadline or timestamp(datetime.fromisoformat(said.time).timestamp() + seconds)
    return OpenContest(said.id, index, said.time, deadline)

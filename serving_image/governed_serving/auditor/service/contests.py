"""Contested decisions: which the ledger says are open, and until when a person has to decide them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from governed_serving.archive.client import ArchiveClient, Found
from governed_serving.decoding import decode_json
from governed_serving.records import timestamp

__all__ = ["LIMIT", "OPENED", "REVIEW", "OpenContest", "open_contests", "read_contests"]

OPENED = "acknowledgement"
"""Type of the entry that opens one; its summary's ``kind`` is ``review``."""
REVIEW = "review"
"""Type of the entry that closes one."""
LIMIT = 1000
"""Newest entries of a type that are looked through."""


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
    """The model's open contests, or those of one prediction, by the newest ``LIMIT`` entries of either type. Raises
    ArchiveError."""
    opened, decided = (archive.find(id=id, type=kind, limit=LIMIT) for kind in (OPENED, REVIEW))
    return open_contests(opened, decided, seconds)


def open_contests(opened: Iterable[Found], decided: Sequence[Found], seconds: int) -> list[OpenContest]:
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


def _said(found: Found) -> _Said:
    return decode_json(found.entry, type=_Said)


def _opened(index: int, said: _Said, seconds: int) -> OpenContest:
    deadline = said.summary.deadline or timestamp(datetime.fromisoformat(said.time).timestamp() + seconds)
    return OpenContest(said.id, index, said.time, deadline)

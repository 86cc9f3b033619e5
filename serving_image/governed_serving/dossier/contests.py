"""Contested decisions of a model: when each was opened, until when it was to be decided, and what became of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from governed_api.page.markup import Safe, tag
from governed_api.page.parts import pill, section, table
from governed_serving.dossier.dossier import Dossier, LedgerView
from governed_serving.records import LedgerEntry

__all__ = ["Contest", "contests", "contests_section"]

SHOWN = 50
"""Newest contests in the table."""


@dataclass
class Contest:
    """``id``: of the request. ``outcome`` "": not decided yet. ``decided``: ledger entry and time. Times are RFC 3339,
    "" where unknown."""

    index: int
    opened: str
    deadline: str
    outcome: str = ""
    id: str = ""
    decided: tuple[int, str] | None = None
    late: bool = False


def contests(ledger: LedgerView | None, now: datetime) -> list[Contest]:
    """In the order in which they were opened. One that is open is late once ``now`` is past its deadline."""
    if ledger is None:
        return []
    asked = {index: _opened(index, entry, now) for index, entry in ledger.entries.get("acknowledgement", [])
             if entry.summary.get("kind") == "review"}  # fmt: skip
    for index, entry in ledger.entries.get("review", []):
        closed = entry.summary.get("contests", [])
        for at in closed if isinstance(closed, list) else []:
            if at in asked:
                asked[at].outcome, asked[at].decided = str(entry.summary.get("outcome", "")), (index, entry.time)
                asked[at].late = bool(entry.summary.get("late")) or _past(asked[at].deadline, entry.time)
    return list(asked.values())


def _opened(index: int, entry: LedgerEntry, now: datetime) -> Contest:
    deadline = str(entry.summary.get("deadline", ""))
    return Contest(index, entry.time, deadline, id=entry.id, late=_past(deadline, now.astimezone(UTC).isoformat()))


def _past(deadline: str, time: str) -> bool:
    """False where either is no time."""
    try:
        return datetime.fromisoformat(deadline) < datetime.fromisoformat(time)
    except (ValueError, TypeError):  # TypeError: one of the two without a zone
        return False


def contests_section(dossier: Dossier) -> Safe:
    """Who contested and who decided, and why, is in the encrypted records."""
    every = contests(dossier.ledger, dossier.made)
    waiting = [contest for contest in every if not contest.outcome]
    overdue = sum(contest.late for contest in waiting)
    if not every:
        return section("contests", "Contested decisions", tag("p", "No decision was contested.", class_="none"))
    said = f"{len(every):,} contested, {len(waiting):,} not decided yet, of these {overdue:,} past the deadline."
    rows = [
        [
            tag("span", f"entry {contest.index:,}", class_="entry"),
            contest.opened[:19],
            contest.deadline[:19],
            contest.outcome or "open",
            contest.decided[1][:19] if contest.decided else "",
            pill("late") if contest.late else "",
        ]
        for contest in every[-SHOWN:]
    ]
    if others := len(every) - len(rows):
        said += f" {others:,} older ones are not shown."
    headings = ["contest", "opened", "to be decided by", "outcome", "decided", ""]
    return section(
        "contests", "Contested decisions", tag("p", said), table(headings, rows, "Newest last, times in UTC.")
    )

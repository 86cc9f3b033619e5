"""Times that entries claim, held against the archive's own clock.

What a pod says happened ahead of now can't be; and what is judged or made at the moment it is sent (a verdict, a
training) is never old. What was answered may be: a pod that was cut off ships its journal days later. Such entries are
taken, and one of the archive's own (type ``received``) says when they came, beside what they claim.
"""

import re
from collections.abc import Mapping

from governed_serving.archive.errors import OUT_OF_TIME, Refused
from governed_serving.records import LedgerEntry, timestamp

__all__ = ["AHEAD", "BEHIND", "LATE", "RECEIVED", "STANDS_IN", "TimeBounds"]

AHEAD = 600.0
"""Seconds by which clocks of nodes may differ: no entry may claim a time further ahead than this."""
BEHIND: Mapping[str, float] = dict.fromkeys(("artefact", "dataset", "gates", "training", "verdict"), 3600.0)
"""Seconds that an entry of a type may be old when it comes; others may be as old as a journal that wasn't shipped."""
LATE = 3600.0
"""Seconds after which it is said when an entry came."""
RECEIVED = "received"
"""Type of the entry that says so; only the archive writes it."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
STANDS_IN = frozenset({"deadLetter", "unreadable"})
"""Take the place of what was refused, or can't be read: they say themselves that something was wrong, and refused for
their time they would hold up all that follows."""


class TimeBounds:
    """Of entries that come at ``now`` (seconds since the epoch), by a clock that may be ``lag`` seconds ahead of what
    passed: of what is refused for being old, so much more is taken, and is late. Times of one form compare as texts.
    """

    def __init__(self, now: float, lag: float):
        self._now = timestamp(now)
        self._most, self._late = timestamp(now + AHEAD), timestamp(now - LATE)
        self._least = {type: timestamp(now - lag - seconds) for type, seconds in BEHIND.items()}

    def check(self, number: int, entry: LedgerEntry) -> None:
        """Raises :class:`Refused` (422) for a time that can't be."""
        if entry.type in STANDS_IN:
            return
        if not _TIME.fullmatch(entry.time):
            expected = f"entry {number}: time must be RFC 3339 as in {self._now}"
            raise Refused(422, f"{expected}, found {entry.time[:80]!r}", reason=OUT_OF_TIME)
        ahead = entry.time > self._most
        if ahead or entry.time < self._least.get(entry.type, ""):
            bound = f"{AHEAD:.0f} s ahead" if ahead else f"{BEHIND[entry.type]:.0f} s behind"
            what = f"entry {number}: a {entry.type} claims {entry.time}, more than {bound} of the archive's clock"
            raise Refused(422, f"{what} ({self._now}): set the clock of the node that sent it", reason=OUT_OF_TIME)

    def is_late(self, entry: LedgerEntry) -> bool:
        """Whether it is worth saying when an entry came: it is old, or stands in for one whose time can't be."""
        return not self._late <= entry.time <= self._most

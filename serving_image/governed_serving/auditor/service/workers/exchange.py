"""Exchanges counts with the other replicas' auditors, and finds in the ledger what the labels that wait belong to."""

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.replicas import Replicas
from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState

__all__ = ["ExchangeWorker"]

POLL = 0.5
REFRESH_SECONDS = 2.0
PUBLISH_SECONDS = 15.0
"""Counts are published this often while they change; at once when they grew by ``GROWTH`` or anything but their number
changed."""
GROWTH = 0.05


class ExchangeWorker(Worker):
    """Counts ↔ the archive's states. ``resolver`` None: labels of other replicas' predictions aren't looked for."""

    name = "exchanging"
    every = POLL
    wakes = ("folding", "judging")

    def __init__(
        self,
        state: AuditState,
        replicas: Replicas,
        resolver: CrossReplicaLabelResolver | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._replicas, self._resolver, self._clock = state, replicas, resolver, clock
        self._refreshed_at = self._published_at = float("-inf")
        self._published: _Outline | None = None

    def run_once(self) -> int:
        """Read the others' counts, publish ours, look for predictions of labels that wait. Number of labels settled.

        Raises ArchiveError, CryptoError, JournalError, OSError.
        """
        if self._clock() - self._refreshed_at >= REFRESH_SECONDS:
            self._replicas.refresh()
            self._refreshed_at = self._clock()
        self._publish(final=False)
        return self._settle()

    def finish(self) -> None:
        """Say that our counts are final."""
        self._publish(final=True)

    def _settle(self) -> int:
        if self._resolver is None or self._state.settled:
            return 0
        with self._state.lock:
            labels = self._state.counted.fold.labels
            labels.doubt = bool(self._replicas.tallies)
            waiting, doubtful, corrections = labels.all_waiting(), labels.all_doubtful(), labels.all_corrections()
        settled = self._resolver.look(waiting, doubtful, corrections)
        self._state.settled.extend(settled)
        return len(settled)

    def _publish(self, final: bool) -> None:
        tail = self._state.counted
        with self._state.lock:
            outline = _outline(tail.fold)
            if not (final or self._worth_publishing(outline)):
                return
            tally = tail.fold.tally()
            if tail.live is not None:
                tally = msgspec.structs.replace(tally, beside=tail.live.beside())
        self._replicas.publish(tally, self._state.subject.revision, final)
        self._published, self._published_at = outline, self._clock()

    def _worth_publishing(self, outline: "_Outline") -> bool:
        before = self._published
        if before is None or outline == before:
            return before is None
        grown = any(now > (1 + GROWTH) * then for now, then in zip(outline[:2], before[:2], strict=True))
        due = self._clock() - self._published_at >= PUBLISH_SECONDS
        return grown or due or outline[2:] != before[2:]


class _Outline(NamedTuple):
    """Two counts, and what is told at once when it changes."""

    rows: int
    joined: int
    corrected: int
    absent: frozenset[str]
    alarm: bool
    acknowledged_by: str


def _outline(fold: Fold) -> _Outline:
    alarm, labels = fold.alarm, fold.labels
    return _Outline(
        fold.rows, labels.joined, labels.corrected, frozenset(fold.absent), alarm.active, alarm.acknowledged_by
    )

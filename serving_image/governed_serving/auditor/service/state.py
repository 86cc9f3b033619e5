"""What the auditor's workers share: the counts, the verdict, the labels that were settled elsewhere; all under one
lock."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from governed_api.verdict import BiasVerdict
from governed_serving.auditor.service.label_door import LabelDoor, UncheckedLabel
from governed_serving.auditor.service.label_resolver import Settled
from governed_serving.auditor.service.tail import Tail
from governed_serving.fairness.counts.truth import PostedLabel
from governed_serving.hosting.logs import log
from governed_serving.journal import Journal, JournalError
from governed_serving.records import EventRecord, Frame

__all__ = ["AuditState", "Subject"]

RECORD_PATIENCE = 30.0
"""Seconds that a full journal may take until it has room for a verdict."""


@dataclass(frozen=True)
class Subject:
    """Whose decisions are audited, and by which pod. ``on_trial``: a canary, whose verdict is no verdict over the
    model."""

    model: str
    revision: str
    pod: str = "local"
    on_trial: bool = False


class AuditState:
    """``tail`` None: the model has no bias rules; there are no counts, and nothing is judged.

    Whoever reads or changes what ``tail`` has counted holds ``lock``; calls to other processes are never made under it.
    ``verdict`` is immutable and replaced as a whole: any thread may read it.
    """

    def __init__(self, subject: Subject, journal: Journal, tail: Tail | None = None) -> None:
        self.subject, self.tail = subject, tail
        self.lock = threading.Lock()
        self.door = LabelDoor(tail.fold) if tail is not None else None
        self.stopping = threading.Event()
        self.verdict = BiasVerdict(verdict="Unknown", summary="no samples yet", samples=0, metrics=[])
        self.catching_up = False
        """The last look at the journal found records."""
        self.settled: deque[Settled] = deque()
        """Labels whose prediction was found in the ledger, to be folded: one look's, which waits until they are."""
        self.verdict_refused = False
        """The archive doesn't take the present verdict as it was recorded: it came too late, for example."""
        self.unrecorded = 0
        """Verdicts and alarms that the journal had no room for."""
        self._journal = journal

    @property
    def counted(self) -> Tail:
        """The tail of a model that has bias rules."""
        assert self.tail is not None, "workers of counts run for models with bias rules alone"
        return self.tail

    def admit_labels(self, labels: Sequence[UncheckedLabel]) -> list[PostedLabel]:
        """Those that are to be recorded. Raises Unusable, Contradicting."""
        assert self.door is not None, "labels are taken of models with bias rules alone"
        with self.lock:
            return self.door.admit(labels)

    def forget_labels(self, labels: Sequence[PostedLabel]) -> None:
        """They were admitted, and could not be recorded."""
        assert self.door is not None, "labels are taken of models with bias rules alone"
        with self.lock:
            self.door.forget(labels)

    def shipped(self, record: Frame, index: int) -> None:
        """Told by the shipper: where a record is in the ledger."""
        if not isinstance(record, EventRecord) or record.type != "verdict":
            return
        with self.lock:
            if record.id == self.verdict.id:
                self.verdict = self.verdict.changed(ledger_index=index)

    def refused(self, record: Frame) -> None:
        """Told by the shipper: a dead letter is in a record's place."""
        with self.lock:
            if isinstance(record, EventRecord) and record.type == "verdict" and record.id == self.verdict.id:
                self.verdict_refused = True

    def replace_verdict(self, found: BiasVerdict) -> BiasVerdict:
        """A new verdict; until it is recorded itself, it names the last one that was and said the same."""
        with self.lock:
            before = self.verdict
            names = ("id", "ledger_index") if found.verdict == before.verdict else ()
            self.verdict = found.changed(**{n: getattr(before, n) for n in names if n in before.model_fields_set})
            return self.verdict

    def record_verdict(self, event: EventRecord) -> bool:
        """The event of the present verdict into the journal, and so into the ledger; False when there was no room."""
        with self.lock:  # before it is written: the shipper tells its place in the ledger by this id
            before = self.verdict
            self.verdict = before.without("ledger_index").changed(id=event.id)
            self.verdict_refused = False
        if self.record(event, "verdict not recorded"):
            return True
        with self.lock:
            self.verdict = before
        return False

    def record(self, event: EventRecord, otherwise: str, **about: Any) -> bool:
        """An event into the journal; False, counted and logged as ``otherwise``, when it can't be written."""
        try:
            self._journal.append_blocking(event, RECORD_PATIENCE)
        except (JournalError, TimeoutError) as error:
            self.unrecorded += 1
            log("error", otherwise, error=str(error), **about)
            return False
        return True

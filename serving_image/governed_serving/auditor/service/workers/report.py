"""Tells the operator of the verdict, whenever it, the alarms beside it or what the ledger lacks have changed, and of an
archive that refuses what is shipped."""

from collections.abc import Callable
from typing import NamedTuple

from governed_api.report import PodVerdict, ReportPart
from governed_api.verdict import LEFT_OUT_OF_REPORT, BiasVerdict
from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState
from governed_serving.report.writer import Address, ReportWriter, of_pod

__all__ = ["ReportWorker"]

HEAD = ("verdict", "summary", "samples", "ledger_index", "dead_letters", "unreadable_frames", "open_contests",
        "overdue_contests")  # fmt: skip
"""What the operator reads of each pod's verdict."""
REFUSED = 400
"""Characters of why the archive refuses what is shipped."""


class Present(NamedTuple):
    """What there is to tell. ``alarms`` None: nothing is watched beside the verdict."""

    verdict: BiasVerdict
    alarms: tuple[str, ...] | None
    dead_letters: int
    unreadable: int
    contests: tuple[int, int]
    """(open, overdue)."""
    refused: str
    """Why the archive refuses what is shipped; "": it doesn't."""


class ReportWorker(Worker):
    """Verdict → GovernanceReport: a canary's in brief, the stable revision's in full as well; of a model without bias
    rules dead letters, unreadable frames, contests and refusals alone, when there are any.
    """

    name = "reporting"

    def __init__(
        self,
        state: AuditState,
        writer: ReportWriter,
        dead_letters: Callable[[], int] = lambda: 0,
        unreadable: Callable[[], int] = lambda: 0,
        contests: Callable[[], tuple[int, int]] = lambda: (0, 0),
        refused: Callable[[], str] = str,
    ) -> None:
        subject = state.subject
        self._state, self._writer, self._dead_letters, self._unreadable = state, writer, dead_letters, unreadable
        self._contests, self._refused = contests, refused
        self._own = of_pod(subject.revision, "auditor", subject.pod)
        self._told = self._present()

    def run_once(self) -> int:
        """1 when something was to be told; the writer decides when it goes, and tries again what fails."""
        present = self._present()
        if present == self._told:
            return 0
        self._writer.update_all(self._parts(present))
        self._told = present
        return 1

    def _present(self) -> Present:
        live = self._state.tail.live if self._state.tail is not None else None
        with self._state.lock:
            alarms = tuple(sorted(live.alarms.raised)) if live is not None else None
            counted = (self._dead_letters(), self._unreadable(), self._contests())
            return Present(self._state.verdict, alarms, *counted, self._refused())

    def _parts(self, present: Present) -> dict[Address, ReportPart]:
        part = present.verdict.without(*LEFT_OUT_OF_REPORT)
        if present.alarms is not None:
            part = part.changed(alarms=list(present.alarms))
        if present.dead_letters:
            part = part.changed(dead_letters=present.dead_letters)
        if present.unreadable:
            part = part.changed(unreadable_frames=present.unreadable)
        open, overdue = present.contests
        if present.contests != (0, 0) or self._told.contests != (0, 0):
            part = part.changed(open_contests=open, overdue_contests=overdue)
        head: dict[str, object] = {name: getattr(part, name) for name in HEAD if name in part.model_fields_set}
        if "alarm" in part.model_fields_set:
            head["in_force"] = part.alarm.in_force
        if present.refused or self._told.refused:
            head["refused"] = present.refused[:REFUSED]
        parts: dict[Address, ReportPart] = {self._own: PodVerdict(**head)}
        brief = self._state.subject.on_trial or self._state.tail is None
        return parts if brief else parts | {("auditor",): part}

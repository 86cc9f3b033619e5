"""Tells the operator of the verdict, whenever it or the alarms beside it have changed."""

from governed_api.report import PodVerdict, ReportPart
from governed_api.verdict import BiasVerdict
from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState
from governed_serving.report.writer import Address, ReportWriter, of_pod

__all__ = ["ReportWorker"]

HEAD = ("verdict", "summary", "samples", "ledger_index")
"""What the operator reads of each pod's verdict."""
LEFT_OUT = ("id", "strata", "groups", "intersections", "replicas")
"""Of the report: /v1/verdict has them."""


class ReportWorker(Worker):
    """Verdict → GovernanceReport: a canary's in brief, the stable revision's in full as well."""

    name = "reporting"

    def __init__(self, state: AuditState, writer: ReportWriter) -> None:
        subject = state.subject
        self._state, self._writer = state, writer
        self._own = of_pod(subject.revision, "auditor", subject.pod)
        self._told = self._present()

    def run_once(self) -> int:
        """1 when something was to be told; the writer decides when it goes, and tries again what fails."""
        present = self._present()
        if present == self._told:
            return 0
        verdict, alarms = present
        self._writer.update_all(self._parts(verdict, alarms))
        self._told = present
        return 1

    def _present(self) -> tuple[BiasVerdict, tuple[str, ...] | None]:
        live = self._state.tail.live if self._state.tail is not None else None
        with self._state.lock:
            return self._state.verdict, tuple(sorted(live.alarms.raised)) if live is not None else None

    def _parts(self, verdict: BiasVerdict, alarms: tuple[str, ...] | None) -> dict[Address, ReportPart]:
        part = verdict.without(*LEFT_OUT)
        if alarms is not None:
            part = part.changed(alarms=list(alarms))
        head = {name: getattr(part, name) for name in HEAD if name in part.model_fields_set}
        if "alarm" in part.model_fields_set:
            head["in_force"] = part.alarm.in_force
        parts: dict[Address, ReportPart] = {self._own: PodVerdict(**head)}
        return parts if self._state.subject.on_trial else parts | {("auditor",): part}

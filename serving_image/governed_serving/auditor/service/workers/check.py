"""Looks at what is watched beside the verdict: drift, proxies, counterfactual flips, explanation gaps; raises and ends
their alarms."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from governed_serving.auditor.service.checks import ALL_INPUTS, LEAST_ROWS, Checks, Others
from governed_serving.auditor.service.conversations import Twins
from governed_serving.auditor.service.lane import LANE_ERRORS
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.replicas import Replicas
from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState
from governed_serving.fairness.metrics.measures import SMALLEST_GROUP
from governed_serving.fairness.monitoring.counterfactuals import Columns
from governed_serving.fairness.monitoring.monitors import ColumnDrift, Gap, gaps_of
from governed_serving.hosting.logs import log
from governed_serving.records import EventRecord, timestamp

__all__ = ["CheckWorker"]

POLL = 1.0
CHECK_SECONDS = 60.0
"""Least time between two looks at fresh rows."""
LEAST_CONVERSATIONS = 8
"""Fresh conversations with words to swap that a look waits for."""
CHECK_LEVEL = 0.95


@dataclass(frozen=True)
class _Due:
    """What is to be looked at now; None: nothing of the kind."""

    closed: list[ColumnDrift] | None = None
    rows: Columns | None = None
    gaps: list[Gap] | None = None
    conversations: list[Twins] | None = None

    def __bool__(self) -> bool:
        return self.closed is not None or self.rows is not None or self.conversations is not None


class CheckWorker(Worker):
    """Fresh rows → findings → alarms. ``replicas`` None: this auditor is the only one."""

    name = "checking"
    every = POLL
    wakes = ("reporting",)

    def __init__(
        self,
        state: AuditState,
        live: Live,
        checks: Checks,
        replicas: Replicas | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state, self._live, self._checks, self._clock = state, live, checks, clock
        self.replicas = replicas
        self.checked_at = float("-inf")
        """When fresh rows or conversations were last looked at, on the monotonic clock."""

    def run_once(self) -> int:
        """Look at what is due: a window of drift, fresh rows, explanations. Number of alarms raised or ended."""
        others = self._others()
        due = self._take(others)
        if not due:
            return 0
        self._checks.others = others
        return self._alarms(tuple(self._look(due)))

    def finish(self) -> None:
        """Nothing: a look may take half a minute, and the rows come again."""

    def _others(self) -> Others:
        if self.replicas is None:
            return Others()
        return Others([t.beside for t in self.replicas.tallies], [t.beside for t in self.replicas.running])

    def _take(self, others: Others) -> _Due:
        live, due = self._live, time.monotonic() - self.checked_at >= CHECK_SECONDS
        with self._state.lock:
            closed = live.drift.compared(replica.drift for replica in others.running) if live.window_closed else None
            live.window_closed = False
            rows = live.fresh.take() if due and live.fresh.seen >= LEAST_ROWS else None
            mine = live.attributions.table() if rows else None
            talks = live.conversations.take() if due and live.conversations.seen >= LEAST_CONVERSATIONS else None
        shown = [replica.attributions for replica in others.every]
        bound = live.attributions.bound
        gaps = None if mine is None else gaps_of([mine, *shown], CHECK_LEVEL, SMALLEST_GROUP, bound)
        return _Due(closed, rows, gaps, talks)

    def _look(self, due: _Due) -> list[str]:
        """Beginnings of the subjects that were looked at."""
        looked = []
        if due.closed is not None:
            self._checks.drifts(due.closed)
            looked.append("drift/")
        if due.rows is not None and due.gaps is not None:
            self.checked_at = time.monotonic()
            self._checks.gaps(due.gaps)
            self._checks.rows(due.rows, _unreachable, LANE_ERRORS)
            looked += ["explanations/", "proxies/", "flips/", ALL_INPUTS]
        if due.conversations is not None:
            self.checked_at = time.monotonic()
            going = (twins for twins in due.conversations if not self._state.stopping.is_set())
            self._checks.conversations(going, _unreachable, LANE_ERRORS)
            looked.append("flips/")
        return looked

    def _alarms(self, looked: tuple[str, ...]) -> int:
        changed = 0
        for finding in self._checks.publish():
            whole = finding.subject == ALL_INPUTS
            if not finding.subject.startswith(looked) or (whole and ALL_INPUTS not in looked):
                continue
            now = self._clock()
            with self._state.lock:
                moved = self._live.alarms.observe(finding.subject, breach=finding.breach, calm=finding.calm, now=now)
            if moved:
                changed += 1
                log(
                    "warning" if moved == "raised" else "info",
                    f"alarm {moved}",
                    subject=finding.subject,
                    **finding.figures,
                )
                self._record(finding.subject, moved, finding.figures, now)
        return changed

    def _record(self, subject: str, state: str, figures: Mapping[str, object], now: float) -> None:
        """An alarm that was raised or has ended, into the ledger."""
        about = self._state.subject
        summary = {"kind": subject.split("/", 1)[0], "subject": subject, "state": state, **figures}
        name = f"alarm-{about.revision or 'model'}-{timestamp(now)}"
        body = msgspec.json.encode(summary)
        event = EventRecord("verdict", name, about.model, about.revision, now, body, summary)
        self._state.record(event, "alarm not recorded", subject=subject)


def _unreachable(error: Exception) -> None:
    log("warning", "counterfactuals: predictor unreachable, retrying at the next look", error=str(error))

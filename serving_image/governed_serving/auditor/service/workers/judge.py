"""Judges the counts of all replicas when they have changed, and records a verdict when it differs or is due."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from governed_api.governance import Bias
from governed_api.verdict import AlarmState, BiasVerdict, CountedWindow, wire
from governed_serving.auditor.service.replicas import NOBODY, OtherReplicas, Replicas
from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.state import AuditState
from governed_serving.auditor.service.tally import Tally, Whole, add_up
from governed_serving.fairness.metrics.coverage import set_coverage
from governed_serving.fairness.metrics.promise import promise_of
from governed_serving.fairness.metrics.roster import enrolled
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.records import EventRecord, timestamp

__all__ = ["JudgeWorker"]

JUDGE_SECONDS = 1.0
JUDGE_SHARE = 0.05
"""Of the time, while records come."""
LABEL_SHARE = 0.2
"""Of the time, while records come and labels are among them: a label shows within seconds."""
RECORD_SECONDS = 300.0
"""A verdict goes into the ledger when it changes, and this often while samples come."""
GRACE_SECONDS = 10.0
"""So long a verdict waits for the other replicas' counts after a start."""


@dataclass(frozen=True)
class _Recorded:
    """What the last recorded verdict said, when, and the digest of the counts that it rested on."""

    outline: tuple[str, ...] = ()
    at: float = 0.0
    evidence: str = ""


class JudgeWorker(Worker):
    """Counts → verdict. ``replicas`` None: this auditor is the only one."""

    name = "judging"
    longest_pause = 5.0
    wakes = ("reporting",)
    vital = True

    def __init__(
        self,
        state: AuditState,
        replicas: Replicas | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._replicas, self._clock, self._monotonic = state, replicas, clock, monotonic
        self._begun = monotonic()
        self._judged: tuple[object, ...] = ()
        self._again = self._with_labels = 0.0
        self._recorded = _Recorded()

    def run_once(self) -> int:
        """1 for a new verdict. While records pour in, judging may take a share of the time and no more."""
        if self._state.catching_up and self._monotonic() < self._due():
            return 0
        return self._judge_if_changed()

    def _due(self) -> float:
        labelled = self._judged[1] if self._judged else (0, 0)
        return self._again if self._labelled() == labelled else self._with_labels

    def _labelled(self) -> tuple[int, int]:
        labels = self._state.counted.fold.labels
        return labels.joined, labels.corrected

    def finish(self) -> None:
        """The last verdict, recorded with the counts that it rests on, and kept."""
        self._judge_if_changed()
        if self._state.verdict.evidence != self._recorded.evidence:
            others = self._others() or NOBODY
            with self._state.lock:
                own = self._state.counted.fold.tally()
            self._record(self._recorded.outline, _counts(add_up(own, others.tallies)))
        with self._state.lock:
            self._state.counted.save()

    def _judge_if_changed(self) -> int:
        others = self._others()
        if others is None:
            return 0
        with self._state.lock:
            fold = self._state.counted.fold
            counted = (fold.rows, self._labelled(), fold.alarm.acknowledged_by, others.sources)
            if counted == self._judged and not self._is_to_be_said_again():
                return 0
            own = fold.tally()
        if counted == self._judged:
            self._record(self._recorded.outline, _counts(add_up(own, others.tallies)))
            return 1
        began = self._monotonic()
        self._judge(own, others)
        now = self._monotonic()
        pauses = (max(JUDGE_SECONDS, (now - began) / share) for share in (JUDGE_SHARE, LABEL_SHARE))
        self._judged = counted
        self._again, self._with_labels = (now + pause for pause in pauses)
        return 1

    def _is_to_be_said_again(self) -> bool:
        """The archive took no verdict that was recorded while it was away for long; not more often than others are
        recorded, since a clock that is wrong stays wrong."""
        return self._state.verdict_refused and self._clock() - self._recorded.at >= RECORD_SECONDS

    def _others(self) -> OtherReplicas | None:
        """None: the others' counts aren't known yet, and may come within moments."""
        if self._replicas is None:
            return NOBODY
        if self._replicas.others is None and self._monotonic() - self._begun >= GRACE_SECONDS:
            return NOBODY
        return self._replicas.others

    def _judge(self, own: Tally, others: OtherReplicas) -> None:
        bias, now = self._state.counted.fold.bias, self._clock()
        whole = add_up(own, others.tallies)
        roster = enrolled(whole.roster, bias, whole.cells, now)
        with self._state.lock:
            self._state.counted.fold.roster = roster
        judged, counts = judge(bias, whole.cells, roster, whole.corrected), _counts(whole)
        if bands := self._state.counted.fold.bands:
            judged = judged.changed(bands=bands)
        fold = self._state.counted.fold
        if fold.promised is not None:
            covered = set_coverage(bias, fold.promised, whole.coverage, roster, fold.calibration, whole.first_coverage)
            judged = judged.changed(coverage=covered)
        verdict = self._state.replace_verdict(
            judged.changed(
                summary=_summary(judged, whole.absent),
                alarm=self._alarm(judged, whole, others, now),
                revision=self._state.subject.revision,
                window=_window(bias, judged.samples, whole.rows),
                evidence=sha256(msgspec.json.encode(counts)).hexdigest(),
                time=timestamp(now),
                replicas=others.sources,
            )
        )
        outline = _outline(verdict)
        if outline != self._recorded.outline or now - self._recorded.at >= RECORD_SECONDS:
            self._record(outline, counts)

    def _alarm(self, judged: BiasVerdict, whole: Whole, others: OtherReplicas, now: float) -> AlarmState:
        with self._state.lock:
            fold = self._state.counted.fold
            alarm = msgspec.structs.replace(fold.alarm)
            alarm.observe(judged.verdict, whole.rows, now)
            for other in others.tallies:
                alarm.hear(other.alarm)
            fold.alarm = alarm  # as a whole: others see the state before or after, none between
        return alarm.report()

    def _record(self, outline: tuple[str, ...], counts: Mapping[str, object]) -> None:
        """The verdict and the counts it rests on, into the journal and so into the ledger."""
        now, subject, verdict = self._clock(), self._state.subject, self._state.verdict
        told = wire(verdict)
        summary = {name: told[name] for name in ("verdict", "samples", "summary", "evidence")}
        summary["inForce"] = verdict.alarm.in_force
        body = msgspec.json.encode({"verdict": told, "counts": counts})
        name = f"verdict-{subject.revision or 'model'}-{timestamp(now)}"
        if self._state.record_verdict(
            EventRecord("verdict", name, subject.model, subject.revision, now, body, summary)
        ):
            self._recorded = _Recorded(outline, now, verdict.evidence)


def _counts(whole: Whole) -> dict[str, object]:
    """All that the verdict is a function of, beside the manifest: plain data. With corrected labels also as if none
    had been."""
    counts = whole.cells.dump()
    if whole.corrected is None:
        return counts
    first, rows, labelled = whole.corrected
    return {**counts, "first": first.dump(), "corrected": [rows, labelled]}


def _window(bias: Bias, rows: int, folded: int) -> CountedWindow:
    promise = promise_of(bias)
    return CountedWindow(
        type=bias.window.type,
        rows=rows,
        folded=folded,
        false_verdict_chance=promise.chance,
        within_rows=promise.within_rows,
        average_rows_to_false_verdict=promise.average_rows,
    )


def _outline(verdict: BiasVerdict) -> tuple[str, ...]:
    """A change of this is recorded at once."""
    metrics = (f"{m.attribute}/{m.group}/{m.name}/{m.verdict}" for m in verdict.metrics)
    return (verdict.verdict, *metrics, verdict.alarm.in_force)


def _summary(judged: BiasVerdict, absent: frozenset[str]) -> str:
    """The summary, with the attributes that predictions don't carry, or not always."""
    summary = judged.summary
    if absent:
        summary = f"predictions don't carry {', '.join(sorted(absent))}; {summary}"
    for name, rows in judged.missing.items():
        if name not in absent:
            summary += f"; {name} missing in {rows} of {judged.samples}"
    return summary

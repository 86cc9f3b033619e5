"""Prometheus metrics of the auditor: base units, no request or user ids in labels."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from governed_api.verdict import MetricFinding, SetCoverage
from governed_serving.auditor.service.checks import MonitoringFinding

__all__ = ["AuditorMetrics"]

_GAUGES = {
    "governed_journal_backlog_bytes": "Bytes in the spool that the archive hasn't taken yet",
    "governed_auditor_rows": "Rows folded into the window",
    "governed_auditor_replicas": "Replicas whose counts the verdict adds up, ended ones included",
    "governed_auditor_records_total": "Journal records folded",
    "governed_auditor_shipped_entries_total": "Ledger entries shipped",
    "governed_auditor_shipped_bytes_total": "Sealed bytes shipped",
    "governed_auditor_ship_failures_total": "Attempts to ship that failed",
    "governed_auditor_dead_letters_total": (
        "Ledger entries that the archive refused for ever, a dead letter in place of each"
    ),
    "governed_auditor_unreadable_frames_total": (
        "Frames of the journal damaged before they were shipped, a ledger entry in their place"
    ),
    "governed_auditor_unusable_rows_total": "Rows without an output that says whether it favours",
    "governed_auditor_labels_joined_total": "Rows whose label has been joined",
    "governed_auditor_labels_corrected_total": "Rows whose label was replaced by a correction",
    "governed_auditor_labels_waiting": "Labels whose prediction isn't known yet",
    "governed_auditor_label_memory_requests": "Requests that a label can join from memory",
    "governed_auditor_unrecorded_verdicts_total": "Verdicts that the journal had no room for",
    "governed_auditor_contests_open": "Contested decisions of the whole model that no person has decided",
    "governed_auditor_contests_overdue": "Of these, past their deadline",
    "governed_auditor_flip_prompts_total": "Prompts put to a runtime for counterfactuals",
    "governed_auditor_flip_passed_over_total": (
        "Completions whose prompt can't be replayed: too long, or several at once"
    ),
    "governed_auditor_flip_failures_total": (
        "Looks at counterfactuals (or single prompts) in which the predictor didn't answer"
    ),
    "governed_auditor_unauthorized_total": "Requests turned away since they didn't show the port's token",
}
_VERDICT = "governed_auditor_bias_verdict"


class AuditorMetrics:
    """One registry per process (or per test), and one for what tells of rows, groups and verdicts."""

    def __init__(self, namespace: str, model: str) -> None:
        self.registry, self.of_data = CollectorRegistry(), CollectorRegistry()
        self._labels = (namespace, model)
        names = ["namespace", "name"]
        self._gauges = {
            name: Gauge(name, text, names, registry=self.registry).labels(*self._labels)
            for name, text in _GAUGES.items()
        }
        verdict = Gauge(_VERDICT, "1 pass, 0 fail, -1 unknown", names, registry=self.of_data)
        self._gauges[_VERDICT] = verdict.labels(*self._labels)
        self._dropped = Gauge(
            "governed_auditor_labels_dropped_total",
            "Labels dropped (no matching prediction, not its first label, or no correction of it), by reason",
            [*names, "reason"],
            registry=self.registry,
        )
        self._refused = Gauge(
            "governed_auditor_labels_refused_total",
            "Labels turned away when they were posted: no label, or another than the prediction has, by reason",
            [*names, "reason"],
            registry=self.registry,
        )
        self._failures = Gauge(
            "governed_auditor_worker_failures_total", "Runs of a worker that failed; it is run again",
            [*names, "worker"], registry=self.registry,
        )  # fmt: skip
        self._failing = Gauge(
            "governed_auditor_worker_failing", "1 while a worker's last run failed",
            [*names, "worker"], registry=self.registry,
        )  # fmt: skip
        self._missing = Gauge(
            "governed_auditor_attribute_missing_rows", "Rows of the window in which a protected attribute isn't known",
            [*names, "attribute"], registry=self.of_data,
        )  # fmt: skip
        self._findings = Gauge(
            "governed_auditor_finding",
            "Drift (PSI, MMD²), proxies (Cramér's V), flips (rate), explanations (gap) by subject",
            [*names, "kind", "subject"], registry=self.of_data,
        )  # fmt: skip
        self._alarms = Gauge(
            "governed_auditor_alarm", "1 while an alarm about a subject is raised",
            [*names, "kind", "subject"], registry=self.of_data,
        )  # fmt: skip
        self._coverage = Gauge(
            "governed_auditor_set_coverage",
            "Share of labelled rows whose prediction set or interval holds the truth",
            [*names, "attribute", "group"], registry=self.of_data,
        )  # fmt: skip
        self._bias = Gauge(
            "governed_bias_metric", "Fairness metric of a group against the reference",
            [*names, "metric", "attribute", "group"], registry=self.of_data,
        )  # fmt: skip

    def set(self, values: Mapping[str, float]) -> None:
        """Values by name, without the prefix ``governed_``."""
        for name, value in values.items():
            self._gauges[f"governed_{name}"].set(value)

    def refused(self, reasons: Mapping[str, int]) -> None:
        for reason, count in reasons.items():
            self._refused.labels(*self._labels, reason).set(count)

    def dropped(self, reasons: Mapping[str, int]) -> None:
        for reason, count in reasons.items():
            self._dropped.labels(*self._labels, reason).set(count)

    def workers(self, failures: Mapping[str, int], failing: Iterable[str]) -> None:
        """Failed runs by worker, and the workers that fail now."""
        stalled = set(failing)
        for worker, count in failures.items():
            self._failures.labels(*self._labels, worker).set(count)
            self._failing.labels(*self._labels, worker).set(worker in stalled)

    def missing(self, rows: Mapping[str, int]) -> None:
        """Rows by protected attribute, of those that lack one."""
        self._missing.clear()
        for attribute, count in rows.items():
            self._missing.labels(*self._labels, attribute).set(count)

    def findings(self, found: Iterable[MonitoringFinding], raised: Iterable[str]) -> None:
        """What was looked at last, and which alarms are on."""
        self._findings.clear()
        self._alarms.clear()
        for finding in found:
            self._findings.labels(*self._labels, *finding.subject.split("/", 1)).set(finding.value)
        for subject in list(raised):
            self._alarms.labels(*self._labels, *subject.split("/", 1)).set(1)

    def bias(self, metrics: Iterable[MetricFinding]) -> None:
        """Metrics of a verdict; one that isn't defined is left out."""
        self._bias.clear()
        for metric in metrics:
            if metric.value is not None:
                labels = (*self._labels, metric.name, metric.attribute, metric.group)
                self._bias.labels(*labels).set(metric.value)

    def coverage(self, sets: SetCoverage | None) -> None:
        """Of prediction sets or intervals; of all rows: without attribute."""
        self._coverage.clear()
        lines = [] if sets is None else [("", sets.overall)]
        lines += [(name, group) for name, groups in (sets.groups if sets else {}).items() for group in groups]
        for attribute, group in lines:
            if group.coverage is not None:
                self._coverage.labels(*self._labels, attribute, group.group).set(group.coverage)

    def turned_away(self) -> None:
        self._gauges["governed_auditor_unauthorized_total"].inc()

    def text(self, *, of_data: bool = True) -> bytes:
        """All families; without ``of_data`` those that say how the process fares."""
        text = generate_latest(self.registry)
        return text + generate_latest(self.of_data) if of_data else text

"""Prometheus metrics of the explainer: base units, no request or user ids in labels."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["ExplainerMetrics"]


class ExplainerMetrics:
    """One registry per process (or per test)."""

    def __init__(self, namespace: str, model: str) -> None:
        self.registry = CollectorRegistry()
        names = ["namespace", "model_name"]
        self._labels = (namespace, model)
        self._requests = Counter(
            "governed_explainer_requests_total",
            "Explanations asked for",
            [*names, "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "governed_explainer_duration_seconds",
            "Time of an explanation",
            [*names, "method"],
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
        )
        self._evaluations = Counter(
            "governed_explainer_evaluations_total", "Rows that the model was asked for", names, registry=self.registry
        )
        self._dropped = Counter(
            "governed_explainer_dropped_total",
            "Sampled requests left unexplained",
            [*names, "reason"],
            registry=self.registry,
        )
        self._sampled = Counter(
            "governed_explainer_sampled_total", "Live requests explained into the ledger", names, registry=self.registry
        )
        self.queue = Gauge("governed_explainer_queue_depth", "Jobs that wait", names, registry=self.registry).labels(
            *self._labels
        )
        self.drift = Gauge(
            "governed_explainer_importance_drift_ratio",
            "Total variation between reference and recent global importances",
            names,
            registry=self.registry,
        ).labels(*self._labels)

        self._alarms = Counter(
            "governed_explainer_importance_alarms_total",
            "Windows whose global importances differ from the reference",
            names,
            registry=self.registry,
        )
        self._quality = Gauge(
            "governed_explainer_quality",
            "Mean of a quality measure over the explanations of the current window",
            [*names, "measure"],
            registry=self.registry,
        )

        self._ended = Counter(
            "governed_explainer_engine_ended_total",
            "Processes of another's engine that were cut for a budget, or lost",
            [*names, "reason"],
            registry=self.registry,
        )

    def engine_ended(self, reason: str) -> None:
        self._ended.labels(*self._labels, reason).inc()

    def graded(self, means: Mapping[str, float]) -> None:
        """Means by measure (governed_serving.explainer.overall.quality_windows.MEASURES)."""
        for measure, mean in means.items():
            self._quality.labels(*self._labels, measure).set(mean)

    def alarmed(self) -> None:
        self._alarms.labels(*self._labels).inc()

    def answered(self, method: str, status: int, seconds: float, evaluations: int) -> None:
        self._requests.labels(*self._labels, method, str(status)).inc()
        self._seconds.labels(*self._labels, method).observe(seconds)
        self._evaluations.labels(*self._labels).inc(evaluations)

    def refused(self, status: int) -> None:
        self._requests.labels(*self._labels, "", str(status)).inc()

    def sampled(self, count: int) -> None:
        self._sampled.labels(*self._labels).inc(count)

    def dropped(self, reason: str, count: int) -> None:
        self._dropped.labels(*self._labels, reason).inc(count)

    def text(self) -> bytes:
        return generate_latest(self.registry)

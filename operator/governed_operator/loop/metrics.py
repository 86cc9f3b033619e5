"""What the operator counts for Prometheus."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from governed_operator.loop.workqueue import WorkQueue
from governed_operator.watch.cache import ModelKey


class OperatorMetrics(Collector):
    """One registry per operator; gauges are read when scraped."""

    def __init__(self, queue: WorkQueue) -> None:
        self.registry = CollectorRegistry()
        self._queue = queue
        self._conditions: dict[ModelKey, dict[str, str]] = {}
        buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
        self.reconciles = Histogram(
            "governed_operator_reconcile_seconds", "Duration of one reconcile.", ["result"], registry=self.registry,
            buckets=buckets,
        )  # fmt: skip
        self.errors = Count("governed_operator_errors", "Failed reconciles.", ["reason"], registry=self.registry)
        self._writes: Counter[tuple[str, str]] = Counter()
        self.watch_breaks = Count("governed_operator_watch_breaks", "Watches lost.", ["kind"], registry=self.registry)
        self.registry.register(self)

    def note(self, key: ModelKey, conditions: dict[str, str] | None) -> None:
        """Conditions of a model by type; None forgets it."""
        if conditions is None:
            self._conditions.pop(key, None)
        else:
            self._conditions[key] = conditions

    def wrote(self, kind: str, verb: str) -> None:
        """One write to the API server."""
        self._writes[kind, verb] += 1

    def collect(self) -> Iterator[Metric]:
        """Writes, models by condition, and models that wait."""
        writes = CounterMetricFamily("governed_operator_writes", "Writes to the API server.", labels=["kind", "verb"])
        for (kind, verb), number in sorted(self._writes.items()):
            writes.add_metric([kind, verb], number)
        yield writes
        depth = GaugeMetricFamily("governed_operator_queue_depth", "Models that wait for a reconcile.")
        depth.add_metric([], len(self._queue))
        yield depth
        models = GaugeMetricFamily(
            "governed_operator_models", "Models by condition and status.", labels=["condition", "status"]
        )
        counts = Counter(item for conditions in self._conditions.values() for item in conditions.items())
        for (kind, status), number in sorted(counts.items()):
            models.add_metric([kind, status], number)
        yield models

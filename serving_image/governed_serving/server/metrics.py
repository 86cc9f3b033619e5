"""Counters of the server as Prometheus text: plain integers on the hot path, labelled when scraped.

Prefix governed_, base units, labels namespace, name, model_name, component; never a user or a request id.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from governed_api.latency import BOUNDS, SECONDS, STEPS
from governed_serving.privacy.errors import Reason

__all__ = ["Histogram", "ServerMetrics"]

_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)
_LABELS = ("namespace", "name", "model_name", "component")

_COUNTERS = {
    "request_rows": "Rows predicted for answered requests.",
    "journal_records": "Requests written to the journal before their answer.",
    "journal_lost_records": "Requests answered though the journal could not be written (failurePolicy Open).",
    "promises": "Answers that carried a signed promise.",
    "masking_failures": "Times that masking erred.",
    "tokens": "Tokens that requests used.",
    "tokens_overrun": "Tokens used beyond a quota because a reservation was too small.",
    "internal_rows": "Rows computed for the explainer.",
    "internal_refused": "Calls of the explainer's turned away: too many at a time, or their process had just died.",
    "internal_unauthorized": "Calls of the internal lane turned away since they didn't show its token.",
    "internal_restarts": "Times that the process for the explainer's rows ended by itself.",
    "attributes_missing": "Attributes that a request's metadata didn't name; the auditor counts it among the missing.",
    "base_decisions": "Rows of groups without thresholds of their own, decided by the model's own.",
    "client_made_errors": "Answers of status 500 or more that a client alone brought about.",
    "streams_cut": "Streams whose client left before the end.",
}


class Histogram:
    """Counts per bucket; ``observe`` costs one bisection. Prometheus sees every ``steps``-th bound."""

    __slots__ = ("_bounds", "_steps", "_sum", "counts")

    def __init__(self, bounds: tuple[float, ...], steps: int = 1) -> None:
        self._bounds, self._steps = bounds, steps
        self.counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets and the sum."""
        below = list(accumulate(self.counts))
        out = [(str(self._bounds[k]), float(below[k])) for k in range(0, len(self._bounds), self._steps)]
        return [*out, ("+Inf", float(below[-1]))], self._sum


class ServerMetrics(Collector):
    """All counters of one server process."""

    def __init__(self, namespace: str, name: str, model_name: str = "") -> None:
        self._values = [namespace, name, model_name or name, "server"]
        self.count = dict.fromkeys(_COUNTERS, 0)
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.seconds = Histogram(BOUNDS, STEPS)
        self.predict_seconds = Histogram(SECONDS)
        self.batch_requests = Histogram(_SIZES)
        self.masked: Mapping[str, int] = {}
        """Entity → findings masked; set by who makes the masker."""
        self.names: Mapping[str, int] = {}
        """Reason → texts whose names could not be searched; set likewise."""
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(namespace="governed", registry=self._registry)

    def counted(self, verb: str, status: int, *, client_made: bool = False) -> None:
        """One answered request; ``client_made`` as in :class:`~governed_serving.server.errors.ServerError`."""
        self.requests[verb, status] += 1
        if client_made and status >= 500:
            self.count["client_made_errors"] += 1

    def text(self) -> bytes:
        """Prometheus text exposition."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        for key, text in _COUNTERS.items():
            family = CounterMetricFamily(f"governed_{key}", text, labels=_LABELS)
            family.add_metric(self._values, self.count[key])
            yield family
        yield self._requests()
        refusals = CounterMetricFamily(
            "governed_quota_refusals", "Requests refused by a quota.", labels=[*_LABELS, "quota"]
        )
        for quota in ("requests", "tokens", "concurrency", "caller_requests", "caller_tokens", "caller_concurrency"):
            refusals.add_metric([*self._values, quota], self.refusals[quota])
        yield refusals
        masked = CounterMetricFamily(
            "governed_masked_entities", "Personal data masked, by kind.", labels=[*_LABELS, "entity"]
        )
        for entity, number in sorted(self.masked.items()):
            masked.add_metric([*self._values, entity], number)
        yield masked
        yield self._names()
        for key, text, histogram in (
            ("request_duration_seconds", "From the request's arrival in the data plane to its answer.", self.seconds),
            ("predict_duration_seconds", "Masking, model and record of one batch.", self.predict_seconds),
            ("batch_requests", "Requests that shared one call of the model.", self.batch_requests),
        ):
            family_h = HistogramMetricFamily(f"governed_{key}", text, labels=_LABELS)
            buckets, total = histogram.buckets()
            family_h.add_metric(self._values, buckets, total)
            yield family_h
        for key, (text, read) in self.gauges.items():
            gauge = GaugeMetricFamily(f"governed_{key}", text, labels=_LABELS)
            gauge.add_metric(self._values, read())
            yield gauge

    def _names(self) -> Metric:
        family = CounterMetricFamily(
            "governed_names_failures",
            "Texts whose names could not be searched, by reason.",
            labels=[*_LABELS, "reason"],
        )
        for reason in get_args(Reason):
            family.add_metric([*self._values, reason], self.names.get(reason, 0))
        return family

    def _requests(self) -> Metric:
        family = CounterMetricFamily("governed_requests", "Answered requests.", labels=[*_LABELS, "verb", "code"])
        for (verb, code), count in sorted(self.requests.items()):
            family.add_metric([*self._values, verb, str(code)], count)
        return family

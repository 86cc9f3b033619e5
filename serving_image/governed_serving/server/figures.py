"""What a server reports of its requests, taken from its metrics: counts, which add up over replicas."""

import time
from collections import deque
from collections.abc import Callable
from typing import TypedDict

from governed_serving.server.metrics import ServerMetrics

__all__ = ["Figures"]

WINDOW = 900.0
"""Seconds of latencies: a revision is compared with another over the same, recent load."""
SNAPSHOT = 60.0
"""Seconds between snapshots that the window begins at."""


class ServedFigures(TypedDict, total=False):
    """Fields of ``ServerReport``."""

    requests: int
    errors: int
    latencyCounts: list[int]
    """Per bucket of governed_api.latency, without the empty ones at the end."""


class Figures:
    """Reads ``metrics`` (None until the model is loaded)."""

    def __init__(
        self, metrics: Callable[[], ServerMetrics | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._snapshots: deque[tuple[float, list[int]]] = deque()
        self._told = (0, 0)

    def take(self) -> ServedFigures:
        """requests, errors (status 500 or more, those left out that clients alone brought about), latencyCounts;
        empty until the model is loaded."""
        metrics = self._metrics()
        if metrics is None:
            return {}
        answered = list(metrics.requests.items())
        return {
            "requests": sum(count for _, count in answered),
            "errors": sum(count for (_, code), count in answered if code >= 500) - metrics.count["client_made_errors"],
            "latencyCounts": _trimmed(self._recent(metrics.seconds.counts)),
        }

    def significant(self, figures: ServedFigures) -> bool:
        """Worth a write of its own: the first error, or twice the requests that were last told."""
        requests, errors = self._told
        return bool(figures["requests"] >= max(1, 2 * requests) or (figures["errors"] and not errors))

    def told(self, figures: ServedFigures) -> None:
        """Remember what has been written."""
        self._told = (figures["requests"], figures["errors"])

    def _recent(self, counts: list[int]) -> list[int]:
        now = self._clock()
        if not self._snapshots:
            self._snapshots.append((now, [0] * len(counts)))
        if now - self._snapshots[-1][0] >= SNAPSHOT:
            self._snapshots.append((now, list(counts)))
        while len(self._snapshots) > 1 and now - self._snapshots[1][0] >= WINDOW:
            self._snapshots.popleft()
        begin = self._snapshots[0][1]
        return [after - before for before, after in zip(begin, counts, strict=True)]


def _trimmed(counts: list[int]) -> list[int]:
    length = len(counts)
    while length and not counts[length - 1]:
        length -= 1
    return counts[:length]

"""How good explanations are, over time: faithfulness, stability, complexity, additivity and uncertainty by window.

A window keeps a count, a sum, a sum of squares and the extremes of each measure: constant memory, and windows of
replicas, or of an independent reading of the ledger, add up to what one process would have counted.
"""

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from governed_serving.decoding import decode_msgpack

__all__ = ["MEASURES", "QualityWindow", "QualityWindows", "measured"]

MEASURES = {
    "faithfulness": "order of deletion and insertion: 0 no better than its reverse, towards 1 the better",
    "stability": "rank correlation of the attributions against the two halves of the background",
    "complexity": "effective number of features that carry the explanation",
    "additivity_gap": "|prediction − base − sum of attributions|",
    "uncertainty": "mean half-width of the intervals, as a share of the attributions' range",
}


class Moments(msgspec.Struct):
    """Of one measure; ``least`` and ``most`` hold nothing until ``count`` is 1."""

    count: int = 0
    total: float = 0.0
    square: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def add(self, value: float) -> None:
        self.merge(Moments(1, value, value * value, value, value))

    def merge(self, other: "Moments") -> None:
        self.count += other.count
        self.total += other.total
        self.square += other.square
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def report(self) -> dict[str, float]:
        mean = self.total / self.count
        spread = math.sqrt(max(self.square / self.count - mean * mean, 0.0))
        return {"count": self.count, "mean": mean, "deviation": spread, "least": self.least, "most": self.most}


class WindowReport(TypedDict):
    """A window, JSON-ready; ``measures``: measure → count, mean, deviation, least, most."""

    start: int
    explanations: int
    exact: int
    measures: dict[str, dict[str, float]]


class QualityWindow(msgspec.Struct):
    """``start`` in seconds since the epoch, a multiple of the window's length."""

    start: int
    explanations: int = 0
    exact: int = 0
    measures: dict[str, Moments] = {}

    def add(self, measures: Mapping[str, float], exact: bool) -> None:
        self.explanations += 1
        self.exact += exact
        for name, value in measures.items():
            self.measures.setdefault(name, Moments()).add(value)

    def merge(self, other: "QualityWindow") -> None:
        self.explanations += other.explanations
        self.exact += other.exact
        for name, moments in other.measures.items():
            self.measures.setdefault(name, Moments()).merge(moments)

    def report(self) -> WindowReport:
        measures = {name: self.measures[name].report() for name in MEASURES if name in self.measures}
        return {"start": self.start, "explanations": self.explanations, "exact": self.exact, "measures": measures}


class QualityWindows:
    """The newest ``kept`` windows of ``length`` seconds."""

    def __init__(self, length: int = 3600, kept: int = 168) -> None:
        self.length, self.kept = length, kept
        self.windows: dict[int, QualityWindow] = {}

    def observe(self, time: float, explanation: Mapping[str, Any]) -> list[QualityWindow]:
        """Folds one explanation (an item of an answer's ``explanations``); the windows that its time has closed, oldest
        first."""
        measures = measured(explanation)
        if not measures:
            return []
        start = int(time // self.length) * self.length
        fresh = start not in self.windows
        closed = [w for w in self.windows.values() if w.start == max(self.windows)] if fresh else []
        self.windows.setdefault(start, QualityWindow(start)).add(measures, bool(explanation.get("exact")))
        self._forget()
        return [window for window in closed if window.start < start]

    def merge(self, other: "QualityWindows") -> None:
        """Adds another's windows, of the same length."""
        assert other.length == self.length, "windows of one length add up"
        for start, window in other.windows.items():
            self.windows.setdefault(start, QualityWindow(start)).merge(window)
        self._forget()

    def report(self) -> dict[str, object]:
        """JSON-ready, oldest window first."""
        return {
            "window_seconds": self.length,
            "measures": MEASURES,
            "windows": [self.windows[start].report() for start in sorted(self.windows)],
        }

    def latest(self) -> dict[str, float]:
        """Mean of each measure in the newest window."""
        if not self.windows:
            return {}
        return {
            name: measure.total / measure.count for name, measure in self.windows[max(self.windows)].measures.items()
        }

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(list(self.windows.values()))

    def restore(self, data: bytes) -> None:
        self.windows = {w.start: w for w in decode_msgpack(data, type=list[QualityWindow])}

    def _forget(self) -> None:
        for start in sorted(self.windows)[: -self.kept]:
            del self.windows[start]


def measured(explanation: Mapping[str, Any]) -> dict[str, float]:
    """The measures that an explanation has; empty for one that attributes nothing (anchors, counterfactuals)."""
    entries = explanation.get("attributions")
    if not entries:
        return {}
    values = [float(entry["attribution"]) for entry in entries]
    intervals = [entry["interval"] for entry in entries if entry.get("interval")]
    widths = [(upper - lower) / 2 for lower, upper in intervals if lower is not None and upper is not None]
    spread = max(values) - min(values)
    residual = explanation.get("additivity_residual")
    measures = {
        "faithfulness": (explanation.get("fidelity") or {}).get("order"),
        "stability": explanation.get("stability"),
        "complexity": explanation.get("complexity"),
        "additivity_gap": None if residual is None else abs(residual),
        "uncertainty": sum(widths) / len(widths) / spread if widths and spread > 0 else None,
    }
    return {name: float(value) for name, value in measures.items() if value is not None and math.isfinite(value)}

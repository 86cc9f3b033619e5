"""Drift of one column: how far recent values are from the reference. Histograms and counts merge like everything else here."""

from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.hypotheses import TestResult

__all__ = [
    "kolmogorov_smirnov",
    "kolmogorov_tail",
    "population_stability",
    "quantile_edges",
]

Floats = NDArray[np.float64]


def quantile_edges(reference: NDArray[Any], bins: int = 10) -> Floats:
    """Inner borders that cut ``reference`` into about equal parts; fewer where values repeat."""
    inner = np.quantile(np.asarray(reference, np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(inner)


def population_stability(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """PSI of two histograms over the same bins (counts): Σ (q − p) log(q/p), half a case added to every bin.

    Common reading: below .1 stable, above .25 shifted (Siddiqi 2006).
    """
    p, q = (np.asarray(h, np.float64) + 0.5 for h in (expected, found))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_smirnov(one: NDArray[Any], two: NDArray[Any]) -> TestResult:
    """Two-sample test: largest gap between the distribution functions, and its asymptotic p-value."""
    a, b = np.sort(np.asarray(one, np.float64)), np.sort(np.asarray(two, np.float64))
    everything = np.concatenate([a, b])
    gap = np.searchsorted(a, everything, "right") / len(a) - np.searchsorted(b, everything, "right") / len(b)
    statistic = float(np.abs(gap).max())
    effective = len(a) * len(b) / (len(a) + len(b))
    return TestResult(statistic, kolmogorov_tail(sqrt(effective) * statistic))


def kolmogorov_tail(x: float) -> float:
    """P(K > x) of Kolmogorov's law."""
    if x < 0.2:
        return 1.0
    total = 2 * sum((-1) ** (k - 1) * exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(max(total, 0.0), 1.0))

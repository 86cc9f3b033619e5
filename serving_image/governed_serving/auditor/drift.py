"""Drift of inputs and outputs: how far recent values are from the reference.

Histograms and counts merge like everything else here; MMD needs rows, and takes a bounded sample of them.
"""

from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.auditor.hypotheses import TestResult

__all__ = [
    "kolmogorov_smirnov",
    "kolmogorov_tail",
    "maximum_mean_discrepancy",
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


def maximum_mean_discrepancy(
    one: NDArray[Any], two: NDArray[Any], *, permutations: int = 200, most: int = 500, seed: int = 0
) -> TestResult:
    """Unbiased MMD² with a Gaussian kernel at the median distance, p-value by permutation (Gretton et al. 2012).

    ``one``, ``two``: (rows, columns), numeric, scaled alike by the caller; at most ``most`` rows of each are used.
    """
    rng = np.random.default_rng(seed)
    a, b = (rng.permutation(np.asarray(x, np.float64))[:most] for x in (one, two))
    rows = np.concatenate([a, b])
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    scale = np.median(distances[distances > 0]) if (distances > 0).any() else 1.0
    kernel = np.exp(-distances / scale)
    np.fill_diagonal(kernel, 0)
    statistic = _discrepancy(kernel, np.arange(len(rows)) < len(a))
    shuffled = [_discrepancy(kernel, rng.permutation(len(rows)) < len(a)) for _ in range(permutations)]
    larger = sum(value >= statistic for value in shuffled)
    return TestResult(statistic, (1 + larger) / (1 + permutations))


def _discrepancy(kernel: Floats, first: NDArray[np.bool_]) -> float:
    x = first.astype(np.float64)
    y = 1 - x
    m, n = x.sum(), y.sum()
    return float(x @ kernel @ x / (m * (m - 1)) + y @ kernel @ y / (n * (n - 1)) - 2 * (x @ kernel @ y) / (m * n))

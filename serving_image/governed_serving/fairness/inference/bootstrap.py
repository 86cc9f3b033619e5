"""Bootstrap intervals from counts: resampling rows is drawing the counts from a multinomial, whatever the number of
rows.

Bias-corrected and accelerated (Efron 1987). The jackknife needs one evaluation per occupied cell, not per row: rows of
one cell are exchangeable.
"""

from collections.abc import Callable
from math import nan

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.inference.special import normal_quantile, normal_tail

__all__ = ["bca"]

Statistic = Callable[[NDArray[np.integer | np.floating], NDArray[np.integer | np.floating]], NDArray[np.float64]]


def bca(
    statistic: Statistic,
    u: NDArray[np.integer | np.floating],
    p: NDArray[np.integer | np.floating],
    level: float = 0.95,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of ``statistic(u, p)`` for counts (2, 3) of two groups; the statistic must broadcast (those of METRICS
    do).

    Both groups are resampled with their own size. NaN ends where too few replicates are defined.
    """
    rng = np.random.default_rng(seed)
    replicates = statistic(_resample(rng, u, draws), _resample(rng, p, draws))
    replicates = np.sort(replicates[np.isfinite(replicates)])
    centre = float(statistic(u, p))
    if len(replicates) < draws // 2 or centre != centre:
        return Interval(nan, nan)
    below = ((replicates < centre).sum() + (replicates == centre).sum() / 2) / len(replicates)
    bias = normal_quantile(min(max(float(below), 0.5 / draws), 1 - 0.5 / draws))
    acceleration = _acceleration(statistic, u, p)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal_quantile(tail)
        place = 1 - normal_tail(bias + z / (1 - acceleration * z))
        ends.append(float(np.quantile(replicates, min(max(place, 0.0), 1.0))))
    return Interval(*ends)


def _resample(rng: np.random.Generator, counts: NDArray[np.integer | np.floating], draws: int) -> NDArray[np.int64]:
    total = int(counts.sum())
    drawn: NDArray[np.int64] = rng.multinomial(total, counts.ravel() / max(total, 1), draws)
    return drawn.reshape(draws, *counts.shape)


def _acceleration(
    statistic: Statistic, u: NDArray[np.integer | np.floating], p: NDArray[np.integer | np.floating]
) -> float:
    """Skewness of the jackknife's influence values, weighted by cell counts."""
    values, weights = [], []
    for first, counts in ((True, u), (False, p)):
        for place in np.argwhere(counts > 0):
            less = counts.copy()
            less[tuple(place)] -= 1
            values.append(float(statistic(less, p) if first else statistic(u, less)))
            weights.append(float(counts[tuple(place)]))
    found, weight = np.array(values), np.array(weights)
    known = np.isfinite(found)
    found, weight = found[known], weight[known]
    if not len(found):
        return 0.0
    influence = (weight * found).sum() / weight.sum() - found
    spread = (weight * influence**2).sum()
    return float((weight * influence**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0

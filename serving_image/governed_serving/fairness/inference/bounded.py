"""Exact evidence about means of bounded values, as a function of their number, mean and variance alone.

For x ≥ t − c and 0 ≤ ac < 1, exp(a(x − t) − ψ(ac) (x − t)²/c²) ≤ 1 + a(x − t) with ψ(λ) = −log(1 − λ) − λ (Fan, Grama &
Liu, EJP 2015, Proposition 4.1): its mean is at most 1 whenever that of x is at most t. The product over rows is a test
supermartingale against "the mean is at most t"; it depends on Σ(x − t) and Σ(x − t)² alone (empirical Bernstein;
Howard, Ramdas, McAuliffe & Sekhon, Annals of Statistics 2021; Waudby-Smith & Ramdas, JRSS B 2024). Bets ``a`` are a
mixture chosen beforehand, so that no order, split or restart changes a bit.

Two groups, "the means differ by at most h": for every t the product of that against "mean ≤ t" of one and "mean ≥ t −
h" of the other, in one mixture over both bets; the least over t is an e-process of the whole hypothesis.
"""

from collections.abc import Callable
from math import inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.intervals import Interval

__all__ = ["Sample", "difference_evidence", "difference_sequence", "mean_sequence"]

Floats = NDArray[np.float64]

BETS = np.geomspace(0.03, 60, 12)
"""Per unit of the range."""
RATIOS = 4.0 ** np.arange(-3, 4)
"""Bet on the other group over that on the first; where it is their n₁/n₀ it follows its own nuisance."""
_LARGEST = 0.9
"""Of ac."""
_GRID = 17


class Sample(NamedTuple):
    """``n`` values in [``low``, ``high``]; ``variance``: mean of the squares less the square of the mean."""

    n: int
    mean: float
    variance: float
    low: float
    high: float

    def mirrored(self) -> "Sample":
        """Of the values' negatives."""
        return Sample(self.n, -self.mean, self.variance, -self.high, -self.low)


def _log_wealth(sample: Sample, t: Floats, bets: Floats) -> Floats:
    """Log of the products against "mean ≤ t", shape (points, bets)."""
    c = np.maximum(t - sample.low, 1e-12)[:, None]
    a = np.minimum(bets / (sample.high - sample.low), _LARGEST / c)
    x = a * c
    price = np.where(x < 1e-3, a * a * (0.5 + x / 3), (-np.log1p(-x) - x) / (c * c))
    away = (sample.mean - t)[:, None]
    wealth: Floats = sample.n * (a * away - price * (max(sample.variance, 0.0) + away * away))
    return wealth


def _mixed(logs: Floats) -> Floats:
    """Log of the mean over the last axis."""
    top = logs.max(-1)
    mixed: Floats = top + np.log(np.exp(logs - top[..., None]).mean(-1))
    return mixed


def mean_sequence(sample: Sample, alpha: float) -> Interval:
    """Confidence sequence at level 1 − ``alpha`` of the mean; the whole range without values."""
    aim = np.log(2 / alpha)
    lower, negative = (_lower_mean(side, aim) for side in (sample, sample.mirrored()))
    return Interval(lower, -negative)


def _lower_mean(sample: Sample, aim: float) -> float:
    def evidence(t: float) -> float:
        return float(_mixed(_log_wealth(sample, np.array([t]), BETS))[0])

    return _last_excluded(evidence, sample.low, sample.mean, _error(sample), aim) if sample.n > 0 else sample.low


def _error(sample: Sample) -> float:
    width = sample.high - sample.low
    return float(np.sqrt(max(sample.variance, 0.0) / sample.n) + width / (sample.n + 1))


def _last_excluded(evidence: Callable[[float], float], least: float, most: float, step: float, aim: float) -> float:
    """The largest value found below ``most`` at which the evidence reaches ``aim``; ``least`` where there is none."""
    kept, distance = most, step
    while True:
        t = most - distance
        if t <= least:
            t = least + 1e-9 * (most - least)
            if evidence(t) < aim:
                return least
            break
        if evidence(t) >= aim:
            break
        kept, distance = t, 1.5 * distance
    excluded = t
    while kept - excluded > 1e-3 * (most - excluded):
        middle = (kept + excluded) / 2
        excluded, kept = (middle, kept) if evidence(middle) >= aim else (excluded, middle)
    return excluded


_FIRST = np.repeat(BETS, len(RATIOS))
_SECOND = np.outer(BETS, RATIOS).ravel()


def _evidence_above(sample: Sample, other: Sample, h: float) -> float:
    """Log e-value against "mean of one − mean of other ≤ h"."""
    low, high = max(sample.low, other.low + h), min(sample.high, other.high + h)
    if low > high:
        return -np.inf if h > 0 else np.inf
    mirrored = other.mirrored()

    def wealth(t: Floats) -> Floats:
        return _mixed(_log_wealth(sample, t, _FIRST) + _log_wealth(mirrored, h - t, _SECOND))

    near = np.clip([sample.mean, other.mean + h], low, high)
    points = np.unique(np.concatenate([np.linspace(low, high, _GRID), np.linspace(near.min(), near.max(), _GRID)]))
    for _ in range(3):
        evidence = wealth(points)
        place = int(evidence.argmin())
        left, right = points[max(place - 1, 0)], points[min(place + 1, len(points) - 1)]
        points = np.linspace(left, right, _GRID // 2 + 1)
    return float(min(evidence.min(), wealth(points).min()))


def difference_sequence(one: Sample, other: Sample, alpha: float) -> Interval:
    """Confidence sequence at level 1 − ``alpha`` of mean of ``one`` − mean of ``other``."""
    widest = Interval(one.low - other.high, one.high - other.low)
    if min(one.n, other.n) < 1:
        return widest
    aim, step = np.log(2 / alpha), float(np.hypot(_error(one), _error(other)))
    ends, difference = [], one.mean - other.mean
    for a, b, least, most in ((one, other, widest.lower, difference), (other, one, -widest.upper, -difference)):
        ends.append(_last_excluded(lambda h, a=a, b=b: _evidence_above(a, b, h), least, most, step, aim))  # type: ignore[misc]
    return Interval(ends[0], -ends[1])


def difference_evidence(one: Sample, other: Sample, lower: float, upper: float) -> float:
    """Log e-value against "the difference lies in [``lower``, ``upper``]"; half the stake on each side."""
    if min(one.n, other.n) < 1:
        return -inf
    difference = one.mean - other.mean
    if difference > upper:
        return _evidence_above(one, other, upper) - log(2)
    return _evidence_above(other, one, -lower) - log(2) if difference < lower else -inf

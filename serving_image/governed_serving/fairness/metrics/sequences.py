"""Anytime-valid intervals and e-values for live monitoring, as functions of counts alone: no order, no split, no restart changes them.

Normal-mixture confidence sequences with the variance estimated from the counts (Robbins 1970; Waudby-Smith, Arbour, Sinha, Kennedy
& Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024), the mixture with a hump
on either side where disparities matter. They hold at all
times together once a few dozen rows are there; the simulation in tests/bench/bias measures it. Exact alternatives:
:func:`.intervals.binomial_sequence` (wider) and :mod:`.betting` (depends on the order).
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.intervals import Interval, binomial_sequence
from governed_serving.fairness.metrics.metrics import METRICS, Metric

__all__ = [
    "DIFFERENCES",
    "RATIOS",
    "Mixture",
    "e_benjamini_hochberg",
    "log_evidence",
    "metric_evidence",
    "metric_sequence",
    "mixture_radius",
]

Array = NDArray[Any]


class Mixture(NamedTuple):
    """Which disparities the bets are on: those near ``centre`` on either side, normal with ``deviation``; all others count a little."""

    centre: float
    deviation: float


DIFFERENCES = Mixture(0.1, 0.04)
"""For differences: finds .10 at 80 % power with 1.4 times the rows of a test with one look, .20 with 1.5 times, .06 with 1.7 times."""
RATIOS = Mixture(0.2, 0.08)
"""The same for log ratios: four-fifths is −.22 there."""


def log_evidence(distance: Any, variance: Any, mixture: Mixture) -> Any:
    """Log e-value against a point null at ``distance`` from an estimate with this sampling ``variance``; broadcasts.

    The likelihood of what was seen, averaged over the mixture, over that under the null.
    """
    whole = variance + mixture.deviation**2
    near, far = (-((distance + side) ** 2) / (2 * whole) for side in (-mixture.centre, mixture.centre))
    scale = 0.5 * np.log(variance / whole) + distance**2 / (2 * variance)
    return scale + np.logaddexp(near, far) - log(2)


def mixture_radius(variance: float, alpha: float, mixture: Mixture) -> float:
    """Half-width of the (1 − ``alpha``) confidence sequence: the distance at which the evidence reaches 1/``alpha``.

    The same formula as :func:`log_evidence`, for plain floats, inverted by bisection.
    """
    centre, whole = mixture.centre, variance + mixture.deviation**2
    aim = -log(alpha) + log(2) - 0.5 * log(variance / whole)

    def short(distance: float) -> bool:
        near, far = -((distance - centre) ** 2) / (2 * whole), -((distance + centre) ** 2) / (2 * whole)
        return distance**2 / (2 * variance) + near + log1p(exp(far - near)) < aim

    low, high = 0.0, sqrt(2 * variance)
    while short(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return high


def _rate(cases: Array, out_of: Array) -> tuple[Any, Any]:
    """Estimate and its variance, with one case and one non-case added so that no variance is 0 (Agresti & Caffo 2000)."""
    p = (cases + 1) / (out_of + 2)
    return p, p * (1 - p) / (out_of + 2)


def _differences(metric: Metric, u: Array, p: Array) -> list[tuple[Any, Any]]:
    """(difference, its variance) for each rate that the metric rests on."""
    pairs = []
    for rate in metric.rates:
        (k1, n1), (k0, n0) = rate(u), rate(p)
        pairs.append((k1 / np.maximum(n1, 1) - k0 / np.maximum(n0, 1), _rate(k1, n1)[1] + _rate(k0, n0)[1]))
    return pairs


def _log_ratio(metric: Metric, u: Array, p: Array) -> tuple[Any, Any]:
    (k1, n1), (k0, n0) = metric.rates[0](u), metric.rates[0](p)
    (a, va), (b, vb) = _rate(k1, n1), _rate(k0, n0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.log(k1 / n1) - np.log(k0 / n0)
    return centre, va / a**2 + vb / b**2


def metric_sequence(name: str, u: Array, p: Array, level: float) -> Interval:
    """Confidence sequence of METRICS[name] for counts (2, 3) of the unprivileged and the privileged."""
    metric, alpha = METRICS[name], 1 - level
    if metric.support(u, p) == 0:
        return Interval(0.0, inf) if name == "disparateImpactRatio" else Interval(-1.0, 1.0)
    if name == "disparateImpactRatio":
        return _ratio_sequence(metric, u, p, alpha)
    pairs = _differences(metric, u, p)
    if name == "averageOddsDifference":
        centre, variance = sum(d for d, _ in pairs) / 2, sum(v for _, v in pairs) / 4
        radius = mixture_radius(float(variance), alpha, DIFFERENCES)
        return Interval(max(-1.0, float(centre) - radius), min(1.0, float(centre) + radius))
    # The larger of several: each at its share of alpha.
    ends = []
    for difference, variance in pairs:
        radius = mixture_radius(float(variance), alpha / len(pairs), DIFFERENCES)
        ends.append((max(-1.0, float(difference) - radius), min(1.0, float(difference) + radius)))
    if len(ends) == 1:
        return Interval(*ends[0])
    return Interval(max(max(low, -high, 0.0) for low, high in ends), max(max(-low, high) for low, high in ends))


def _ratio_sequence(metric: Metric, u: Array, p: Array, alpha: float) -> Interval:
    centre, variance = _log_ratio(metric, u, p)
    radius = mixture_radius(float(variance), alpha, RATIOS)
    if not np.isfinite(centre):  # a side without a case: exact sequences of both rates instead
        (k1, n1), (k0, n0) = metric.rates[0](u), metric.rates[0](p)
        a, b = (binomial_sequence(int(k), int(n), 1 - alpha / 2) for k, n in ((k1, n1), (k0, n0)))
        return Interval(a.lower / b.upper, a.upper / b.lower if b.lower > 0 else inf)
    return Interval(exp(float(centre) - radius), exp(float(centre) + radius))


def metric_evidence(name: str, u: Array, p: Array, lower: float, upper: float) -> float:
    """Log e-value against the composite null that the metric lies in [``lower``, ``upper``]; −inf without data."""
    metric = METRICS[name]
    if metric.support(u, p) == 0:
        return -inf
    if name == "disparateImpactRatio":
        centre, variance = _log_ratio(metric, u, p)
        low, high = (log(lower) if lower > 0 else -inf), (log(upper) if 0 < upper < inf else inf)
        if not np.isfinite(centre):
            return -inf
        return _outside(float(centre), float(variance), low, high, RATIOS)
    pairs = _differences(metric, u, p)
    if name == "averageOddsDifference":
        pairs = [(sum(d for d, _ in pairs) / 2, sum(v for _, v in pairs) / 4)]
    if name == "equalizedOddsDifference":
        pairs, lower = [(abs(d), v) for d, v in pairs], -inf
    # A mean of e-values is an e-value.
    logs = [_outside(float(d), float(v), lower, upper, DIFFERENCES) for d, v in pairs]
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs) / len(logs))


def _outside(centre: float, variance: float, low: float, high: float, mixture: Mixture) -> float:
    distance = max(low - centre, centre - high, 0.0)
    return float(log_evidence(distance, variance, mixture))


def e_benjamini_hochberg(log_values: Mapping[str, float] | Sequence[float], level: float = 0.95) -> list[Any]:
    """Keys (or places) of the hypotheses rejected with false discovery rate ≤ 1 − ``level``, under any dependence (Wang & Ramdas 2022)."""
    items = list(log_values.items()) if isinstance(log_values, Mapping) else list(enumerate(log_values))
    ranked = sorted(items, key=lambda item: -item[1])
    alpha = 1 - level
    kept = [k for k, (_, value) in enumerate(ranked, 1) if value >= log(len(items) / (alpha * k))]
    return [key for key, _ in ranked[: max(kept)]] if kept else []

"""Anytime-valid intervals and e-values for live monitoring, as functions of counts alone: no order, no split, no restart changes them.

Normal-mixture confidence sequences with the variance estimated from the counts (Robbins 1970; Waudby-Smith, Arbour, Sinha, Kennedy
& Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024). They hold at all
times together once a few dozen rows are there; the simulation in tests/bench/bias measures it. Exact alternatives:
:func:`.intervals.binomial_sequence` (wider) and :mod:`.betting` (depends on the order).
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.auditor.intervals import Interval, binomial_sequence
from governed_serving.auditor.metrics import METRICS, Metric

__all__ = ["e_benjamini_hochberg", "log_evidence", "metric_evidence", "metric_sequence", "mixture_radius"]

Array = NDArray[Any]

DIFFERENCE_PRECISION = 150.0
"""1/variance of the mixing normal for differences: tightest for disparities of about .05 to .2."""
RATIO_PRECISION = 40.0
"""The same for log ratios: four-fifths is −.22 there."""


def mixture_radius(variance: Any, alpha: float, precision: float) -> Any:
    """Half-width of the (1 − ``alpha``) confidence sequence of an estimate with this sampling ``variance``; broadcasts."""
    information = 1 / variance
    total = information + precision
    return variance * np.sqrt(total * (np.log(total / precision) - 2 * log(alpha)))


def log_evidence(distance: Any, variance: Any, precision: float) -> Any:
    """Log e-value against a point null at ``distance`` from the estimate: the same mixture, seen as a bet; broadcasts."""
    information = 1 / variance
    total = information + precision
    return 0.5 * distance**2 * information**2 / total - 0.5 * np.log(total / precision)


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
        radius = float(mixture_radius(variance, alpha, DIFFERENCE_PRECISION))
        return Interval(max(-1.0, float(centre) - radius), min(1.0, float(centre) + radius))
    # The larger of several: each at its share of alpha.
    ends = []
    for difference, variance in pairs:
        radius = float(mixture_radius(variance, alpha / len(pairs), DIFFERENCE_PRECISION))
        ends.append((max(-1.0, float(difference) - radius), min(1.0, float(difference) + radius)))
    if len(ends) == 1:
        return Interval(*ends[0])
    return Interval(max(max(low, -high, 0.0) for low, high in ends), max(max(-low, high) for low, high in ends))


def _ratio_sequence(metric: Metric, u: Array, p: Array, alpha: float) -> Interval:
    centre, variance = _log_ratio(metric, u, p)
    radius = float(mixture_radius(variance, alpha, RATIO_PRECISION))
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
        return _outside(float(centre), float(variance), low, high, RATIO_PRECISION)
    pairs = _differences(metric, u, p)
    if name == "averageOddsDifference":
        pairs = [(sum(d for d, _ in pairs) / 2, sum(v for _, v in pairs) / 4)]
    if name == "equalizedOddsDifference":
        pairs, lower = [(abs(d), v) for d, v in pairs], -inf
    # A mean of e-values is an e-value.
    logs = [_outside(float(d), float(v), lower, upper, DIFFERENCE_PRECISION) for d, v in pairs]
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs) / len(logs))


def _outside(centre: float, variance: float, low: float, high: float, precision: float) -> float:
    distance = max(low - centre, centre - high, 0.0)
    return float(log_evidence(distance, variance, precision))


def e_benjamini_hochberg(log_values: Mapping[str, float] | Sequence[float], level: float = 0.95) -> list[Any]:
    """Keys (or places) of the hypotheses rejected with false discovery rate ≤ 1 − ``level``, under any dependence (Wang & Ramdas 2022)."""
    items = list(log_values.items()) if isinstance(log_values, Mapping) else list(enumerate(log_values))
    ranked = sorted(items, key=lambda item: -item[1])
    alpha = 1 - level
    kept = [k for k, (_, value) in enumerate(ranked, 1) if value >= log(len(items) / (alpha * k))]
    return [key for key, _ in ranked[: max(kept)]] if kept else []

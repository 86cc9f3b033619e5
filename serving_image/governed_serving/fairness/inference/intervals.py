"""Intervals for rates, differences and ratios; fixed-sample and anytime-valid.

Fixed-sample intervals hold for one look at a window that was closed beforehand. A monitor looks all the time: its
intervals are confidence sequences, which hold at all times together (Robbins 1970; Howard et al. 2021).
"""

from functools import lru_cache
from math import exp, inf, lgamma, log, sqrt
from typing import NamedTuple

from governed_serving.fairness.inference.special import beta_quantile

__all__ = [
    "Interval",
    "binomial_sequence",
    "clopper_pearson",
    "log_mixture",
    "mover",
    "paired",
    "rate_difference",
    "rate_ratio",
]


class Interval(NamedTuple):
    """Closed interval."""

    lower: float
    upper: float


def rate_difference(k1: int, n1: int, k0: int, n0: int, level: float = 0.95) -> Interval:
    """Interval of k1/n1 − k0/n0 for one look, from exact limits of each rate (:func:`mover`).

    Newcombe's method 10 (1998) is the same from Wilson's limits, and holds .88 instead of .95 of 20 rows a side at
    rates of .02 and .98.
    """
    if n1 == 0 or n0 == 0:
        return Interval(-1.0, 1.0)
    return mover(k1 / n1, clopper_pearson(k1, n1, level), k0 / n0, clopper_pearson(k0, n0, level))


def rate_ratio(k1: int, n1: int, k0: int, n0: int, level: float = 0.95) -> Interval:
    """Interval of (k1/n1) / (k0/n0) for one look, from exact limits of each rate's logarithm (:func:`mover`).

    Of a rate of 0 there is no logarithm: then the quotient of the limits. Katz's interval (1978) holds .30 instead of
    .95 of 10 and 300 rows at rates of .98.
    """
    if n1 == 0 or n0 == 0 or (k1 == 0 and k0 == 0):
        return Interval(0.0, inf)
    one, other = clopper_pearson(k1, n1, level), clopper_pearson(k0, n0, level)
    if k0 == 0:
        return Interval(one.lower / other.upper, inf)
    if k1 == 0:
        return Interval(0.0, one.upper / other.lower)
    ends = [Interval(log(around.lower), log(around.upper)) for around in (one, other)]
    found = mover(log(k1 / n1), ends[0], log(k0 / n0), ends[1])
    return Interval(exp(found.lower), exp(found.upper))


@lru_cache(maxsize=4096)
def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper & Pearson 1934), from quantiles of the beta law."""
    if n == 0:
        return Interval(0.0, 1.0)
    tail = (1 - level) / 2
    lower = 0.0 if k == 0 else beta_quantile(tail, k, n - k + 1)
    upper = 1.0 if k == n else beta_quantile(1 - tail, k + 1, n - k)
    return Interval(lower, upper)


def mover(a: float, around_a: Interval, b: float, around_b: Interval, correlation: float = 0.0) -> Interval:
    """Interval of a − b from an interval around each estimate (Zou & Donner 2008, MOVER)."""
    below = _spread(a - around_a.lower, around_b.upper - b, correlation)
    above = _spread(around_a.upper - a, b - around_b.lower, correlation)
    return Interval(a - b - below, a - b + above)


def _spread(one: float, other: float, correlation: float) -> float:
    return sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))


def paired(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a change of a rate, (gained − lost)/n, on the same ``n`` rows, of which those changed sides.

    As Newcombe's (1998, Stat. Med. 17, 2635), built from limits of single shares, here exact ones (Clopper & Pearson
    1934) of the two discordant shares, which are correlated as those of one multinomial: where no row changed, the
    width isn't 0.
    """
    if n == 0:
        return Interval(-1.0, 1.0)
    a, b = gained / n, lost / n
    free = (1 - a) * (1 - b)
    correlation = -sqrt(a * b / free) if free > 0 else 0.0
    interval = mover(a, clopper_pearson(gained, n, level), b, clopper_pearson(lost, n, level), correlation)
    return Interval(max(interval.lower, -1.0), min(interval.upper, 1.0))


def _beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def log_mixture(k: int, n: int, p: float) -> float:
    """Log of the Beta(½, ½) mixture martingale against rate ``p``: of k successes in n, whatever their order."""
    if (p <= 0 and k > 0) or (p >= 1 and k < n):
        return inf
    against = (k * log(p) if k else 0.0) + ((n - k) * log(1 - p) if n - k else 0.0)
    return _beta(k + 0.5, n - k + 0.5) - _beta(0.5, 0.5) - against


def binomial_sequence(k: int, n: int, level: float = 0.95) -> Interval:
    """Confidence sequence of a rate: it covers the rate at all n together with probability ≥ ``level``.

    The rates against which the mixture martingale is below 1/(1 − level) (Robbins 1970, with Ville's inequality). It
    depends on the counts alone, so that replicas and restarts change nothing.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    bound, peak = -log(1 - level), k / n
    lower = 0.0 if k == 0 else _edge(k, n, bound, 0.0, peak)
    upper = 1.0 if k == n else _edge(k, n, bound, 1.0, peak)
    return Interval(lower, upper)


def _edge(k: int, n: int, bound: float, outside: float, inside: float) -> float:
    for _ in range(60):
        middle = (outside + inside) / 2
        if log_mixture(k, n, middle) >= bound:
            outside = middle
        else:
            inside = middle
    return outside

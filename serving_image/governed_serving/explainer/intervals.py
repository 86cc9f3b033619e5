"""Quantiles and standard errors for the intervals that methods print, without scipy."""

import functools
import math
from statistics import NormalDist

import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.fairness.inference.special import beta_quantile

__all__ = ["level_of_look", "student_quantile", "with_pooled"]

_NORMAL = NormalDist()


@functools.lru_cache(maxsize=4096)
def student_quantile(confidence: float, freedom: float) -> float:
    """Two-sided Student t quantile: half-width of the interval at ``confidence`` in standard errors.

    ``freedom`` > 0, not necessarily whole; infinite freedom gives the normal's. freedom / (freedom + T²) is
    Beta(freedom/2, ½) (Abramowitz & Stegun 26.7.1).
    """
    if math.isinf(freedom) or freedom > 1e7:
        return _NORMAL.inv_cdf(0.5 + confidence / 2)
    rest = beta_quantile(1 - confidence, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - rest) / rest)


def level_of_look(confidence: float, look: int) -> float:
    """Confidence of the ``look``-th interval (from 1) of a sequence that holds at all looks together with
    ``confidence``.

    The error is spent as 1/(look · (look + 1)), which sums to 1: stopping at any look, for any reason, is safe by the
    union bound, and an interval doesn't depend on how many looks were still to come.
    """
    return 1 - (1 - confidence) / (look * (look + 1))


def with_pooled(variance: Floats) -> Floats:
    """``variance`` (players, outputs), nowhere below its mean over players.

    A player whose few samples happen to agree has an estimated variance of nothing, exactly where it was seen least;
    what the others' samples say of the same game is then the better witness. It makes intervals wider, never narrower.
    """
    pooled: Floats = np.maximum(variance, variance.mean(axis=0, keepdims=True))
    return pooled

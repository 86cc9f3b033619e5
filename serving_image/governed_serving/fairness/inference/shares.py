"""A function of the shares of a few kinds of rows: its range over an exact confidence sequence of the shares.

The region {p : log Q(c) − log L_p(c) < log 1/α}, Q the Dirichlet(½) mixture of what was counted, holds the true shares
at all times together with probability 1 − α (Robbins 1970; Ville 1939). It is convex and contains the observed shares.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.contrasts import log_gamma
from governed_serving.fairness.inference.intervals import Interval

__all__ = ["function_evidence", "function_sequence"]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
"""Shares (points, 3) → values (points,)."""

_RAYS, _DEPTHS = 360, np.array([0.25, 0.5, 0.75, 1.0])
MOST_EVIDENCE = 500.0


def _rays(counts: Floats, aim: float) -> Floats:
    """Shares on the way from those observed to the region's edge in all directions of the triangle, (points, 3)."""
    n = counts.sum()
    observed = counts / n
    angles = np.linspace(0, 2 * np.pi, _RAYS, endpoint=False)
    across = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    ways = np.stack([np.cos(angles), np.sin(angles)], 1) @ across
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(ways < -1e-12, -observed / ways, np.inf).min(1)
    half = log_gamma(counts + 0.5).sum() - 3 * log_gamma(np.array([0.5]))[0]
    marginal = half + log_gamma(np.array([1.5]))[0] - log_gamma(np.array([n + 1.5]))[0]
    low, high = np.zeros(_RAYS), room
    for _ in range(40):
        middle = (low + high) / 2
        p = np.maximum(observed + middle[:, None] * ways, 1e-300)
        inside = marginal - (counts * np.log(p)).sum(1) < aim
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    points = observed + (high[:, None] * _DEPTHS).ravel()[:, None] * np.repeat(ways, len(_DEPTHS), 0)
    clipped: Floats = np.clip(points, 0.0, 1.0)
    return clipped


def function_sequence(counts: Floats, function: Function, alpha: float) -> Interval:
    """Confidence sequence at level 1 − ``alpha`` of a smooth function of the shares of three kinds, counted in
    ``counts``."""
    values = function(_rays(np.asarray(counts, np.float64), -float(np.log(alpha))))
    return Interval(float(values.min()), float(values.max()))


def function_evidence(counts: Floats, function: Function, lower: float, upper: float) -> float:
    """Log e-value against "the function lies in [``lower``, ``upper``]", found to .1; at most ``MOST_EVIDENCE``."""
    excluded, kept = 0.0, MOST_EVIDENCE
    while kept - excluded > 0.1:
        middle = (excluded + kept) / 2
        interval = function_sequence(counts, function, float(np.exp(-middle)))
        outside = interval.lower > upper or interval.upper < lower
        excluded, kept = (middle, kept) if outside else (excluded, middle)
    return excluded if excluded > 0 else -np.inf

"""Intervals of linear contrasts of rates whose weights may be anything at each look, signs included.

k of n rows of each of d kinds had a case; θ ∈ [0, 1]^d are the true rates. E_θ = G / L_θ, where L_θ is the likelihood
and G = Π Beta(½, ½) marginals, is a test martingale at the true θ (universal inference; Wasserman, Ramdas &
Balakrishnan, PNAS 2020): P(E_θ ≥ 1/α at any time) ≤ α (Ville 1939). So {θ : E_θ < 1/α} holds θ at all times together,
and every function of it too, at once: also w·θ with weights w that come from the data and change from look to look,
since neither G nor L_θ knows w. (The local bets of :mod:`.contrasts` are on sides, by the signs of w: of weights whose
signs change they are no one martingale.) The same α does for both ends, and for any number of such contrasts.

The ends: log E_θ = log G / L_p̂ + D(θ) with D(θ) = Σ nᵢ KL(p̂ᵢ ‖ θᵢ), convex; the largest w·θ with D(θ) ≤ T is where
∇D = λw for a λ > 0, which in each θᵢ is a quadratic equation, and D rises with λ: bisection.
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.contrasts import log_gamma
from governed_serving.fairness.inference.intervals import Interval

__all__ = ["contrast_region"]

Floats = NDArray[np.float64]

_BISECTIONS = 60


def contrast_region(k: Floats, n: Floats, weights: Floats, alpha: float) -> Interval:
    """Where Σ weights · rates lies, at all looks with chance 1 − ``alpha``. All shape (kinds,); every kind that ever
    had a row has to be there, also with weight 0."""
    seen = n > 0
    k, n, w = k[seen], n[seen], weights[seen]
    extremes = float(np.minimum(weights, 0).sum()), float(np.maximum(weights, 0).sum())
    marginal = log_gamma(k + 0.5) + log_gamma(n - k + 0.5) - log_gamma(n + 1) - log(np.pi)
    room = -log(alpha) - float((marginal - _log_likelihood(k, n, k / n)).sum())
    left = float(weights[~seen].clip(max=0).sum()), float(weights[~seen].clip(min=0).sum())
    lower, upper = left[0] - _furthest(k, n, -w, room), left[1] + _furthest(k, n, w, room)
    return Interval(max(lower, extremes[0]), min(upper, extremes[1]))


def _log_likelihood(k: Floats, n: Floats, p: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(k > 0, k * np.log(p), 0.0) + np.where(n > k, (n - k) * np.log1p(-p), 0.0)


def _furthest(k: Floats, n: Floats, w: Floats, room: float) -> float:
    """Largest w·θ with D(θ) ≤ ``room``, or a little more: what is returned lies outside the region."""
    best = _log_likelihood(k, n, k / n)
    low, high = -40.0, 40.0  # of log λ, where the largest weight is 1
    largest = float(np.abs(w).max(initial=0.0))
    if largest == 0:
        return 0.0
    unit = w / largest * n.max()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        spent = float((best - _log_likelihood(k, n, _at(k, n, unit * np.exp(middle)))).sum())
        low, high = (middle, high) if spent <= room else (low, middle)
    return float(w @ _at(k, n, unit * np.exp(high)))


def _at(k: Floats, n: Floats, x: Floats) -> Floats:
    """θ with nᵢ(θᵢ − p̂ᵢ) = xᵢ θᵢ(1 − θᵢ), the root in [0, 1]."""
    rising, size = x >= 0, np.abs(x)
    q = np.where(rising, k, n - k)  # a falling rate is the rising rate of no case
    b = size - n
    root = np.sqrt(b * b + 4 * size * q)
    with np.errstate(divide="ignore", invalid="ignore"):
        solution = np.where(b >= 0, (b + root) / (2 * size), 2 * q / (root - b))
    solution = np.where(size > 0, solution, q / n)
    return np.where(rising, solution, 1 - solution)

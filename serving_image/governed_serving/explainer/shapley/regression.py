"""Shapley values as a weighted least-squares fit to pair differences, with the sampling error of stratified pairs.

For a pair, ``d(S) = v(S) − v(N∖S)`` and ``z = +1`` on S, −1 off it. Shapley values minimise ``Σ μ(S) (d(S) − z·φ)²``
under ``Σφ = v(N) − v(∅)`` (Charnes et al. 1988; Covert & Lee 2021, paired). The variance is the design-based one of a
stratified sample without replacement, linearised at the fit, with leverage-corrected residuals; no player's is taken
below the mean of all.
"""

from dataclasses import dataclass

import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.intervals import with_pooled
from governed_serving.explainer.shapley.coalitions import PairedSample

__all__ = ["Fit", "fit_pairs"]


@dataclass(frozen=True)
class Fit:
    """``values`` and ``error`` (standard errors): shape (players, outputs); ``freedom``: degrees of freedom of the
    error."""

    values: Floats
    error: Floats
    freedom: float


def fit_pairs(sample: PairedSample, differences: Floats, total: Floats) -> Fit:
    """``differences`` (pairs, outputs) and ``total`` (outputs,) = v(N) − v(∅)."""
    z = np.where(sample.masks, 1.0, -1.0)
    players = z.shape[1]
    weight = (sample.weight / np.maximum(sample.drawn, 1))[sample.stratum]
    weight = weight / weight.sum()
    # Σφ = total is built in: φ = total/M + P ψ, with P the projection onto Σ = 0.
    centred = z - z.mean(axis=1, keepdims=True)
    target = differences - z.mean(axis=1)[:, None] * total
    gram = (centred * weight[:, None]).T @ centred
    inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
    loading = centred @ inverse
    values = loading.T @ (weight[:, None] * target) + total / players
    residual = target - centred @ (values - total / players)
    leverage = np.minimum(weight * np.einsum("ij,ij->i", loading, centred), 0.999)
    scores = (weight / (1 - leverage))[:, None, None] * loading[:, :, None] * residual[:, None, :]
    variance, freedom = _stratified(sample, scores, players)
    return Fit(values, np.sqrt(with_pooled(variance)), freedom)


def _stratified(sample: PairedSample, scores: Floats, players: int) -> tuple[Floats, float]:
    """Variance of ``Σ scores`` under sampling without replacement in each stratum, and its degrees of freedom."""
    variance = np.zeros(scores.shape[1:])
    ends = np.cumsum(sample.drawn)
    for stratum, end in enumerate(ends):
        drawn = int(sample.drawn[stratum])
        if drawn == 0 or drawn == sample.population[stratum]:
            continue
        part = scores[end - drawn : end]
        spread = part - part.mean(axis=0) if drawn > 1 else part
        share = 1 - drawn / sample.population[stratum]
        variance += share * drawn / max(drawn - 1, 1) * (spread**2).sum(axis=0)
    return variance, float(max(len(scores) - players, 1))

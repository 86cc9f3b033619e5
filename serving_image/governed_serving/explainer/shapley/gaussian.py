"""Shapley values of a Gaussian process fitted to pair differences: a regression-adjusted estimate with its own error.

Only the odd part of a game, ``d(S) = v(S) − v(N∖S)``, matters for Shapley values. It is modelled as a linear game plus
a Gaussian process on the hypercube with kernel ``sinh(Σ_j η_j z_j z'_j)``, the odd part of ``exp``: interactions of all
odd orders, weighted down by order and by the relevance η_j of the players in them. Shapley values are linear
functionals of the process, known in closed form through the multilinear extension (Owen 1972: ``φ_i = ∫₀¹ ∂_i f(t,…,t)
dt``, by Gauss-Legendre quadrature), hence the estimate is a Bayesian quadrature (O'Hagan 1991) with the posterior's
variance as its error. What the process believes of its error is calibrated on the Shapley values themselves: groups of
pairs are left out, and how far the values move is compared with how far they should have. (Residuals of single pairs
can't say how errors of neighbouring coalitions add up.) That alone believes the kernel about how error is shared among
players and shrinks with pairs: on games that are not smooth (thresholds) its intervals covered 87 to 92 %. The same
movements, as a delete-a-group jackknife (Kott 2001), believe nothing but are wide where the process learns fast; the
error printed is the geometric mean of both. Where nothing is smooth (white noise), weighing what was drawn beats any
process, and the regression's values are taken if its error is the smaller one. tests/bench/explain has the coverage.
With many pairs the process is fitted to some and the others correct it by regression (Witter et al. 2025).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.intervals import with_pooled
from governed_serving.explainer.shapley.coalitions import PairedSample
from governed_serving.explainer.shapley.regression import Fit, fit_pairs

__all__ = ["fit_gaussian"]

TUNED_ON = 256
"""Pairs that hyperparameters are chosen on."""

FITTED_ON = 1280
"""Pairs that the process is fitted to; its cost is cubic in them."""

GROUPS = 16
"""Groups of pairs that are left out in turn to calibrate the error."""

RELEVANCE = (0.25, 0.5, 0.75, 1.0)
SCALE = (0.2, 0.4, 0.8, 1.6)
NOISE = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class _Kernel:
    """``eta`` (players,), ``unit`` makes the diagonal 1 on average, ``noise`` is relative to that."""

    eta: Floats
    unit: float
    noise: float

    def between(self, a: Floats, b: Floats) -> Floats:
        covariance: Floats = np.sinh((a * self.eta) @ b.T) / self.unit
        return covariance


def fit_gaussian(sample: PairedSample, differences: Floats, total: Floats) -> Fit:
    """As :func:`fit_pairs`, whose error it usually divides by 2 to 100; falls back to it where there is too little to
    learn from."""
    linear = fit_pairs(sample, differences, total)
    z = np.where(sample.masks, 1.0, -1.0)
    pairs, players = z.shape
    rest = differences - z @ linear.values
    size = np.sqrt((rest**2).mean(axis=0))
    lead = int(size.argmax())
    if pairs < players + 24 or size[lead] <= 1e-9 * np.abs(differences).max(initial=0.0):
        return linear
    kernel = _tuned(z, differences[:, lead], np.abs(linear.values[:, lead]))
    if kernel is None:
        return linear
    if pairs > FITTED_ON:
        return _corrected(kernel, sample, z, differences, total)
    posterior = _posterior(kernel, z, differences, total)
    return posterior.fit if posterior is not None and posterior.model_error <= _mean_square(linear.error) else linear


@dataclass(frozen=True)
class _Posterior:
    """The estimate, and the mean squared error that the calibrated process itself expects of it."""

    fit: Fit
    model_error: float


def _mean_square(error: Floats) -> float:
    return float((error**2).mean())


def _tuned(z: Floats, y: Floats, importance: Floats) -> _Kernel | None:
    """The kernel with the best leave-one-out likelihood on evenly picked pairs."""
    picked = np.linspace(0, len(z) - 1, min(len(z), TUNED_ON)).astype(int)
    z, y = z[picked], y[picked]
    relative = np.maximum(importance / max(float(importance.max()), 1e-300), 0.02)
    best, chosen = math.inf, None
    for power in RELEVANCE:
        for scale in SCALE:
            eta = relative**power
            eta *= scale / np.sqrt((eta**2).sum())
            raw = np.sinh((z * eta) @ z.T)
            unit = float(raw.diagonal().mean())
            score, noise = _best_noise(raw / unit, z, y)
            if score < best:
                best, chosen = score, _Kernel(eta, unit, noise)
    return chosen


def _best_noise(covariance: Floats, z: Floats, y: Floats) -> tuple[float, float]:
    """Leave-one-out predictive score of a partially linear process, over all noises by one eigendecomposition."""
    values, vectors = np.linalg.eigh(covariance)
    zt, yt = vectors.T @ z, vectors.T @ y
    best, chosen = math.inf, NOISE[-1]
    for noise in NOISE:
        inverse = 1 / (np.maximum(values, 0) + noise)
        zw = zt * inverse[:, None]
        gram = np.linalg.pinv(zt.T @ zw, hermitian=True)
        beta = gram @ (zw.T @ yt)
        alpha = vectors @ (inverse * (yt - zt @ beta))
        b = vectors @ zw
        precision = np.einsum("ij,j->i", vectors**2, inverse) - np.einsum("ij,jk,ik->i", b, gram, b)
        if (precision <= 0).any():
            continue
        score = math.log(max(float((alpha**2 / precision).mean()), 1e-300)) - float(np.log(precision).mean())
        if score < best:
            best, chosen = score, noise
    return best, chosen


def _posterior(kernel: _Kernel, z: Floats, y: Floats, total: Floats) -> _Posterior | None:
    """Posterior mean and standard deviation of the Shapley values; the pair (N, ∅) is one more observation."""
    pairs, players = z.shape
    z1, y1 = np.concatenate([z, np.ones((1, players))]), np.concatenate([y, total[None, :]])
    covariance = kernel.between(z1, z1)
    covariance[np.diag_indices(pairs + 1)] += kernel.noise
    try:
        factor = np.linalg.inv(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return None
    inverse = factor.T @ factor
    b = inverse @ z1
    gram = np.linalg.pinv(z1.T @ b, hermitian=True)
    beta = gram @ (b.T @ y1)
    alpha = inverse @ (y1 - z1 @ beta)
    sections = _section_shapley(z1, kernel.eta) / kernel.unit
    values = beta + sections.T @ alpha
    values += (total - values.sum(axis=0)) / players
    open_ = np.eye(players) - b.T @ sections
    spread = (
        _prior_variance(kernel.eta) / kernel.unit
        - np.einsum("ni,ni->i", sections, inverse @ sections)
        + np.einsum("ji,jk,ki->i", open_, gram, open_)
    )
    precision = inverse - b @ gram @ b.T
    weights = gram @ b.T + sections.T @ precision
    left_out = _left_out(precision[:pairs, :pairs], (weights - weights.mean(axis=0))[:, :pairs], alpha[:pairs])
    scale, freedom = left_out.scale()
    model = np.maximum(spread, 0.0)[:, None] * scale[None, :]
    error = np.sqrt(with_pooled(np.sqrt(model * left_out.jackknife())))
    freedom = max(min(freedom, len(left_out.moved) - 1.0, float(pairs - players)), 1.0)
    return _Posterior(Fit(values, error, freedom), float(model.mean()))


@dataclass(frozen=True)
class _LeftOut:
    """How the Shapley values move when a group of pairs is left out: ``moved`` (groups, players, outputs).

    ``expected`` (groups, players): variance of that movement under the process of unit scale.
    """

    moved: Floats
    expected: Floats

    def scale(self) -> tuple[Floats, float]:
        """Variance of the process per output, and the degrees of freedom of that estimate (Satterthwaite 1946, over
        groups)."""
        positive = self.expected > 1e-12 * self.expected.max(axis=1, initial=0.0, keepdims=True)
        square = np.divide(
            self.moved**2, self.expected[..., None], out=np.zeros_like(self.moved), where=positive[..., None]
        )
        ratios = square.sum(axis=1) / np.maximum(positive.sum(axis=1), 1)[:, None]
        scale = ratios.mean(axis=0)
        wobble = np.maximum(ratios.var(axis=0, ddof=1) / len(ratios), 1e-300)
        return scale, max(float((2 * scale**2 / wobble).min()), 3.0)

    def jackknife(self) -> Floats:
        """Delete-a-group jackknife variance, shape (players, outputs); its degrees of freedom are one less than the
        groups."""
        count = len(self.moved)
        variance: Floats = (count - 1) / count * (self.moved**2).sum(axis=0)
        return variance


def _left_out(precision: Floats, weights: Floats, alpha: Floats) -> _LeftOut:
    """Movements from block leave-out residuals: the Shapley values are ``weights @ y`` (players, pairs).

    Without group G they would differ by ``weights_G r_G``, ``r_G`` the residuals of G predicted from the others
    (``precision_GG⁻¹ alpha_G``), whose variance the process knows up to the scale that is sought.
    """
    pairs, players = len(alpha), len(weights)
    count = min(GROUPS, pairs // 2)
    moved, expected = np.empty((count, players, alpha.shape[1])), np.empty((count, players))
    for index in range(count):
        group = np.arange(index, pairs, count)  # every size of coalition in every group
        part = weights[:, group]
        solved = np.linalg.solve(precision[np.ix_(group, group)], np.concatenate([alpha[group], part.T], axis=1))
        moved[index] = part @ solved[:, : alpha.shape[1]]
        expected[index] = np.einsum("pi,ip->p", part, solved[:, alpha.shape[1] :])
    return _LeftOut(moved, expected)


def _corrected(kernel: _Kernel, sample: PairedSample, z: Floats, y: Floats, total: Floats) -> Fit:
    """The process fitted to a part of every stratum, plus a regression on what it misses in the others: error by
    design."""
    starts = np.concatenate([[0], np.cumsum(sample.drawn)[:-1]])
    position = np.arange(len(z)) - starts[sample.stratum]
    share = np.minimum(np.ceil(sample.drawn * (FITTED_ON / len(z))), sample.drawn - 2)
    share[sample.drawn == sample.population] = 0  # a size that is known whole stays whole in the regression
    learnt = position < share[sample.stratum]
    others = ~learnt
    zl, yl = z[learnt], y[learnt]
    covariance = kernel.between(zl, zl)
    covariance[np.diag_indices(len(zl))] += kernel.noise
    alpha = np.linalg.solve(covariance, yl)
    missed = y[others] - kernel.between(z[others], zl) @ alpha
    values = (_section_shapley(zl, kernel.eta) / kernel.unit).T @ alpha
    drawn = np.bincount(sample.stratum[others], minlength=len(sample.drawn))
    rest = PairedSample(sample.masks[others], sample.stratum[others], sample.population, drawn, sample.weight)
    fit = fit_pairs(rest, missed, total - values.sum(axis=0))
    return Fit(values + fit.values, fit.error, fit.freedom)


def _quadrature(players: int) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, 1], exact for polynomials of degree ``players``."""
    nodes, weights = np.polynomial.legendre.leggauss((players + 3) // 2)
    return (nodes + 1) / 2, weights / 2


def _section_shapley(z: Floats, eta: Floats) -> Floats:
    """Shapley values of the games ``S ↦ ½ sinh(Σ η z z')``, one per row of ``z``: shape (rows, players)."""
    nodes, weights = _quadrature(z.shape[1])

    def half(exponent: Floats) -> Floats:
        up, down = np.exp(exponent), np.exp(-exponent)
        total = np.zeros_like(exponent)
        for node, weight in zip(nodes, weights, strict=True):
            factor = node * up + (1 - node) * down
            total += weight * (up - down) * (factor.prod(axis=1, keepdims=True) / factor)
        return total

    values: Floats = (half(z * eta) - half(-z * eta)) / 4
    return values


def _prior_variance(eta: Floats) -> Floats:
    """Variance of each Shapley value under the process before data: the functional applied to both sides of the
    kernel."""
    nodes, weights = _quadrature(len(eta))
    agree = np.outer(nodes, nodes) + np.outer(1 - nodes, 1 - nodes)
    both = np.outer(weights, weights)

    def half(exponent: NDArray[np.float64]) -> Floats:
        up, down = np.exp(exponent)[:, None, None], np.exp(-exponent)[:, None, None]
        factor = up * agree + down * (1 - agree)
        inner = np.einsum("qr,mqr->m", both, factor.prod(axis=0) / factor)
        part: Floats = 2 * (up - down)[:, 0, 0] * inner
        return part

    return (half(eta) - half(-eta)) / 8

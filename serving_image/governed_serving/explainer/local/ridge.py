"""Weighted ridge regression with an unpenalised intercept, and its sampling error."""

from dataclasses import dataclass

import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.intervals import student_quantile

__all__ = ["RidgeFit", "weighted_ridge"]


@dataclass(frozen=True)
class RidgeFit:
    """``coefficients``, ``error`` (heteroscedasticity-consistent standard errors): (features, outputs); ``intercept``,
    ``score`` (weighted R²): (outputs,); ``freedom``: effective samples minus parameters."""

    coefficients: Floats
    intercept: Floats
    error: Floats
    score: Floats
    freedom: float
    samples: int

    def half_width(self, confidence: float) -> Floats:
        """Of the coefficients' intervals, (features, outputs): without end where samples are no more than
        parameters."""
        if self.samples <= len(self.coefficients) + 1:
            return np.full_like(self.error, np.inf)
        half: Floats = student_quantile(confidence, self.freedom) * self.error
        return half


def weighted_ridge(x: Floats, y: Floats, weight: Floats, alpha: float) -> RidgeFit:
    """Minimises ``Σ w (y − a − x·b)² + alpha |b|²``: x (samples, features), y (samples, outputs), weight (samples,)."""
    share = weight / weight.sum()
    centre_x, centre_y = share @ x, share @ y
    xc, yc = x - centre_x, y - centre_y
    gram = (xc * weight[:, None]).T @ xc + alpha * np.eye(x.shape[1])
    inverse = np.linalg.pinv(gram, hermitian=True)
    coefficients = inverse @ ((xc * weight[:, None]).T @ yc)
    residual = yc - xc @ coefficients
    leverage = np.minimum(weight * np.einsum("ij,jk,ik->i", xc, inverse, xc) + share, 0.999)
    loading = (weight / (1 - leverage))[:, None] * (xc @ inverse)
    error = np.sqrt(np.einsum("if,io->fo", loading**2, residual**2))
    spread = share @ yc**2
    score = 1 - np.divide(share @ residual**2, spread, out=np.zeros_like(spread), where=spread > 0)
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    freedom = max(effective - x.shape[1] - 1, 1.0)
    return RidgeFit(coefficients, centre_y - centre_x @ coefficients, error, score, freedom, len(x))

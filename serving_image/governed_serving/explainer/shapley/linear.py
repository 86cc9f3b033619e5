"""Exact Shapley values of a model that is linear in transformed columns: no evaluations at all.

``φ_g = Σ_{columns c of g} w_c (z_c(x) − E z_c(b))`` in the margin (Lundberg & Lee 2017, corollary 1), interventional.
"""

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats

__all__ = ["linear_shapley"]


def linear_shapley(
    weights: Floats, bias: Floats, z: Floats, mean: Floats, owners: NDArray[np.int64], players: int
) -> tuple[Floats, Floats]:
    """Values (rows, players, outputs) and base (outputs,) of ``z @ weights + bias``.

    ``weights`` (columns, outputs), ``z`` (rows, columns), ``mean`` (columns,): the background's.
    """
    terms = (z - mean)[:, :, None] * weights[None, :, :]
    values = np.zeros((len(z), players, weights.shape[1]))
    for column, owner in enumerate(owners):
        values[:, owner] += terms[:, column]
    return values, mean @ weights + bias

"""The scale that attributions are given in: the model's output as it is, or log-odds where probabilities are
saturated."""

import numpy as np

from governed_serving.blackbox.columns import Floats

__all__ = ["LOGIT", "OUTPUT", "SCALES", "logit", "probability"]

OUTPUT, LOGIT = "output", "logit"
SCALES = (OUTPUT, LOGIT)

FLOOR = 1e-12
"""Least probability told apart from none, log-odds of ±27.6: below single precision's step at 1, above what it rounds
to zero."""


def logit(probabilities: Floats) -> Floats:
    """Log-odds of each class against all others, shape (rows, classes), classes ≥ 2.

    Of ``log p − log(Σ others)``, not ``log(p / (1 − p))``: near 1 the others' probabilities hold what p has rounded
    away.
    """
    others = probabilities @ (1.0 - np.eye(probabilities.shape[1]))
    odds: Floats = np.log(np.maximum(probabilities, FLOOR)) - np.log(np.maximum(others, FLOOR))
    return odds


def probability(odds: Floats) -> Floats:
    """The inverse, class by class."""
    share: Floats = 1 / (1 + np.exp(-odds))
    return share

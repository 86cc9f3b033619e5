"""Randomised thresholds by group, as fairlearn's ThresholdOptimizer fits them."""

from typing import Any

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator

__all__ = ["fairlearns"]

THEIRS = {
    "demographicParity": "demographic_parity",
    "equalOpportunity": "true_positive_rate_parity",
    "equalizedOdds": "equalized_odds",
    "accuracy": "accuracy_score",
    "balancedAccuracy": "balanced_accuracy_score",
}


class Scores(BaseEstimator):  # type: ignore[misc]
    """A classifier whose probabilities are the one feature."""

    classes_ = np.array([0, 1])

    def fit(self, *_: Any) -> "Scores":
        return self

    def predict_proba(self, rows: Any) -> np.ndarray:
        column = np.asarray(rows)[:, 0]
        return np.stack([1 - column, column], axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def fairlearns(
    score: np.ndarray, label: np.ndarray, group: np.ndarray, constraint: str, objective: str = "accuracy"
) -> np.ndarray:
    """Chances of the favourable outcome, fitted on these rows; ``constraint`` and ``objective`` by our names."""
    made = ThresholdOptimizer(
        estimator=Scores(),
        constraints=THEIRS[constraint],
        objective=THEIRS[objective],
        prefit=True,
        predict_method="predict_proba",
    )
    made.fit(score[:, None], label.astype(int), sensitive_features=group)
    return np.asarray(made._pmf_predict(score[:, None], sensitive_features=group)[:, 1])

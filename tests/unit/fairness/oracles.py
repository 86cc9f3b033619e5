"""Every metric that a manifest can name, computed from rows by fairlearn, scikit-learn, scipy or its own definition."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import (
    MetricFrame,
    count,
    equalized_odds_difference,
    equalized_odds_ratio,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from scipy.stats import ks_2samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, precision_score


@dataclass(frozen=True)
class People:
    """Rows of groups f and m; ``score``: a probability of the favourable class, float32."""

    group: np.ndarray
    stratum: np.ndarray
    label: np.ndarray
    decision: np.ndarray
    score: np.ndarray


def people(rows: int, seed: int) -> People:
    """What f can do is scored too low, and with a little more noise."""
    rng = np.random.default_rng(seed)
    group, stratum = rng.choice(["f", "m"], rows, p=[0.4, 0.6]), rng.choice(list("abc"), rows)
    able = rng.beta(2, 2, rows)
    label = (rng.random(rows) < able).astype(int)
    noise = rng.normal(np.where(group == "f", -0.25, 0.0), np.where(group == "f", 0.12, 0.1))
    score = np.clip(able + noise, 0, 1).astype(np.float32)
    return People(group, stratum, label, (score >= 0.5).astype(int), score)


def _omitted(y_true: Any, y_pred: Any) -> float:
    refused = np.asarray(y_pred) == 0
    return float(np.asarray(y_true)[refused].mean()) if refused.any() else float("nan")


def _base(y_true: Any, y_pred: Any) -> float:  # noqa: ARG001 - MetricFrame gives both
    return float(np.mean(y_true))


RATES: dict[str, tuple[Callable[..., Any], Callable[[People], np.ndarray]]] = {
    "statisticalParity": (selection_rate, lambda d: np.ones(len(d.label), bool)),
    "equalOpportunity": (true_positive_rate, lambda d: d.label == 1),
    "falsePositiveRate": (false_positive_rate, lambda d: d.label == 0),
    "predictiveParity": (precision_score, lambda d: d.decision == 1),
    "falseOmissionRate": (_omitted, lambda d: d.decision == 0),
    "accuracy": (accuracy_score, lambda d: np.ones(len(d.label), bool)),
    "baseRate": (_base, lambda d: np.ones(len(d.label), bool)),
}
"""Rate, and which rows it is out of."""


def gap(rate: str, d: People) -> float:
    frame = MetricFrame(metrics=RATES[rate][0], y_true=d.label, y_pred=d.decision, sensitive_features=d.group)
    return float(frame.by_group["f"] - frame.by_group["m"])


def gap_within(rate: str, d: People) -> float:
    """By control_features: rates in each stratum, weighted n₁n₀/(n₁ + n₀) where both groups have rows."""
    of_rate, rows_of = RATES[rate]
    about = {"sensitive_features": d.group, "control_features": d.stratum}
    values = MetricFrame(metrics=of_rate, y_true=d.label, y_pred=d.decision, **about).by_group.unstack()
    kept = rows_of(d)
    about = {"sensitive_features": d.group[kept], "control_features": d.stratum[kept]}
    rows = MetricFrame(metrics=count, y_true=d.label[kept], y_pred=d.decision[kept], **about).by_group.unstack()
    rows = rows.dropna()
    weight = rows["f"] * rows["m"] / (rows["f"] + rows["m"])
    gaps = pd.Series(values["f"] - values["m"], index=rows.index)
    return float((weight * gaps).sum() / weight.sum())


def _spread(rate: str) -> Callable[[People], float]:
    return lambda d: abs(gap(rate, d))


def _means(of_row: Callable[[People], np.ndarray]) -> Callable[[People], float]:
    return lambda d: float(of_row(d)[d.group == "f"].mean() - of_row(d)[d.group == "m"].mean())


def _error(d: People) -> np.ndarray:
    return d.score.astype(np.float64) - d.label


def _standardized(d: People) -> float:
    a, b = (d.score[d.group == g].astype(np.float64) for g in "fm")
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return float((a.mean() - b.mean()) / np.sqrt(pooled))


def calibration_error(d: People, group: str) -> float:
    own = d.group == group
    rate, mean = calibration_curve(d.label[own], d.score[own], n_bins=10)
    weight = np.histogram(d.score[own], np.linspace(0, 1, 11))[0]
    return float((weight[weight > 0] * np.abs(rate - mean)).sum() / weight.sum())


def _entropy(alpha: float) -> Callable[[People], float]:
    """Speicher et al. (KDD 2018), their equation 2."""

    def index(d: People) -> float:
        benefit = d.decision - d.label + 1
        share = benefit / benefit.mean()
        if alpha == 1:
            return float((share * np.log(np.where(share > 0, share, 1))).mean())
        return float((share**alpha - 1).mean() / (alpha * (alpha - 1)))

    return index


def _ratio(d: People) -> float:
    frame = MetricFrame(metrics=selection_rate, y_true=d.label, y_pred=d.decision, sensitive_features=d.group)
    return float(frame.by_group["f"] / frame.by_group["m"])


def _odds(of: Callable[..., float]) -> Callable[[People], float]:
    return lambda d: float(of(d.label, d.decision, sensitive_features=d.group))


ODDS = ("equalOpportunity", "falsePositiveRate")

ORACLES: dict[str, Callable[[People], float]] = {
    **{f"{rate}Difference": lambda d, rate=rate: gap(rate, d) for rate in RATES},
    **{
        f"adjusted{rate[0].upper()}{rate[1:]}Difference": lambda d, rate=rate: gap_within(rate, d)
        for rate in RATES
        if rate != "baseRate"
    },
    "disparateImpactRatio": _ratio,
    "impactRatio": _ratio,
    "averageOddsDifference": lambda d: float(np.mean([gap(rate, d) for rate in ODDS])),
    "equalizedOddsDifference": _odds(equalized_odds_difference),
    "adjustedAverageOddsDifference": lambda d: float(np.mean([gap_within(rate, d) for rate in ODDS])),
    "adjustedEqualizedOddsDifference": lambda d: max(abs(gap_within(rate, d)) for rate in ODDS),
    "demographicParityDifferenceMaxMin": _spread("statisticalParity"),
    "demographicParityRatioMinMax": lambda d: min(_ratio(d), 1 / _ratio(d)),
    "equalOpportunityDifferenceMaxMin": _spread("equalOpportunity"),
    "equalizedOddsDifferenceMaxMin": _odds(equalized_odds_difference),
    "equalizedOddsRatioMinMax": _odds(equalized_odds_ratio),
    "predictiveParityDifferenceMaxMin": _spread("predictiveParity"),
    "accuracyDifferenceMaxMin": _spread("accuracy"),
    "theilIndex": _entropy(1),
    "generalizedEntropyIndex": _entropy(2),
    "scoreMeanDifference": _means(lambda d: d.score.astype(np.float64)),
    "scoreStandardizedMeanDifference": _standardized,
    "scoreDistributionDistance": lambda d: float(ks_2samp(*(d.score[d.group == g] for g in "fm")).statistic),
    "meanErrorDifference": _means(_error),
    "meanAbsoluteErrorDifference": _means(lambda d: np.abs(_error(d))),
    "rootMeanSquaredErrorDifference": lambda d: float(
        np.subtract(*(np.sqrt((_error(d)[d.group == g] ** 2).mean()) for g in "fm"))
    ),
    "calibrationDifference": lambda d: calibration_error(d, "f") - calibration_error(d, "m"),
    "calibrationError": lambda d: calibration_error(d, "f"),
}

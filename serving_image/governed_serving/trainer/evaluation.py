"""What a model is worth on held-out rows: quality, group rates, importances, latency. All through ONNX Runtime."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from governed_api.evidence import DataAudit, Mitigation, Weight
from governed_api.governance import Bias
from governed_serving.artefact import RULE
from governed_serving.fairness.metrics.metrics import confusion, is_group
from governed_serving.fairness.metrics.mitigation import Scored, group_thresholds, reweighing_of
from governed_serving.trainer.audit import audit, errors, favorable
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.preprocessing import feeds
from governed_serving.trainer.sampling import sample
from governed_serving.trainer.thresholds import SCORE, Drawn

CHUNK = 4096
IMPORTANCE_ROWS = 512


@dataclass(frozen=True)
class Predictions:
    """``scores``: float32 (rows, classes) probabilities, or (rows, 1) predictions of a regression. Where decisions are
    drawn, these are their chances, ``drawn`` the class codes that were, and ``believed`` float32 (rows, classes) the
    probabilities that the network gives them."""

    scores: NDArray[np.float32]
    classes: tuple[str | int, ...]
    drawn: NDArray[np.int64] | None = None
    believed: NDArray[np.float32] | None = None
    rules: NDArray[np.generic] | None = None
    """Where decisions are drawn: whose thresholds decided, shape (rows,)."""

    @property
    def decided(self) -> NDArray[np.integer | np.floating]:
        """Class codes (int64), or predictions (float32), shape (rows,)."""
        if self.drawn is not None:
            return self.drawn
        return self.scores.argmax(1) if self.classes else self.scores[:, 0]

    def at(self, index: NDArray[np.bool_]) -> "Predictions":
        """The rows at ``index``."""
        if self.drawn is None or self.believed is None or self.rules is None:
            return Predictions(self.scores[index], self.classes)
        parts = self.drawn[index], self.believed[index], self.rules[index]
        return Predictions(self.scores[index], self.classes, *parts)


def predict(session: onnxruntime.InferenceSession | Drawn, rows: Dataset) -> Predictions:
    """Predictions for raw rows."""
    if isinstance(session, Drawn):
        return _predict_drawn(session, rows)
    output = "probabilities" if rows.classes else "prediction"
    parts = [np.zeros((0, len(rows.classes) or 1), np.float32)]
    for start in range(0, rows.rows, CHUNK):
        part = rows.at(np.arange(start, min(start + CHUNK, rows.rows)))
        parts.append(session.run([output], feeds(part))[0].reshape(part.rows, -1))
    return Predictions(np.concatenate(parts), rows.classes)


def _predict_drawn(session: Drawn, rows: Dataset) -> Predictions:
    parts = []
    for start in range(0, max(rows.rows, 1), CHUNK):
        part = rows.at(np.arange(start, min(start + CHUNK, rows.rows)))
        parts.append(session.run(["probabilities", "label", SCORE, RULE], feeds(part)))
    scores, label, score, rules = (np.concatenate(values) for values in zip(*parts, strict=True))
    believed = np.stack([1 - score, score] if session.favorable else [score, 1 - score], axis=1)
    return Predictions(scores, rows.classes, (label == rows.classes[1]).astype(np.int64), believed, rules)


def quality(predictions: Predictions, label: NDArray[np.integer | np.floating]) -> dict[str, float]:
    """accuracy, logLoss (and auc for two classes), or r2, mae, rmse for a regression; logLoss and auc of what the
    network believes, where decisions are drawn."""
    if not predictions.classes:
        error = predictions.decided.astype(np.float64) - label
        spread = float(((label - label.mean(dtype=np.float64)) ** 2).mean())
        r2 = 1 - float((error**2).mean()) / spread if spread > 0 else 0.0
        return {"r2": r2, "mae": float(np.abs(error).mean()), "rmse": float((error**2).mean() ** 0.5)}
    believed = predictions.scores if predictions.believed is None else predictions.believed
    chosen = believed[np.arange(len(label)), label].astype(np.float64)
    measures = {
        "accuracy": float((predictions.decided == label).mean()),
        "logLoss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
    }
    if len(predictions.classes) == 2 and 0 < label.sum() < len(label):
        measures["auc"] = auc(believed[:, 1].astype(np.float64), label.astype(bool))
    return measures


def headline(predictions: Predictions, label: NDArray[np.integer | np.floating]) -> float:
    """The figure that the accuracy gates read: accuracy, or R² for a regression."""
    measures = quality(predictions, label)
    return measures["accuracy"] if predictions.classes else measures["r2"]


def auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half (Mann & Whitney)."""
    ranks = mid_ranks(score)
    n1, n0 = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return mean


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation; 1 when either is constant and they have the same ranks, 0 when only one is constant."""
    ra, rb = mid_ranks(a), mid_ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return float(np.array_equal(ra, rb))
    return float(np.corrcoef(ra, rb)[0, 1])


def largest_disparity(bias: Bias, rows: Dataset, predictions: Predictions) -> dict[str, float]:
    """Protected attribute → largest |statistical parity difference| of any group against the privileged."""
    outcome = favorable(bias, predictions.decided, rows.classes)
    audited = audit(bias, rows.groups, outcome)
    return {
        name: max((abs(d.spd) for d in a.disparities if d.spd == d.spd), default=0.0) for name, a in audited.items()
    }


def group_tables(bias: Bias, rows: Dataset, predictions: Predictions) -> DataAudit:
    """Selection per group and stratum, and error rates per group where labels are classes."""
    outcome = favorable(bias, predictions.decided, rows.classes)
    truth = favorable(bias, rows.label, rows.classes)
    tables = audit(bias, rows.groups, outcome)
    return {
        a.name: tables[a.name].model_copy(update={"errors": errors(rows.groups[a.name], outcome, truth, a.privileged)})
        for a in bias.protected_attributes
    }


OFFER_ROWS = 30
"""Groups with fewer held-out rows are left out of what is offered."""


@dataclass(frozen=True)
class Judged:
    """Rows, and what the model predicts for them."""

    rows: Dataset
    predictions: Predictions

    def scored(self, bias: Bias, attribute: str) -> Scored:
        """What decides about the rows, the probability of the favourable class or the prediction, and their groups."""
        place = 0
        if self.predictions.classes:
            place = [str(c) for c in self.predictions.classes].index(str(bias.favorable_outcome.label))
        score = self.predictions.scores[:, place].astype(np.float64)
        truth = favorable(bias, self.rows.label, self.rows.classes)
        return Scored(score, truth, self.rows.groups[attribute].astype(str))


def offers(bias: Bias, train: Dataset, fit: Judged, held: Judged, seed: int) -> dict[str, Mitigation]:
    """Protected attribute → what could be done about a disparity, with its effect measured on ``held`` rows; nothing is
    applied.

    ``thresholds``: one per group instead of one for all (only where a threshold decides: two classes, or a regression),
    fitted on ``fit`` rows, or where more groups have ``OFFER_ROWS`` so, on a seeded half of ``held`` and measured on
    the other half; ``weights`` of reweighing in training: see ``lifecycle.training.mitigation``.
    """
    if len(held.predictions.classes) > 2:
        return {}
    threshold, learnt = bias.favorable_outcome.threshold, favorable(bias, train.label, train.classes)
    if held.predictions.classes:
        threshold = 0.5
    offered = {}
    for attribute in bias.protected_attributes:
        parts = _apart(fit.scored(bias, attribute.name), held.scored(bias, attribute.name), held.rows, seed)
        if parts is None:
            continue
        offer = group_thresholds(*parts, threshold or 0.0)
        table = confusion(train.groups[attribute.name].astype(str), learnt, learnt)
        weights = [
            Weight(group=group, label=label, weight=weight)
            for (group, label), weight in reweighing_of(table).items()
            if table.of([group])[:, label].sum() >= OFFER_ROWS
        ]
        offered[attribute.name] = Mitigation(threshold=threshold or 0.0, **asdict(offer), weights=weights)
    return offered


def _apart(fit: Scored, held: Scored, rows: Dataset, seed: int) -> tuple[Scored, Scored] | None:
    """Rows to fit on and others to measure on, of groups that have ``OFFER_ROWS`` in both; None: fewer than two."""
    half = np.zeros(rows.rows, bool)
    half[sample(rows, rows.rows // 2, seed)] = True
    pairs = ((fit, held), (held.at(half), held.at(~half)))
    to_fit, to_judge = max(pairs, key=lambda pair: len(_large(pair[0]) & _large(pair[1])))
    shared = sorted(_large(to_fit) & _large(to_judge))
    if len(shared) < 2:
        return None
    return to_fit.at(np.isin(to_fit.groups, shared)), to_judge.at(np.isin(to_judge.groups, shared))


def _large(part: Scored) -> set[str]:
    names, counts = np.unique(part.groups, return_counts=True)
    return {str(name) for name, rows in zip(names, counts, strict=True) if rows >= OFFER_ROWS and is_group(str(name))}


def importances(session: onnxruntime.InferenceSession | Drawn, rows: Dataset, seed: int) -> dict[str, float]:
    """Feature → mean |change of the scores| when its values are shuffled among a sample of at most 512 rows.

    Permutation importance after Breiman (2001), of the output itself, so it needs no labels; summed over classes,
    halved.
    """
    rows = rows.at(sample(rows, IMPORTANCE_ROWS, seed))
    rng = np.random.default_rng(np.random.PCG64(seed))
    before = predict(session, rows).scores.astype(np.float64)
    importance = {}
    for name, column in rows.features.items():
        shuffled = replace(rows, features={**rows.features, name: column[rng.permutation(rows.rows)]})
        change = np.abs(predict(session, shuffled).scores - before).sum(1)
        importance[name] = float(change.mean()) / (2 if rows.classes else 1)
    return importance


LATENCY_ROWS = 16
"""Rows whose latency is measured: what a text takes depends on its length."""


def latencies(sessions: Sequence[onnxruntime.InferenceSession | Drawn], rows: Dataset, runs: int = 300) -> list[float]:
    """Median seconds of a one-row inference for each session, taken in turn so that all meet the same machine and rows:
    a seeded sample."""
    inputs = [feeds(rows.at(np.array([place]))) for place in sample(rows, LATENCY_ROWS, 0)]
    taken: list[list[float]] = [[] for _ in sessions]
    for k in range(runs + runs // 5):
        for session, times in zip(sessions, taken, strict=True):
            start = time.perf_counter()
            session.run(None, inputs[k % len(inputs)])
            if k >= runs // 5:
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in taken]

"""Global importances: permutation importance with intervals, and mean |attribution|."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, row_count, take
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.intervals import student_quantile
from governed_serving.explainer.players import Players

__all__ = ["GlobalImportance", "log_loss", "mean_absolute", "permutation_importance"]


@dataclass(frozen=True)
class GlobalImportance:
    """``values`` with ``lower`` and ``upper``, shape (players,), in units of the loss, or of the output."""

    names: tuple[str, ...]
    values: Floats
    lower: Floats
    upper: Floats
    evaluations: int
    confidence: float


def log_loss(labels: NDArray[np.int64]) -> Callable[[Floats], Floats]:
    """Loss per row of probabilities (rows, classes) against class positions (rows,)."""

    def loss(outputs: Floats) -> Floats:
        chosen: Floats = -np.log(np.clip(outputs[np.arange(len(labels)), labels], 1e-12, 1.0))
        return chosen

    return loss


def permutation_importance(
    box: BlackBox,
    rows: Columns,
    players: Players,
    loss: Callable[[Floats], Floats] | None = None,
    *,
    repeats: int = 10,
    seed: np.random.SeedSequence,
    confidence: float = 0.95,
) -> GlobalImportance:
    """Rise of the mean loss when a player's values are shuffled among ``rows`` (Breiman 2001; Fisher, Rudin, Dominici 2019).

    ``loss`` maps outputs (rows, outputs) to a loss per row; without labels it is the mean absolute change of the outputs. A
    shuffle leaves no row with its own values (a random cyclic shift of a random order), so that nothing is understated.
    """
    before, count = box.rows, row_count(rows)
    plain = box(rows)
    baseline = loss(plain) if loss is not None else np.zeros(count)
    rng = np.random.default_rng(seed)
    rises = np.empty((repeats, len(players)))
    for repeat in range(repeats):
        for player, members in enumerate(players.members):
            order = rng.permutation(count)
            moved = np.empty(count, np.int64)
            moved[order] = np.roll(order, 1)
            outputs = box({**rows, **take({f: rows[f] for f in members}, moved)})
            change = loss(outputs) - baseline if loss is not None else np.abs(outputs - plain).mean(axis=1)
            rises[repeat, player] = change.mean()
    half = (
        student_quantile(confidence, repeats - 1) * rises.std(axis=0, ddof=1) / np.sqrt(repeats)
        if repeats > 1
        else np.inf
    )
    mean = rises.mean(axis=0)
    return GlobalImportance(players.names, mean, mean - half, mean + half, box.rows - before, confidence)


def mean_absolute(attributions: Sequence[Attribution], output: int, confidence: float = 0.95) -> GlobalImportance:
    """Mean |φ| over explained rows (Lundberg et al. 2020), with the interval that comes from their number."""
    values = np.abs(np.array([one.values[:, output] for one in attributions]))
    mean, count = values.mean(axis=0), len(values)
    half = (
        student_quantile(confidence, count - 1) * values.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.inf
    )
    evaluations = max(one.evaluations for one in attributions)
    return GlobalImportance(attributions[0].names, mean, mean - half, mean + half, evaluations, confidence)

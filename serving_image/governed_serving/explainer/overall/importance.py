"""Global importances: permutation importance with intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, row_count, take
from governed_serving.explainer.intervals import student_quantile
from governed_serving.explainer.players import Players

__all__ = ["GlobalImportance", "permutation_importance"]


@dataclass(frozen=True)
class GlobalImportance:
    """``values`` with ``lower`` and ``upper``, shape (players,), in units of the loss, or of the output."""

    names: tuple[str, ...]
    values: Floats
    lower: Floats
    upper: Floats
    evaluations: int
    confidence: float


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
    """Rise of the mean loss when a player's values are shuffled among ``rows`` (Breiman 2001; Fisher, Rudin, Dominici
    2019).

    ``loss`` maps outputs (rows, outputs) to a loss per row; without labels it is the mean absolute change of the
    outputs. A shuffle leaves no row with its own values (a random cyclic shift of a random order), so that nothing is
    understated.
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

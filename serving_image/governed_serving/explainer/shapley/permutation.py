"""Shapley values by antithetic permutations (Castro et al. 2009; Mitchell et al. 2022), with an interval per player.

Each permutation is walked forwards and backwards; the mean of the two walks is one unbiased sample, so that the interval is a
plain Student t over permutations.
"""

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.intervals import student_quantile

__all__ = ["permutation_rows", "permutation_shapley"]


def permutation_shapley(
    game: Game, coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> tuple[Floats, Floats, int]:
    """Values and half-widths, (players, outputs) each, and coalitions used: 2 × players per permutation, at least 2 permutations.

    Raises :class:`BudgetExhausted` when the budget ended before two permutations.
    """
    rng = np.random.default_rng(seed)
    players = game.size
    count = max(2, coalitions // (2 * players))
    orders = np.stack([rng.permutation(players) for _ in range(count)])
    samples: list[Floats] = []
    step = max(1, 64 // players)
    for start in range(0, count, step):
        try:
            samples.extend(_walks(game, orders[start : start + step]))
        except BudgetExhausted:
            if len(samples) < 2:
                raise
            break
    found = np.stack(samples)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    return found.mean(axis=0), student_quantile(confidence, len(found) - 1) * error, 2 * players * len(found)


def _walks(game: Game, orders: NDArray[np.int64]) -> list[Floats]:
    """One antithetic sample, (players, outputs), per permutation."""
    players = orders.shape[1]
    rank = np.argsort(orders, axis=1)
    steps = np.arange(players + 1)
    forward = rank[:, None, :] < steps[None, :, None]
    masks = np.concatenate([forward, (players - 1 - rank)[:, None, :] < steps[None, :, None]], axis=1)
    answers = game.values(masks.reshape(-1, players)).reshape(len(orders), 2, players + 1, -1)
    samples = []
    for walk, order in zip(answers, orders, strict=True):
        gain = np.empty((players, walk.shape[2]))
        gain[order] = np.diff(walk[0], axis=0)
        back = np.empty_like(gain)
        back[order[::-1]] = np.diff(walk[1], axis=0)
        samples.append((gain + back) / 2)
    return samples


def permutation_rows(
    game: InterventionalGame, coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> list[Attribution]:
    """One :class:`Attribution` per row; additive to rounding, since every walk goes from ∅ to N."""
    answers = []
    for row, stream in enumerate(seed.spawn(game.rows)):
        one, before = RowGame(game, row), game.box.rows
        values = np.zeros((len(game.players), game.base.shape[0]))
        half, used = np.zeros_like(values), 0
        if one.size:
            values[one.active], half[one.active], used = permutation_shapley(one, coalitions, stream, confidence)
        answers.append(
            Attribution(
                method="permutation",
                names=game.players.names,
                values=values,
                lower=values - half,
                upper=values + half,
                base=game.base,
                prediction=game.row_outputs[row],
                evaluations=game.box.rows - before,
                coalitions=used,
                confidence=confidence,
                exact=one.size <= 1,
            )
        )
    return answers

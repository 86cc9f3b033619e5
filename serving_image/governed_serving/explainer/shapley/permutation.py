"""Shapley values by antithetic permutations (Castro et al. 2009; Mitchell et al. 2022), with an interval per player.

Each permutation is walked forwards and backwards; the mean of the two walks is one unbiased sample, so that the
interval is a Student t over permutations, of a variance that no player has below the mean of all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.intervals import student_quantile, with_pooled
from governed_serving.explainer.shapley.sampled import SampledGame, nothing_sampled, solved_rows

__all__ = ["estimate", "gains_both_ways", "permutation_rows", "permutation_shapley"]

FEW = 4
"""Samples below which they agree so often by chance that gains count as if any player could have had any other's."""


@dataclass(frozen=True)
class _Ends:
    """``v(∅)`` and ``v(N)``, shape (outputs,) each: known to the caller, and no walk asks for them again."""

    empty: Floats
    whole: Floats


def permutation_shapley(
    game: Game, ends: tuple[Floats, Floats], coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> SampledGame:
    """Values of a game of at least two players from at most ``coalitions`` coalitions, players − 1 for each walk.

    ``ends`` = (v(∅), v(N)). One walk, or one permutation both ways, gives values, but intervals without end. Raises
    :class:`NotExplainable` where ``coalitions`` allows for no walk; a budget that ends before the first leaves
    :func:`nothing_sampled`.
    """
    players = game.size
    walks = coalitions // (players - 1)
    if walks < 1:
        raise NotExplainable(
            f"parameters.maxEvaluations: expected at least {players - 1} for permutations of {players} players, "
            f"found {coalitions}; allow more, group features, or use 'sampled'"
        )
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(players) for _ in range(max(1, walks // 2))])
    if walks == 1:
        return _alone(game, orders, _Ends(*ends))
    gains, stopped = gains_both_ways(game, orders, ends)
    return estimate(gains, stopped, confidence) if gains else nothing_sampled(players, ends[1] - ends[0])


def gains_both_ways(game: Game, orders: NDArray[np.int64], ends: tuple[Floats, Floats]) -> tuple[list[Floats], str]:
    """What each player adds in each of ``orders`` (orders, players), walked forwards and backwards: (2, players,
    outputs) each, as far as there is time, and what ended it."""
    ends_known, players = _Ends(*ends), game.size
    gains: list[Floats] = []
    start = 0
    while start < len(orders):
        step = max(1, 64 // players) if start else 1  # the first alone: it must be there before a budget ends
        try:
            gains.extend(_both_ways(game, orders[start : start + step], ends_known))
        except BudgetExhausted:
            return gains, "budget"
        start += step
    return gains, "evaluations"


def _alone(game: Game, orders: NDArray[np.int64], ends: _Ends) -> SampledGame:
    try:
        values = _gains(game, orders, ends)[0]
    except BudgetExhausted:
        return nothing_sampled(game.size, ends.whole - ends.empty)
    return SampledGame(values, np.full_like(values, np.inf), game.size - 1, "evaluations", False)


def estimate(gains: list[Floats], stopped: str, confidence: float) -> SampledGame:
    """From one array (2, players, outputs) per permutation: its walk forwards and its walk backwards."""
    both = np.stack(gains)
    samples = both.mean(axis=1)
    count, players = samples.shape[:2]
    used = 2 * (players - 1) * count  # of players that walked
    values = samples.mean(axis=0)
    if count < 2:
        return SampledGame(values, np.full_like(values, np.inf), used, stopped, False)
    variance = with_pooled(samples.var(axis=0, ddof=1))
    if count < FEW:
        anyones = both.reshape(-1, values.shape[1]).var(axis=0, ddof=1)
        variance = np.maximum(variance, anyones / 2)
    half = student_quantile(confidence, count - 1) * np.sqrt(variance / count)
    return SampledGame(values, half, used, stopped, False)


def _both_ways(game: Game, orders: NDArray[np.int64], ends: _Ends) -> list[Floats]:
    """Gains (2, players, outputs) per permutation."""
    walked = _gains(game, np.concatenate([orders, orders[:, ::-1]]), ends)
    return [np.stack([walked[i], walked[i + len(orders)]]) for i in range(len(orders))]


def _gains(game: Game, orders: NDArray[np.int64], ends: _Ends) -> list[Floats]:
    """What each player adds when it enters, shape (players, outputs), per walk."""
    walks, players = orders.shape
    rank = np.argsort(orders, axis=1)
    masks = rank[:, None, :] < np.arange(1, players)[None, :, None]
    inner = game.values(masks.reshape(-1, players)).reshape(walks, players - 1, -1)
    gains = []
    for steps, order in zip(inner, orders, strict=True):
        gain = np.empty((players, steps.shape[1]))
        gain[order] = np.diff(np.concatenate([ends.empty[None], steps, ends.whole[None]]), axis=0)
        gains.append(gain)
    return gains


def permutation_rows(
    game: InterventionalGame, coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> list[Attribution]:
    """One :class:`Attribution` per row; additive to rounding, since every walk goes from ∅ to N."""

    def solve(row: RowGame, ends: tuple[Floats, Floats], stream: np.random.SeedSequence) -> SampledGame:
        return permutation_shapley(row, ends, coalitions, stream, confidence)

    return [one for one, _ in solved_rows("permutation", game, solve, seed, confidence)]

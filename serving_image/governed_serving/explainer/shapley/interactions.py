"""Sampled SHAP interaction values: rounds in which every pair of players stands side by side once, with intervals.

In a random order a pair of neighbours is preceded by a coalition S as the index wants it: of a size uniform over 0…n−2,
and then any of that size. The complete graph falls into n/2 Hamiltonian paths (Walecki; Lucas 1892), so that as many
orders, under random names, show every pair once. What they ask for are the walks and, for each pair of neighbours, the
walk that takes the second first: arcs of one circle, of each length n/2 + 1. Rounds are independent and their walks
give Shapley values as well, hence one Student t over rounds for all, of a variance that no pair has below the mean of
all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.attribution import Attribution, Interactions
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.intervals import student_quantile, with_pooled
from governed_serving.explainer.shapley.cells import MAX_PLAYERS, Cells, above_diagonal, with_main
from governed_serving.explainer.shapley.exact import exact_table
from governed_serving.explainer.shapley.sampled import nothing_sampled

__all__ = ["MAX_INTERACTING", "ROUNDS", "interaction_rows", "round_cost", "sampled_interactions"]

MAX_INTERACTING = 64
"""Players whose pairs are looked at: 2,016 pairs."""

ROUNDS = 8
"""Rounds from which an interval is worth its width."""

SMALL = 6
"""Players up to which the whole table is no more than two rounds."""

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class SampledPairs:
    """Estimates over the game's own players: the Shapley ``values``, ``pairs`` and ``main`` effects, each with its
    half-width; shapes (players or pairs, outputs)."""

    values: Floats
    half_width: Floats
    pairs: Floats
    pairs_half: Floats
    main_half: Floats
    coalitions: int
    stopped: str
    exact: bool


def round_cost(players: int) -> int:
    """Coalitions of one round (an odd number of players asks for fewer)."""
    even = players + players % 2
    return (even // 2 + 1) * (even - 1)


def sampled_interactions(
    game: Game, ends: tuple[Floats, Floats], coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> SampledPairs:
    """Of a game of at least two players, from at most ``coalitions`` coalitions: exact where that is all of them.

    ``ends`` = (v(∅), v(N)). One round gives values, but intervals without end. A function of the game, the seed and
    the number of rounds. Raises :class:`NotExplainable` where ``coalitions`` allows for no round.
    """
    players, total = game.size, ends[1] - ends[0]
    enumerable = players <= MAX_PLAYERS and 1 << players <= coalitions
    if enumerable and (game.box.deadline is None or players <= SMALL):
        return _whole(game, total)
    rounds = coalitions // round_cost(players)
    if rounds < 1:
        raise NotExplainable(
            f"parameters.maxEvaluations: expected at least {round_cost(players)} for the interactions of {players} "
            f"players ({ROUNDS} × as many for good intervals), found {coalitions}; allow more or group features"
        )
    if enumerable:  # against a clock, exactness comes after what is there in any case
        rounds = min(rounds, ROUNDS)
    samples, stopped = _rounds(game, ends, rounds, np.random.default_rng(seed))
    if enumerable and stopped != "budget":
        whole = _whole(game, total)
        if whole.exact:
            return whole
    return _estimate(samples, stopped, confidence, total, players)


def _whole(game: Game, total: Floats) -> SampledPairs:
    """By the table of all coalitions, as far as there is time."""
    cells = Cells(game.size, True)
    try:
        table = exact_table(game)[1]
    except BudgetExhausted:
        return _nothing(game.size, total)
    both = cells.matrix(game.size).T @ table
    values, pairs = both[: game.size], both[game.size :]
    zero, none = np.zeros_like(values), np.zeros_like(pairs)
    return SampledPairs(values, zero, pairs, none, zero, 1 << game.size, "complete", True)


def _nothing(players: int, total: Floats) -> SampledPairs:
    shares = nothing_sampled(players, total)
    pairs = np.zeros((len(above_diagonal(players)[0]), len(total)))
    wide, half = np.full_like(pairs, np.inf), shares.half_width
    return SampledPairs(shares.values, half, pairs, wide, half, 0, "budget", False)


_Round = tuple[Floats, Floats]
"""What one round says: Shapley values (players, outputs) and pairs (pairs, outputs)."""


def _rounds(game: Game, ends: tuple[Floats, Floats], rounds: int, rng: np.random.Generator) -> tuple[list[_Round], str]:
    samples: list[_Round] = []
    for _ in range(rounds):
        try:
            samples.append(_round(game, ends, _orders(game.size, rng)))
        except BudgetExhausted:
            return samples, "budget"
    return samples, "evaluations"


def _orders(players: int, rng: np.random.Generator) -> Codes:
    """Orders (paths, even) in which every pair stands side by side once; an odd number is made even by a player that
    does nothing (the last)."""
    even = players + players % 2
    steps = np.arange(even)
    zigzag = np.where(steps % 2 == 0, steps // 2, even - (steps + 1) // 2)
    paths = (zigzag[None, :] + np.arange(even // 2)[:, None]) % even
    orders: Codes = rng.permutation(even)[paths]
    return orders


def _round(game: Game, ends: tuple[Floats, Floats], orders: Codes) -> _Round:
    paths, even = orders.shape
    players = game.size
    rank = np.argsort(orders, axis=1)
    walk = rank[:, None, :players] < np.arange(even + 1)[None, :, None]  # (paths, even + 1, players): after k steps
    swapped = walk[:, :-2].copy()  # before the pair (k, k + 1): joined by its second alone
    path, step = np.meshgrid(np.arange(paths), np.arange(even - 1), indexing="ij")
    second = orders[:, 1:]
    real = second < players
    swapped[path[real], step[real], second[real]] = True
    masks, inverse = np.unique(
        np.concatenate([walk.reshape(-1, players), swapped.reshape(-1, players)]), axis=0, return_inverse=True
    )
    answers = _answers(game, ends, masks)[inverse.reshape(-1)]
    cut = paths * (even + 1)
    v, w = answers[:cut].reshape(paths, even + 1, -1), answers[cut:].reshape(paths, even - 1, -1)
    gains = np.zeros((even, v.shape[2]))
    np.add.at(gains, orders, np.diff(v, axis=1))
    effect = (v[:, 2:] - v[:, 1:-1] - w + v[:, :-2]) / 2
    place = np.zeros((even, even), np.int64)
    first, other = above_diagonal(players)
    place[first, other] = place[other, first] = np.arange(len(first))
    both = (orders[:, :-1] < players) & real
    pairs = np.zeros((len(first), v.shape[2]))
    pairs[place[orders[:, :-1][both], second[both]]] = effect[both]
    return gains[:players] / paths, pairs


def _answers(game: Game, ends: tuple[Floats, Floats], masks: NDArray[np.bool_]) -> Floats:
    """``v`` of distinct masks, the two ends of which are known."""
    size = masks.sum(axis=1)
    answers = np.empty((len(masks), len(ends[0])))
    answers[size == 0], answers[size == masks.shape[1]] = ends
    inner = (size > 0) & (size < masks.shape[1])
    answers[inner] = game.values(masks[inner])
    return answers


def _estimate(samples: list[_Round], stopped: str, confidence: float, total: Floats, players: int) -> SampledPairs:
    if not samples:
        return _nothing(players, total)
    values, pairs = (np.stack(part) for part in zip(*samples, strict=True))
    return SampledPairs(
        values.mean(axis=0),
        _half(values, confidence),
        pairs.mean(axis=0),
        _half(pairs, confidence),
        _half(with_main(values, pairs), confidence),
        len(samples) * round_cost(players),
        stopped,
        False,
    )


def _half(samples: Floats, confidence: float) -> Floats:
    """Half-width of the interval of the mean over the first axis."""
    count = len(samples)
    if count < 2:
        return np.full(samples.shape[1:], np.inf)
    half: Floats = student_quantile(confidence, count - 1) * np.sqrt(with_pooled(samples.var(axis=0, ddof=1)) / count)
    return half


def interaction_rows(
    game: InterventionalGame, coalitions: int, seed: np.random.SeedSequence, confidence: float = 0.95
) -> list[Attribution]:
    """One :class:`Attribution` per row, with its interactions; players that agree with all of the background have
    none."""
    rows = [RowGame(game, row) for row in range(game.rows)]
    widest = max((row.size for row in rows), default=0)
    if widest > MAX_INTERACTING:
        raise NotExplainable(
            f"parameters.interactions: expected at most {MAX_INTERACTING} players that differ, found {widest}; group "
            "features"
        )
    ends = [(game.base, prediction) for prediction in game.row_outputs]
    return [
        _row(row, ends[row.row], coalitions, stream, confidence)
        for row, stream in zip(rows, seed.spawn(game.rows), strict=True)
    ]


def _row(
    row: RowGame, ends: tuple[Floats, Floats], coalitions: int, seed: np.random.SeedSequence, confidence: float
) -> Attribution:
    before, cells = row.box.rows, Cells(len(row.game.players), True)
    base, prediction = ends
    both, half = np.zeros((len(cells), len(base))), np.zeros((len(cells), len(base)))
    main_half = np.zeros((cells.players, len(base)))
    used, stopped, exact = 0, "complete", True
    if row.size == 1:
        both[row.active[0]] = prediction - base
    elif row.size:
        sampled = sampled_interactions(row, ends, coalitions, seed, confidence)
        at = cells.of(row.active[None])[0]
        both[at] = np.concatenate([sampled.values, sampled.pairs])
        half[at] = np.concatenate([sampled.half_width, sampled.pairs_half])
        main_half[row.active] = sampled.main_half
        used, stopped, exact = sampled.coalitions, sampled.stopped, sampled.exact
    values, pairs = both[: cells.players], both[cells.players :]
    main = with_main(values, pairs)
    low, high = both - half, both + half
    return Attribution(
        method="exact" if exact else "permutation",
        names=row.game.players.names,
        values=values,
        lower=low[: cells.players],
        upper=high[: cells.players],
        base=base,
        prediction=prediction,
        evaluations=row.box.rows - before,
        coalitions=used,
        confidence=confidence,
        exact=exact,
        details={"stopped": stopped},
        interactions=Interactions(
            pairs, low[cells.players :], high[cells.players :], main, main - main_half, main + main_half
        ),
    )

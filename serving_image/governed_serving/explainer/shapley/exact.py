"""Exact interventional Shapley values by enumeration.

The game against a whole background is the mean of the games against each background row, and in the game of a pair
(row, background row) only the d players on which the two differ can matter: 2^d coalitions instead of 2^M, with nothing
lost. Where d is 1, the model isn't asked at all beyond the two ends.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Booleans, Codes, Game, InterventionalGame

__all__ = ["MAX_PLAYERS", "exact_shapley", "exact_table", "planned_rows", "shapley_matrix", "subsets"]

MAX_PLAYERS = 14


@functools.lru_cache(maxsize=MAX_PLAYERS + 1)
def subsets(players: int) -> Booleans:
    """All coalitions, shape (2^players, players): player j is in coalition m when bit j of m is set."""
    inside: Booleans = (np.arange(1 << players)[:, None] >> np.arange(players)) & 1 == 1
    return inside


@functools.lru_cache(maxsize=MAX_PLAYERS + 1)
def shapley_matrix(players: int) -> Floats:
    """W of shape (2^players, players) with ``φ = v @ W`` for ``v`` in the order of :func:`subsets` (Shapley 1953)."""
    inside = subsets(players)
    size = inside.sum(1)
    weight = np.array([1.0 / (players * math.comb(players - 1, s)) for s in range(players)])
    joined = weight[np.maximum(size - 1, 0)]
    left = weight[np.minimum(size, players - 1)]
    matrix: Floats = np.where(inside, joined[:, None], -left[:, None])
    return matrix


def exact_table(game: Game) -> tuple[Floats, Floats]:
    """Shapley values of any game of at most 14 players: (players, outputs), and the table v, (2^players, outputs)."""
    _check(game.size)
    table = game.values(subsets(game.size))
    return shapley_matrix(game.size).T @ table, table


def planned_rows(game: InterventionalGame) -> int:
    """Most model rows that :func:`exact_shapley` would ask for, before any deduplication of hybrids."""
    differing = (game.code_x[:, None, :] != game.code_b[None, :, :]).sum(axis=2)
    return int(np.maximum(2.0**differing - 2, 0).sum()) + game.rows + game.backgrounds


def exact_shapley(game: InterventionalGame) -> list[Attribution]:
    """One :class:`Attribution` per row, exact for the given background.

    Raises :class:`NotExplainable` when some row differs from some background row on more than 14 players.
    """
    before = game.box.rows
    differs = game.code_x[:, None, :] != game.code_b[None, :, :]
    count = differs.sum(axis=2)
    _check(int(count.max(initial=0)))
    outputs = game.background_outputs.shape[1]
    sums = _Sums.zeros(game.rows, len(game.players), outputs)
    coalitions = 0
    for d in range(1, int(count.max(initial=0)) + 1):
        x, b = np.nonzero(count == d)
        if len(x):
            coalitions += len(x) << d
            _play(game, x, b, differs, sums)
    halves, total = sums.halves, sums.halves.sum(axis=0)
    variance = np.maximum(sums.squares - total**2, 0.0)
    error = np.sqrt(variance * float((game.weights**2).sum()))
    evaluations = game.box.rows - before
    mass = np.array([game.weights[0::2].sum(), max(game.weights[1::2].sum(), 1e-300)])
    halves /= mass[:, None, None, None]
    return [
        Attribution(
            method="exact",
            names=game.players.names,
            values=total[row],
            lower=total[row],
            upper=total[row],
            base=game.base,
            prediction=game.row_outputs[row],
            evaluations=evaluations,
            coalitions=coalitions,
            exact=True,
            background_error=error[row],
            halves=(halves[0, row], halves[1, row]) if game.backgrounds > 1 else None,
        )
        for row in range(game.rows)
    ]


@dataclass(frozen=True)
class _Sums:
    """Weighted Shapley values over pairs, (2, rows, players, outputs) by parity of the background row, and their
    squares over both."""

    halves: Floats
    squares: Floats

    @classmethod
    def zeros(cls, rows: int, players: int, outputs: int) -> "_Sums":
        return cls(np.zeros((2, rows, players, outputs)), np.zeros((rows, players, outputs)))


def _play(game: InterventionalGame, x: Codes, b: Codes, differs: Booleans, sums: _Sums) -> None:
    """Adds the games of the pairs (x, b), all of which differ on as many players."""
    d = int(differs[x[0], b[0]].sum())
    place = _places(differs[x, b], d)
    alike = np.lexsort(place.T)  # pairs that differ on the same players stand together
    x, b, place = x[alike], b[alike], place[alike]
    bits = np.concatenate([subsets(d).T[:, 1:-1], np.ones((1, (1 << d) - 2), bool)])
    matrix = shapley_matrix(d)
    step = max(1, game.box.max_rows >> d)

    def part(start: int) -> Floats:
        stop = min(start + step, len(x))
        xs, bs, at = x[start:stop, None], b[start:stop, None], place[start:stop]
        if game.direct and d > 1 and (at == at[0]).all():
            return _weighted(game.cube(xs[:, 0], bs[:, 0], np.flatnonzero(at[0] < d)), matrix)
        ends = (game.background_outputs[bs[:, 0]], game.row_outputs[xs[:, 0]])
        values: Floats = np.einsum("po,d->pdo", ends[1], matrix[-1]) + np.einsum("po,d->pdo", ends[0], matrix[0])
        if d > 1:
            inner = game.block(xs, bs, lambda g: bits[at[:, g]], (stop - start, bits.shape[1]))
            values += np.matmul(matrix[1:-1].T, inner)
        return values

    _ = game.row_outputs, game.background_outputs  # evaluated once, before workers race for them
    players = np.nonzero(differs[x, b])[1].reshape(len(x), d)
    weight = game.weights[b][:, None, None]
    starts = list(range(0, len(x), step))
    for start, values in zip(starts, game.map(part, starts), strict=True):
        at = (x[start : start + step, None], players[start : start + step])
        np.add.at(sums.halves, (b[start : start + step, None] % 2, *at), values * weight[start : start + step])
        np.add.at(sums.squares, at, values**2 * weight[start : start + step])


def _weighted(tables: Floats, matrix: Floats) -> Floats:
    """Shapley values of whole tables, shape (pairs, 2^d, outputs) → (pairs, d, outputs)."""
    single = tables.shape[2] == 1  # then one product over all pairs, not one per pair
    values: Floats = (tables[:, :, 0] @ matrix)[:, :, None] if single else np.matmul(matrix.T, tables)
    return values


def _places(differs: Booleans, d: int) -> NDArray[np.int64]:
    """Position of each player among the pair's differing ones, or ``d`` where the pair agrees: shape (pairs,
    players)."""
    return np.where(differs, np.cumsum(differs, axis=1) - 1, d)


def _check(players: int) -> None:
    if players > MAX_PLAYERS:
        raise NotExplainable(
            f"exact Shapley values need at most {MAX_PLAYERS} players that differ, found {players}; group "
            "features or use 'sampled'"
        )

"""Exact interventional Shapley values by enumeration.

The game against a whole background is the mean of the games against each background row, and in the game of a pair
(row, background row) only the d players on which the two differ can matter: 2^d coalitions instead of 2^M, with nothing
lost. Where d is 1, the model isn't asked at all beyond the two ends.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Booleans, Codes, Game, InterventionalGame
from governed_serving.explainer.shapley.cells import MAX_PLAYERS, Cells, shapley_matrix, subsets

__all__ = ["exact_shapley", "exact_table", "planned_rows"]


def exact_table(game: Game) -> tuple[Floats, Floats]:
    """Shapley values of any game of at most 14 players: (players, outputs), and the table v, (2^players, outputs)."""
    _check(game.size)
    table = game.values(subsets(game.size))
    return shapley_matrix(game.size).T @ table, table


def planned_rows(game: InterventionalGame) -> int:
    """Most model rows that :func:`exact_shapley` would ask for, before any deduplication of hybrids."""
    differing = (game.code_x[:, None, :] != game.code_b[None, :, :]).sum(axis=2)
    return int(np.maximum(2.0**differing - 2, 0).sum()) + game.rows + game.backgrounds


def exact_shapley(game: InterventionalGame, *, interactions: bool = False) -> list[Attribution]:
    """One :class:`Attribution` per row, exact for the given background; with ``interactions``, of the same
    evaluations, those of pairs as well.

    Raises :class:`NotExplainable` when some row differs from some background row on more than 14 players.
    """
    cells = Cells(len(game.players), interactions)
    before = game.box.rows
    differs = game.code_x[:, None, :] != game.code_b[None, :, :]
    count = differs.sum(axis=2)
    _check(int(count.max(initial=0)))
    outputs = game.background_outputs.shape[1]
    sums = _Sums.zeros(game.rows, len(cells), outputs)
    coalitions = 0
    for d in range(1, int(count.max(initial=0)) + 1):
        x, b = np.nonzero(count == d)
        if len(x):
            coalitions += len(x) << d
            _play(game, (x, b), differs, cells, sums)
    halves, total = sums.halves, sums.halves.sum(axis=0)
    variance = np.maximum(sums.squares - total**2, 0.0)
    error = np.sqrt(variance * float((game.weights**2).sum()))
    evaluations = game.box.rows - before
    mass = np.array([game.weights[0::2].sum(), max(game.weights[1::2].sum(), 1e-300)])
    halves /= mass[:, None, None, None]
    players = slice(0, len(game.players))
    return [
        Attribution(
            method="exact",
            names=game.players.names,
            values=total[row, players],
            lower=total[row, players],
            upper=total[row, players],
            base=game.base,
            prediction=game.row_outputs[row],
            evaluations=evaluations,
            coalitions=coalitions,
            exact=True,
            background_error=error[row, players],
            halves=(halves[0, row, players], halves[1, row, players]) if game.backgrounds > 1 else None,
            interactions=cells.interactions(total[row], error[row]),
        )
        for row in range(game.rows)
    ]


@dataclass(frozen=True)
class _Sums:
    """Weighted values over pairs, (2, rows, cells, outputs) by parity of the background row, and their squares over
    both."""

    halves: Floats
    squares: Floats

    @classmethod
    def zeros(cls, rows: int, cells: int, outputs: int) -> "_Sums":
        return cls(np.zeros((2, rows, cells, outputs)), np.zeros((rows, cells, outputs)))


def _play(game: InterventionalGame, indices: tuple[Codes, Codes], differs: Booleans, cells: Cells, sums: _Sums) -> None:
    """Adds the games of the pairs ``indices`` = (x, b), all of which differ on as many players."""
    x, b = indices
    d = int(differs[x[0], b[0]].sum())
    place = _places(differs[x, b], d)
    alike = np.lexsort(place.T)  # pairs that differ on the same players stand together
    x, b, place = x[alike], b[alike], place[alike]
    bits = np.concatenate([subsets(d).T[:, 1:-1], np.ones((1, (1 << d) - 2), bool)])
    matrix = cells.matrix(d)
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
    written = cells.of(np.nonzero(differs[x, b])[1].reshape(len(x), d))
    weight = game.weights[b][:, None, None]
    starts = list(range(0, len(x), step))
    for start, values in zip(starts, game.map(part, starts), strict=True):
        at = (x[start : start + step, None], written[start : start + step])
        np.add.at(sums.halves, (b[start : start + step, None] % 2, *at), values * weight[start : start + step])
        np.add.at(sums.squares, at, values**2 * weight[start : start + step])


def _weighted(tables: Floats, matrix: Floats) -> Floats:
    """Values of whole tables, shape (pairs, 2^d, outputs) → (pairs, cells, outputs)."""
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

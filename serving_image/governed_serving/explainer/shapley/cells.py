"""What is read off a whole table of coalitions: Shapley values, and the interactions of pairs beside them."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.attribution import Interactions

__all__ = ["MAX_PLAYERS", "Cells", "above_diagonal", "interaction_matrix", "shapley_matrix", "subsets", "with_main"]

MAX_PLAYERS = 14

Codes = NDArray[np.int64]


@functools.lru_cache(maxsize=MAX_PLAYERS + 1)
def subsets(players: int) -> NDArray[np.bool_]:
    """All coalitions, shape (2^players, players): player j is in coalition m when bit j of m is set."""
    inside: NDArray[np.bool_] = (np.arange(1 << players)[:, None] >> np.arange(players)) & 1 == 1
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


@functools.lru_cache(maxsize=MAX_PLAYERS + 1)
def interaction_matrix(players: int) -> Floats:
    """W of shape (2^players, pairs) with ``Φ = v @ W`` above the diagonal: half of Σ_S |S|! (n−|S|−2)! / (n−1)! times
    v(S∪ij) − v(S∪i) − v(S∪j) + v(S) (Grabisch and Roubens 1999)."""
    inside = subsets(players)
    size = inside.sum(1)
    first, second = above_diagonal(players)
    if not len(first):
        return np.zeros((len(inside), 0))
    weight = np.array([0.5 / ((players - 1) * math.comb(players - 2, s)) for s in range(players - 1)])
    held = inside[:, first].astype(np.int64) + inside[:, second]
    rest = np.clip(size[:, None] - held, 0, players - 2)  # of the coalition, without the two
    matrix: Floats = np.where(held == 1, -1.0, 1.0) * weight[rest]
    return matrix


def above_diagonal(players: int) -> tuple[Codes, Codes]:
    """First and second player of each pair."""
    return np.triu_indices(players, 1)


def with_main(values: Floats, pairs: Floats) -> Floats:
    """The diagonal, shape (players, outputs): what of each player's Shapley value no pair has. Leading axes may
    stand before (players, outputs) and (pairs, outputs)."""
    main = values.copy()
    for place, (one, other) in enumerate(zip(*above_diagonal(values.shape[-2]), strict=True)):
        main[..., one, :] -= pairs[..., place, :]
        main[..., other, :] -= pairs[..., place, :]
    return main


@dataclass(frozen=True)
class Cells:
    """Where the values of a game among some of ``players`` are added: first the players, then the pairs, if asked
    for."""

    players: int
    pairs: bool

    def __len__(self) -> int:
        return self.players + (math.comb(self.players, 2) if self.pairs else 0)

    def matrix(self, d: int) -> Floats:
        """Of a game of ``d`` players: (2^d, cells of such a game)."""
        if not self.pairs:
            return shapley_matrix(d)
        return np.concatenate([shapley_matrix(d), interaction_matrix(d)], axis=1)

    def of(self, places: Codes) -> Codes:
        """Cells of games among the players ``places`` (games, d), ascending: (games, cells of such a game)."""
        if not self.pairs:
            return places
        first, second = above_diagonal(places.shape[1])
        one, other = places[:, first], places[:, second]
        before = one * (2 * self.players - one - 1) // 2
        return np.concatenate([places, self.players + before + other - one - 1], axis=1)

    def interactions(self, values: Floats, error: Floats) -> Interactions | None:
        """From exact values and their background errors, shape (cells, outputs)."""
        if not self.pairs:
            return None
        pairs = values[self.players :]
        main = with_main(values[: self.players], pairs)
        return Interactions(pairs, pairs, pairs, main, main, main, error[self.players :])

"""Coalition games of up to dozens of players whose Shapley values are known exactly: what intervals are held against.

Thresholds by counting (Lambert 1988: coalitions by size and weight), parity and conjunction by symmetry, sparse games
by enumeration of the few players that matter, white noise by the coalitions that weigh (the smallest and the largest).
"""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.shapley.cells import shapley_matrix, subsets

__all__ = ["GAMES", "KnownGame"]

ENUMERATED = 13
"""Players up to which white noise is enumerated whole."""

NOISE_DEPTH = 3
"""Beyond: sizes of coalitions (and of complements) whose noise is counted; of 20 players' noise 1 % is left out."""


class KnownGame:
    """``values`` asks; ``truth`` (players,) are the Shapley values; ``asked`` counts the coalitions asked for."""

    def __init__(self, size: int, value: Callable[[np.ndarray], np.ndarray], truth: np.ndarray) -> None:
        self.size, self._value, self.truth = size, value, np.asarray(truth, float)
        self.box = BlackBox(lambda columns: columns["x"])
        self.asked = 0

    def values(self, masks: np.ndarray) -> np.ndarray:
        self.asked += len(masks)
        return np.asarray(self._value(np.asarray(masks, bool)), float)[:, None]

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """``v(∅)`` and ``v(N)``, shape (1,) each; not counted."""
        both = np.asarray(self._value(np.array([[False] * self.size, [True] * self.size])), float)
        return both[:1], both[1:]

    def total(self) -> np.ndarray:
        empty, whole = self.ends()
        return whole - empty


def threshold(players: int, rng: np.random.Generator) -> KnownGame:
    """1 where the members' weights reach a quota: a decision rule, nowhere smooth."""
    weights = rng.integers(1, 21, players)
    quota = int(weights.sum() * rng.uniform(0.35, 0.65)) + 1
    return KnownGame(players, lambda masks: masks @ weights >= quota, _shapley_shubik(weights, quota))


def _shapley_shubik(weights: np.ndarray, quota: int) -> np.ndarray:
    players, total = len(weights), int(weights.sum())
    counts = np.zeros((players + 1, total + 1), object)  # coalitions by size and weight, as whole numbers
    counts[0, 0] = 1
    for weight in weights:
        counts[1:, weight:] = counts[1:, weight:] + counts[:-1, : total + 1 - weight]
    return np.array([_pivotal(counts, int(weight), quota) for weight in weights])


def _pivotal(counts: np.ndarray, weight: int, quota: int) -> float:
    """Shapley value of a player of ``weight``: how often it makes the others reach the quota."""
    players = len(counts) - 1
    others = counts.copy()
    for size in range(1, players + 1):
        others[size, weight:] = counts[size, weight:] - others[size - 1, : counts.shape[1] - weight]
    pivots = (others[size, max(quota - weight, 0) : quota].sum() for size in range(players))
    return sum(float(pivot) / math.comb(players - 1, size) / players for size, pivot in enumerate(pivots))


def parity(players: int, rng: np.random.Generator) -> KnownGame:  # noqa: ARG001  there is but one
    """Whether the coalition is odd: interactions of every order."""
    return KnownGame(players, lambda masks: masks.sum(axis=1) % 2, np.full(players, players % 2 / players))


def conjunction(players: int, rng: np.random.Generator) -> KnownGame:  # noqa: ARG001  there is but one
    """1 for all players together alone: nothing to be seen below."""
    return KnownGame(players, lambda masks: masks.all(axis=1), np.full(players, 1 / players))


def sparse(players: int, rng: np.random.Generator) -> KnownGame:
    """Five players in arbitrary interaction, the others without effect."""
    who, table = rng.choice(players, 5, replace=False), rng.normal(size=32)
    truth = np.zeros(players)
    truth[who] = shapley_matrix(5).T @ table
    return KnownGame(players, lambda masks: table[masks[:, who] @ (1 << np.arange(5))], truth)


def noisy(players: int, rng: np.random.Generator) -> KnownGame:
    """Additive, and on every coalition noise of its own (the same whenever it is asked)."""
    effects, key = rng.normal(size=players), int(rng.integers(1 << 30))
    scale = float(np.abs(effects).mean())

    def value(masks: np.ndarray) -> np.ndarray:
        return masks @ effects + scale * _hashed_normal(masks, key)

    if players <= ENUMERATED:
        return KnownGame(players, value, shapley_matrix(players).T @ value(subsets(players)))
    truth = effects.copy()
    for size in range(NOISE_DEPTH + 1):
        some = np.zeros((math.comb(players, size), players), bool)
        for row, members in enumerate(combinations(range(players), size)):
            some[row, list(members)] = True
        for masks, members in ((some, size), (~some, players - size)):
            joined = 1 / (players * math.comb(players - 1, members - 1)) if members else 0.0
            left = 1 / (players * math.comb(players - 1, members)) if members < players else 0.0
            truth += np.where(masks, joined, -left).T @ (scale * _hashed_normal(masks, key))
    return KnownGame(players, value, truth)


def _hashed_normal(masks: np.ndarray, key: int) -> np.ndarray:
    """A standard normal number per coalition, by hashing (splitmix64) and the method of Box and Muller."""
    words = np.random.default_rng(key).integers(1, 1 << 63, masks.shape[1], dtype=np.uint64)
    hashed = np.bitwise_xor.reduce(np.where(masks, words, np.uint64(0)), axis=1)
    radius, angle = (_mixed(hashed + np.uint64(salt)).astype(float) / 2**64 for salt in (0x9E3779B9, 0x7F4A7C15))
    return np.sqrt(-2 * np.log(radius + 1e-18)) * np.cos(2 * np.pi * angle)


def _mixed(word: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def smooth(players: int, rng: np.random.Generator) -> KnownGame:
    """A logistic function of additive effects, of at most 13 players."""
    effects = rng.normal(size=players)

    def value(masks: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(masks @ effects)))

    return KnownGame(players, value, shapley_matrix(players).T @ value(subsets(players)))


GAMES: dict[str, Callable[[int, np.random.Generator], KnownGame]] = {
    "threshold": threshold,
    "parity": parity,
    "conjunction": conjunction,
    "additive and noise": noisy,
    "sparse": sparse,
    "smooth": smooth,
}
"""By name: a game of so many players, drawn from a generator."""

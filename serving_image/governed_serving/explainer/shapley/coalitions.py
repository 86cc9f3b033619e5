"""Which coalitions a sampled Shapley estimate asks for: complementary pairs, stratified by size, without replacement.

Pairs (S, complement) make the estimate exact for interactions of two players (Covert & Lee 2021); sizes are drawn by
leverage, which is uniform over sizes (Musco & Witter 2025); within a size no pair comes twice, and a size whose pairs
have all come has no sampling error left.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats

__all__ = ["PairedSample", "PairedSampler"]

_ENUMERABLE = 1 << 62


@dataclass(frozen=True)
class PairedSample:
    """``masks`` (pairs, players): the smaller (or equal) half of each pair; its partner is the complement.

    ``stratum`` (pairs,) is the index of the pair's size; ``population`` and ``drawn`` (strata,) count the pairs of each
    size that exist and that are in the sample; ``weight`` (strata,) is the Shapley kernel summed over a size's pairs.
    """

    masks: NDArray[np.bool_]
    stratum: NDArray[np.int64]
    population: Floats
    drawn: NDArray[np.int64]
    weight: Floats

    @property
    def complete(self) -> bool:
        """Every coalition there is has been drawn: the estimate is exact."""
        return bool((self.drawn == self.population).all())


class PairedSampler:
    """Draws nested samples: a larger one holds every pair of a smaller one. Same seed, same pairs."""

    def __init__(self, players: int, most: int, seed: np.random.SeedSequence) -> None:
        """``players`` ≥ 2; ``most`` pairs will be asked for at the largest."""
        self.players = players
        self.sizes = list(range(1, players // 2 + 1))
        half = [2 * size == players for size in self.sizes]
        self._counts = [math.comb(players, s) // (2 if h else 1) for s, h in zip(self.sizes, half, strict=True)]
        self._share = np.array([1.0 if h else 2.0 for h in half])
        self.population = np.array(self._counts, float)
        self.weight = np.array(
            [1 / (s * (players - s)) / (2 if h else 1) for s, h in zip(self.sizes, half, strict=True)]
        )
        self.most = min(most, sum(self._counts))
        drawn = self.allocate(self.most)
        streams = seed.spawn(len(self.sizes))
        self._order = [
            _draw(players, size, count, int(want), h, np.random.default_rng(stream))
            for size, count, want, h, stream in zip(self.sizes, self._counts, drawn, half, streams, strict=True)
        ]

    def allocate(self, pairs: int) -> NDArray[np.int64]:
        """Pairs per size for a sample of ``pairs``: by leverage, capped at what exists, never fewer for a larger
        sample."""
        left, open_ = float(pairs), np.ones(len(self.sizes), bool)
        want = np.zeros(len(self.sizes))
        while open_.any() and left > 1e-9:
            portion = left * self._share * open_ / (self._share * open_).sum()
            grown = np.minimum(want + portion, self.population)
            left -= float((grown - want).sum())
            want, open_ = grown, grown < self.population
        floor = np.floor(want + 1e-9).astype(np.int64)
        rest = np.argsort(-(want - floor), kind="stable")[: pairs - int(floor.sum())]
        floor[rest] += 1
        capped: NDArray[np.int64] = np.minimum(floor, np.minimum(self.population, 2.0**62).astype(np.int64))
        return capped

    def sample(self, pairs: int) -> PairedSample:
        """The first ``pairs`` pairs (at most ``most``), ordered by size and then by draw."""
        drawn = np.minimum(self.allocate(min(pairs, self.most)), [len(order) for order in self._order])
        masks = np.concatenate([order[:count] for order, count in zip(self._order, drawn, strict=True)])
        return PairedSample(masks, np.repeat(np.arange(len(drawn)), drawn), self.population, drawn, self.weight)


def _draw(players: int, size: int, count: int, want: int, half: bool, rng: np.random.Generator) -> NDArray[np.bool_]:
    """``want`` distinct coalitions of ``size`` in random order; with ``half`` only those that hold player 0."""
    if count < _ENUMERABLE:
        ranks = rng.permutation(count)[:want] if count <= 4 * want else rng.choice(count, want, replace=False)
        if half:
            rest = _unrank(players - 1, size - 1, ranks)
            return np.concatenate([np.ones((len(rest), 1), bool), rest], axis=1)
        return _unrank(players, size, ranks)
    masks = np.zeros((want, players), bool)
    chosen = np.argsort(rng.random((want, players)), axis=1)[:, :size]
    np.put_along_axis(masks, chosen, True, axis=1)
    if half:
        masks[~masks[:, 0]] = ~masks[~masks[:, 0]]
    _, first = np.unique(masks, axis=0, return_index=True)
    return masks[np.sort(first)]


def _unrank(players: int, size: int, ranks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Combinations by rank in the combinatorial number system (Knuth 7.2.1.3), shape (ranks, players)."""
    masks = np.zeros((len(ranks), players), bool)
    left, need = ranks.astype(np.int64).copy(), np.full(len(ranks), size, np.int64)
    table = np.array([[min(math.comb(n, k), _ENUMERABLE) for k in range(size + 1)] for n in range(players)], np.int64)
    for player in range(players - 1, -1, -1):
        below = table[player, need]
        inside = (need > 0) & (left >= below)
        masks[inside, player] = True
        left[inside] -= below[inside]
        need[inside] -= 1
    return masks

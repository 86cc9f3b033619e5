"""Exact interventional TreeSHAP (Lundberg et al. 2020), vectorised over leaves and distinct background patterns.

A leaf with value w is reached by a hybrid of x and b when every player on its path comes from a side that satisfies the
path. So the leaf's game is ``w · [U ⊆ S, V ∩ S = ∅]``, U the players that only x satisfies, V those that only b
satisfies, and its Shapley values are ``w (u−1)! v! / (u+v)!`` on U and ``−w u! (v−1)! / (u+v)!`` on V. Satisfied
players of a path are bits of one integer; background rows with equal bits at a leaf count once, with their weight.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import NotExplainable

__all__ = ["TreeExplainer", "Trees"]

MAX_PATH = 62
"""Distinct players on one path."""

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees, shape (nodes,): ``mode`` is −1 at a leaf, else 0…5 for ≤ < ≥ > = ≠ against ``threshold``.

    ``missing``: NaN takes the true branch. ``values`` (nodes, outputs) are non-zero at leaves only. ``roots`` (trees,).
    The ensemble's answer is ``base`` + Σ over trees of the reached leaf's values.
    """

    feature: Codes
    threshold: NDArray[np.floating]
    mode: Codes
    missing: NDArray[np.bool_]
    true: Codes
    false: Codes
    values: Floats
    roots: Codes
    base: Floats

    def decide(self, z: NDArray[np.floating], nodes: Codes) -> NDArray[np.bool_]:
        """Whether rows ``z`` (rows, columns) take the true branch at ``nodes``: (rows, nodes)."""
        x, t, mode = z[:, self.feature[nodes]], self.threshold[nodes], self.mode[nodes]
        if (mode <= 0).all():
            taken = x <= t
        else:
            taken = np.select(
                [mode == 0, mode == 1, mode == 2, mode == 3, mode == 4], [x <= t, x < t, x >= t, x > t, x == t], x != t
            )
        if np.isnan(x).any():
            taken = np.where(np.isnan(x), self.missing[nodes], taken)
        return taken

    def predict(self, z: NDArray[np.floating]) -> Floats:
        """Answers by walking, shape (rows, outputs): the plain reading, for checks."""
        answer = np.repeat(self.base[None, :], len(z), axis=0)
        everything = self.decide(z, np.arange(len(self.mode)))
        row = np.arange(len(z))
        for root in self.roots:
            at = np.full(len(z), root)
            while (self.mode[at] >= 0).any():
                inner = self.mode[at] >= 0
                at = np.where(inner, np.where(everything[row, at], self.true[at], self.false[at]), at)
            answer += self.values[at]
        return answer


class TreeExplainer:
    """Prepared for one background; ``explain`` is then milliseconds per row.

    ``background`` (rows, columns) with ``weights`` (rows,) summing to 1, ``owners`` (columns,) the player of each
    column.
    """

    def __init__(
        self, trees: Trees, background: NDArray[np.floating], weights: Floats, owners: Codes, players: int
    ) -> None:
        self.trees, self.players = trees, players
        self._lay_paths(owners)
        self.base: Floats = weights @ trees.predict(background)
        self._group_background(background, weights)
        depth = int(self._width.max(initial=0))
        self._gain, self._loss = _weights(depth)

    def explain(self, z: NDArray[np.floating]) -> Floats:
        """Shapley values of rows ``z`` (rows, columns): (rows, players, outputs)."""
        return np.stack([self._row(bits) for bits in self._satisfied(z)])

    def interactions(self, z: NDArray[np.floating]) -> Floats:
        """Interaction values of pairs of rows ``z``, above the diagonal: (rows, pairs, outputs).

        In a leaf's game, of ``w · [U ⊆ S, V ∩ S = ∅]``, half of ``w (u−2)! v! / (u+v−1)!`` within U,
        ``w u! (v−2)! / (u+v−1)!`` within V, and ``−w (u−1)! (v−1)! / (u+v−1)!`` across.
        """
        return np.stack([self._row_pairs(bits) for bits in self._satisfied(z)])

    def _lay_paths(self, owners: Codes) -> None:
        """Flattens every root-to-leaf path into steps (inner node, branch, bit of its player)."""
        trees = self.trees
        steps: list[tuple[int, int, int]] = []
        starts, leaves, slots = [], [], []
        todo: list[tuple[int, tuple[tuple[int, int], ...]]] = [(int(root), ()) for root in trees.roots]
        while todo:
            node, path = todo.pop()
            if trees.mode[node] >= 0:
                todo.append((int(trees.true[node]), (*path, (node, 1))))
                todo.append((int(trees.false[node]), (*path, (node, 0))))
            elif path and trees.values[node].any():
                bit: dict[int, int] = {}
                starts.append(len(steps))
                steps.extend(
                    (inner, branch, bit.setdefault(int(owners[trees.feature[inner]]), len(bit)))
                    for inner, branch in path
                )
                leaves.append(node)
                slots.append(list(bit))
        width = max((len(slot) for slot in slots), default=0)
        if width > MAX_PATH:
            raise NotExplainable(
                f"a path through a tree has {width} players, at most {MAX_PATH} are supported; use 'sampled'"
            )
        table = np.array(steps, np.int64).reshape(-1, 3)
        inner, self._step_node = np.unique(table[:, 0], return_inverse=True)
        self._inner = inner
        self._step_branch, self._step_bit = table[:, 1].astype(bool), np.int64(1) << table[:, 2]
        self._starts = np.array(starts, np.int64)
        self._leaf_values = trees.values[leaves]
        self._width = np.array([len(slot) for slot in slots], np.int64)
        self._full = (np.int64(1) << self._width) - 1
        self._slots = np.array([slot + [0] * (width - len(slot)) for slot in slots], np.int64).reshape(
            len(slots), width
        )

    def _satisfied(self, z: NDArray[np.floating]) -> Codes:
        """Per row and leaf, the players whose conditions on the path all hold, as bits: (rows, leaves)."""
        if not len(self._starts):
            return np.zeros((len(z), 0), np.int64)
        taken = self.trees.decide(z, self._inner)
        broken = np.where(taken[:, self._step_node] != self._step_branch, self._step_bit, np.int64(0))
        bits: Codes = self._full & ~np.bitwise_or.reduceat(broken, self._starts, axis=1)
        return bits

    def _group_background(self, background: NDArray[np.floating], weights: Floats) -> None:
        """Distinct (leaf, background bits) with the weight of the rows that share them."""
        leaves = len(self._starts)
        block = max(1, (1 << 22) // max(len(self._step_bit), 1))
        parts = [self._satisfied(background[at : at + block]) for at in range(0, len(background), block)]
        pattern = np.concatenate(parts).T
        order = np.argsort(pattern, axis=1, kind="stable")
        ranked = np.take_along_axis(pattern, order, axis=1)
        fresh = np.ones(ranked.shape, bool)
        fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        at = np.flatnonzero(fresh.reshape(-1))
        leaf, bits = np.repeat(np.arange(leaves), fresh.sum(axis=1)), ranked.reshape(-1)[at]
        mass = np.add.reduceat(weights[order].reshape(-1), at) if len(at) else np.empty(0)
        self._leaf, self._bits, self._mass = leaf, bits, mass

    def _reached(self, satisfied: Codes) -> tuple[Codes, Codes, Codes, Floats]:
        """Leaves that hybrids of the row reach, the players that only the row and only the background satisfies (as
        bits), and the weight of the rows."""
        mine, full = satisfied[self._leaf], self._full[self._leaf]
        alive = np.flatnonzero((mine | self._bits) == full)
        mine, theirs = mine[alive], self._bits[alive]
        return self._leaf[alive], mine & ~theirs, theirs & ~mine, self._mass[alive]

    def _row(self, satisfied: Codes) -> Floats:
        leaf, only_x, only_b, mass = self._reached(satisfied)
        u, v = np.bitwise_count(only_x), np.bitwise_count(only_b)
        gain, loss = self._gain[u, v] * mass, self._loss[u, v] * mass
        values = np.zeros((self.players, self._leaf_values.shape[1]))
        either = only_x | only_b
        for slot in range(self._slots.shape[1]):
            bit = np.int64(1) << slot
            hit = np.flatnonzero(either & bit)
            share = np.where(only_x[hit] & bit, gain[hit], -loss[hit])
            at = leaf[hit]
            for output in range(values.shape[1]):
                values[:, output] += np.bincount(
                    self._slots[at, slot], share * self._leaf_values[at, output], self.players
                )
        return values

    def _row_pairs(self, satisfied: Codes) -> Floats:
        leaf, only_x, only_b, mass = self._reached(satisfied)
        u, v = np.bitwise_count(only_x), np.bitwise_count(only_b)
        within_x, within_b, across = (table[u, v] * mass for table in _pair_weights(int(self._width.max(initial=0))))
        either, players = only_x | only_b, self.players
        matrix = np.zeros((players * players, self._leaf_values.shape[1]))
        for one, other in itertools.combinations(range(self._slots.shape[1]), 2):
            bits = np.int64(1) << one, np.int64(1) << other
            hit = np.flatnonzero((either & bits[0] != 0) & (either & bits[1] != 0))
            if not len(hit):
                continue
            first, second = only_x[hit] & bits[0] != 0, only_x[hit] & bits[1] != 0
            share = np.where(first & second, within_x[hit], np.where(first | second, -across[hit], within_b[hit]))
            at = leaf[hit]
            ends = np.sort(self._slots[at][:, [one, other]], axis=1)
            cell = ends[:, 0] * players + ends[:, 1]
            for output in range(matrix.shape[1]):
                matrix[:, output] += np.bincount(cell, share * self._leaf_values[at, output], players * players)
        first_player, second_player = np.triu_indices(players, 1)
        pairs: Floats = matrix[first_player * players + second_player]
        return pairs


def _pair_weights(depth: int) -> tuple[Floats, Floats, Floats]:
    """Half of ``(u−2)! v! / (u+v−1)!``, ``u! (v−2)! / (u+v−1)!`` and ``(u−1)! (v−1)! / (u+v−1)!`` by u and v; zero
    where not defined."""
    within_x, within_b, across = np.zeros((3, depth + 1, depth + 1))
    for u in range(depth + 1):
        for v in range(depth + 1 - u):
            rest = u + v - 1
            if u > 1:
                within_x[u, v] = 0.5 / (rest * math.comb(rest - 1, v))
            if v > 1:
                within_b[u, v] = 0.5 / (rest * math.comb(rest - 1, u))
            if u and v:
                across[u, v] = 0.5 / (rest * math.comb(rest - 1, u - 1))
    return within_x, within_b, across


def _weights(depth: int) -> tuple[Floats, Floats]:
    """``(u−1)! v! / (u+v)!`` and ``u! (v−1)! / (u+v)!`` by u and v; zero where not defined."""
    gain, loss = np.zeros((depth + 1, depth + 1)), np.zeros((depth + 1, depth + 1))
    for u in range(depth + 1):
        for v in range(depth + 1 - u):
            if u:
                gain[u, v] = 1 / (u * math.comb(u + v, u))
            if v:
                loss[u, v] = 1 / (v * math.comb(u + v, v))
    return gain, loss

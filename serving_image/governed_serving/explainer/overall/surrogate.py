"""A small tree that imitates the model: readable rules, with the share of the model that they account for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats, row_count, take

__all__ = ["Node", "SurrogateTree", "surrogate_tree"]

Split = float | frozenset[str]


@dataclass(frozen=True)
class Node:
    """``feature`` is "" at a leaf; else rows with value ≤ ``split`` (numbers) or in ``split`` (a set of categories) go
    left.

    Missing numbers go right; ``gaps`` says that there were some among the rows that the node was grown on.
    """

    rows: int
    value: float
    feature: str = ""
    split: Split | None = None
    left: "Node | None" = None
    right: "Node | None" = None
    gaps: bool = False

    def rules(self, path: tuple[str, ...] = ()) -> list[tuple[str, float, int]]:
        """(rule, value, rows) of every leaf, left to right."""
        if self.left is None or self.right is None:
            return [(" and ".join(path) or "always", self.value, self.rows)]
        if isinstance(self.split, frozenset):
            names = ", ".join(sorted(self.split))
            yes, no = f"{self.feature} in {{{names}}}", f"{self.feature} not in {{{names}}}"
        else:
            missing = " or missing" if self.gaps else ""
            yes, no = f"{self.feature} ≤ {self.split:.6g}", f"{self.feature} > {self.split:.6g}{missing}"
        return [*self.left.rules((*path, yes)), *self.right.rules((*path, no))]


@dataclass(frozen=True)
class SurrogateTree:
    """``fidelity``: R² of the tree's answers against the model's, on rows that it was not fitted to."""

    root: Node
    fidelity: float

    def predict(self, rows: Columns) -> Floats:
        """Answers of the tree, shape (rows,)."""
        values = np.empty(row_count(rows))
        _fill(self.root, rows, np.arange(len(values)), values)
        return values


def surrogate_tree(
    rows: Columns, outputs: Floats, *, depth: int = 3, least: int = 10, seed: np.random.SeedSequence
) -> SurrogateTree:
    """CART (Breiman et al. 1984) on the model's ``outputs`` (rows,) for ``rows``; a third of the rows measures its
    fidelity.

    ``least`` rows stand in every leaf. Categories are ordered by their mean output, which is optimal for squared error.
    """
    order = np.random.default_rng(seed).permutation(len(outputs))
    held, fitted = order[: len(order) // 3], order[len(order) // 3 :]
    root = _grow(take(rows, fitted), outputs[fitted], depth, least)
    tree = SurrogateTree(root, float("nan"))
    truth = outputs[held]
    spread = float(((truth - truth.mean()) ** 2).sum()) if len(held) else 0.0
    missed = float(((truth - tree.predict(take(rows, held))) ** 2).sum()) if len(held) else 0.0
    return SurrogateTree(root, 1 - missed / spread if spread > 0 else 1.0)


def _grow(rows: Columns, y: Floats, depth: int, least: int) -> Node:
    leaf = Node(len(y), float(y.mean()))
    if depth == 0 or len(y) < 2 * least:
        return leaf
    best, gain = None, 1e-12 * max(float((y**2).sum()), 1e-300)
    for feature, values in rows.items():
        cut = _best_split(values, y, least)
        if cut is not None and cut[0] > gain:
            gain, best = cut[0], (feature, cut[1])
    if best is None:
        return leaf
    feature, split = best
    inside = _goes_left(rows[feature], split)
    left, right = (
        _grow(take(rows, inside), y[inside], depth - 1, least),
        _grow(take(rows, ~inside), y[~inside], depth - 1, least),
    )
    return Node(len(y), leaf.value, feature, split, left, right, _gaps(rows[feature]))


def _best_split(values: NDArray[np.generic], y: Floats, least: int) -> tuple[float, Split] | None:
    """(drop of squared error, split) of the best cut, or None."""
    if values.dtype == object:
        names = list(dict.fromkeys(values.tolist()))
        means = {name: float(y[values == name].mean()) for name in names}
        ranked = sorted(names, key=lambda name: (means[name], name))
        rank = {name: index for index, name in enumerate(ranked)}
        numbers = np.array([rank[value] for value in values], float)
    else:
        numbers = values.astype(float)
    order = np.argsort(numbers, kind="stable")
    x, ys = numbers[order], y[order]
    count, total = np.arange(1, len(ys)), np.cumsum(ys)
    gain = total[:-1] ** 2 / count + (total[-1] - total[:-1]) ** 2 / (len(ys) - count) - total[-1] ** 2 / len(ys)
    gain[
        (x[1:] == x[:-1]) | ~np.isfinite(x[1:]) | ~np.isfinite(x[:-1]) | (count < least) | (len(ys) - count < least)
    ] = -np.inf
    at = int(gain.argmax()) if len(gain) else 0
    if not len(gain) or not np.isfinite(gain[at]):
        return None
    if values.dtype == object:
        return float(gain[at]), frozenset(ranked[: int(x[at]) + 1])
    return float(gain[at]), float((x[at] + x[at + 1]) / 2)


def _gaps(values: NDArray[np.generic]) -> bool:
    return values.dtype != object and bool(np.isnan(values.astype(float)).any())


def _goes_left(values: NDArray[np.generic], split: Split) -> NDArray[np.bool_]:
    if isinstance(split, frozenset):
        return np.array([value in split for value in values], bool)
    inside: NDArray[np.bool_] = values.astype(float) <= split
    return inside


def _fill(node: Node, rows: Columns, index: NDArray[np.int64], values: Floats) -> None:
    if node.left is None or node.right is None or node.split is None:
        values[index] = node.value
        return
    inside = _goes_left(rows[node.feature], node.split)
    _fill(node.left, take(rows, inside), index[inside], values)
    _fill(node.right, take(rows, ~inside), index[~inside], values)

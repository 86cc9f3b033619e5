"""Trees as shap takes them: a number up to the threshold goes left, a missing one the default way."""

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.shapley.trees import Trees

__all__ = ["tree_structure"]

Codes = NDArray[np.int64]

_LEAF = -1


def tree_structure(trees: Trees) -> dict[str, Floats]:
    """All trees one after another, children by their place in their own tree; ``roots`` says where each begins.

    Raises NotExplainable for a split that such a tree has no form for.
    """
    order, roots, place = _laid_out(trees)
    mode, inner = trees.mode[order], trees.mode[order] >= 0
    if (mode >= 4).any():
        raise NotExplainable(
            "explainer.engine alibi: its trees split at a threshold, and this graph compares for equality (BRANCH_EQ, "
            "BRANCH_NEQ); leave engine out, or use method 'shap'"
        )
    below = np.isin(mode, (1, 2))  # x < t and x ≥ t part the numbers just below t
    swapped = mode >= 2  # the true branch lies above
    true, false = place[trees.true[order]], place[trees.false[order]]
    left, right = np.where(swapped, false, true), np.where(swapped, true, false)
    return {
        "left": _column(np.where(inner, left, _LEAF)),
        "right": _column(np.where(inner, right, _LEAF)),
        "default": _column(np.where(inner, np.where(trees.missing[order], true, false), _LEAF)),
        "features": _column(np.where(inner, trees.feature[order], _LEAF)),
        "thresholds": _column(_single(trees.threshold[order].astype(np.float64), below)),
        "values": trees.values[order],
        "roots": _column(roots),
    }


def _laid_out(trees: Trees) -> tuple[Codes, Codes, Codes]:
    """Nodes in the order of their trees, where each tree begins, and each node's place in its tree."""
    order: list[int] = []
    roots = []
    place = np.zeros(len(trees.mode), np.int64)
    for root in trees.roots.tolist():
        start = len(order)
        roots.append(start)
        order.append(root)
        at = start
        while at < len(order):
            node = order[at]
            place[node] = at - start
            if trees.mode[node] >= 0:
                order += [int(trees.true[node]), int(trees.false[node])]
            at += 1
            if len(order) > len(trees.mode):
                raise NotExplainable("expected a graph of trees, found one whose branches meet or lead back")
    return np.array(order, np.int64), np.array(roots, np.int64), place


def _single(split: Floats, below: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The largest single-precision number up to each threshold, or below it: shap compares in single precision, and so
    are the numbers that come."""
    single = split.astype(np.float32)
    over = np.where(below, single >= split, single > split)
    return np.where(over, np.nextafter(single, np.float32(-np.inf)), single)


def _column(values: NDArray[np.generic]) -> Floats:
    return np.asarray(values, np.float64).reshape(-1, 1)

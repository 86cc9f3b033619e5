"""Tree ensembles as ai.onnx.ml writes them: TreeEnsembleClassifier, TreeEnsembleRegressor (v1 to v3) and TreeEnsemble
(v5)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.graph.reading import Graph, attributes
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.trees import Trees

__all__ = ["ReadTrees", "read_trees"]

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
_OPERATORS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")
_POST = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(frozen=True)
class ReadTrees:
    """``trees`` over the columns of the tensor ``tensor``; ``link`` is what the graph applies to their sum.

    ``binary`` says that one column stands for class 1 of two, the other being its complement.
    """

    graph: Graph
    trees: Trees
    tensor: str
    link: str
    binary: bool

    def columns(self, columns: Columns) -> NDArray[np.float32]:
        """What the trees see of the given rows, shape (rows, columns)."""
        margins = np.asarray(self.graph.evaluate([self.tensor], columns)[self.tensor], np.float32)
        return margins.reshape(len(margins), -1)

    def owners(self, columns: Columns, players: Players) -> NDArray[np.int64]:
        """Player of each column. Raises :class:`NotExplainable` if a column mixes players."""
        refusal = "column {index} of the trees' input is made of {sources}; group these features"
        return self.graph.owners(self.tensor, columns, players, refusal)


def read_trees(graph: Graph, output: str) -> ReadTrees:
    """The ensemble that makes ``output``. Raises :class:`NotExplainable` when the graph holds more than that."""
    tensor, _ = graph.back(output)
    node = graph.producer.get(tensor)
    if node is None or node.op_type not in _OPERATORS:
        operator = node.op_type if node is not None else "nothing"
        raise NotExplainable(f"expected {output!r} to come from a tree ensemble, found {operator}")
    given = attributes(node)
    trees, link, binary = _read_v5(given) if node.op_type == "TreeEnsemble" else _read_v3(given, node.op_type)
    return ReadTrees(graph, trees, node.input[0], link, binary)


def _read_v3(given: dict[str, Any], operator: str) -> tuple[Trees, str, bool]:
    tree = np.asarray(given["nodes_treeids"], np.int64)
    node = np.asarray(given["nodes_nodeids"], np.int64)
    index = {(int(t), int(n)): i for i, (t, n) in enumerate(zip(tree, node, strict=True))}
    kind = np.array(given["nodes_modes"], object)
    leaf = kind == "LEAF"
    if strange := set(kind[~leaf]) - set(_MODES):
        raise NotExplainable(f"tree node mode {sorted(strange)[0]!r} is not supported")
    child = {
        side: np.array(
            [
                i if last else index[int(t), int(c)]
                for i, (t, c, last) in enumerate(zip(tree, given[f"nodes_{side}nodeids"], leaf, strict=True))
            ]
        )
        for side in ("true", "false")
    }
    prefix = "class" if operator == "TreeEnsembleClassifier" else "target"
    ids = np.asarray(given[f"{prefix}_ids"], np.int64)
    labels = len(given.get("classlabels_int64s") or given.get("classlabels_strings") or [])
    binary = operator == "TreeEnsembleClassifier" and labels == 2 and len(set(ids.tolist())) == 1
    count = 1 if binary else labels if operator == "TreeEnsembleClassifier" else int(given["n_targets"])
    values = np.zeros((len(kind), count))
    at = [index[int(t), int(n)] for t, n in zip(given[f"{prefix}_treeids"], given[f"{prefix}_nodeids"], strict=True)]
    np.add.at(values, (np.array(at), np.zeros_like(ids) if binary else ids), _tensor(given, f"{prefix}_weights"))
    if given.get("aggregate_function", "SUM") == "AVERAGE":
        values /= len(set(tree.tolist()))
    elif given.get("aggregate_function", "SUM") != "SUM":
        raise NotExplainable(f"aggregate_function {given['aggregate_function']} is not additive over trees")
    missing = np.asarray(given.get("nodes_missing_value_tracks_true") or np.zeros(len(kind)), bool)
    modes = np.array([_MODES.index(mode) if mode in _MODES else -1 for mode in kind])
    first = np.array([i for i in range(len(tree)) if i == 0 or tree[i] != tree[i - 1]])
    base = (
        np.asarray(_tensor(given, "base_values"), float).reshape(-1) if _has(given, "base_values") else np.zeros(count)
    )
    trees = Trees(
        np.asarray(given["nodes_featureids"], np.int64),
        np.asarray(_tensor(given, "nodes_values")),
        modes,
        missing,
        child["true"],
        child["false"],
        values,
        first,
        base[-count:] if len(base) >= count else np.zeros(count),
    )
    return trees, given.get("post_transform", "NONE"), binary


def _read_v5(given: dict[str, Any]) -> tuple[Trees, str, bool]:
    """Nodes first, leaves after them; a child is a leaf's number where ``nodes_*leafs`` says so."""
    count, leaves = len(given["nodes_featureids"]), len(given["leaf_targetids"])
    codes = np.asarray(given["nodes_modes"], np.int64)
    if codes.max(initial=0) > 5:
        raise NotExplainable("set membership nodes (BRANCH_MEMBER) are not supported")
    sides = {}
    for side in ("true", "false"):
        ids = np.asarray(given[f"nodes_{side}nodeids"], np.int64)
        sides[side] = np.concatenate(
            [np.where(np.asarray(given[f"nodes_{side}leafs"], bool), ids + count, ids), np.arange(leaves) + count]
        )
    values = np.zeros((count + leaves, int(given["n_targets"])))
    values[np.arange(leaves) + count, np.asarray(given["leaf_targetids"], np.int64)] = given["leaf_weights"]
    roots = np.asarray(given["tree_roots"], np.int64)
    if int(given.get("aggregate_function", 1)) == 0:
        values /= len(roots)
    elif int(given.get("aggregate_function", 1)) != 1:
        raise NotExplainable("a tree ensemble that takes a minimum or maximum is not additive over trees")
    pad = np.zeros(leaves)
    missing = np.asarray(given.get("nodes_missing_value_tracks_true") or np.zeros(count), bool)
    splits = np.asarray(given["nodes_splits"])
    trees = Trees(
        np.concatenate([np.asarray(given["nodes_featureids"], np.int64), pad.astype(np.int64)]),
        np.concatenate([splits, pad.astype(splits.dtype)]),
        np.concatenate([codes, pad.astype(np.int64) - 1]),
        np.concatenate([missing, pad.astype(bool)]),
        sides["true"],
        sides["false"],
        values,
        roots,
        np.zeros(values.shape[1]),
    )
    return trees, _POST[int(given.get("post_transform", 0))], False


def _has(given: dict[str, Any], name: str) -> bool:
    return name in given or f"{name}_as_tensor" in given


def _tensor(given: dict[str, Any], name: str) -> Floats | NDArray[np.float32]:
    """An attribute in its float or its tensor (double) form; single precision stays so, as the runtime compares in
    it."""
    if f"{name}_as_tensor" in given:
        return np.asarray(given[f"{name}_as_tensor"])
    return np.asarray(given[name], np.float32)

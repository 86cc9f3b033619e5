"""Methods that read the graph and evaluate nothing: TreeSHAP and LinearSHAP, checked against what the model
answered."""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.attribution import Attribution, Interactions
from governed_serving.explainer.graph.ensemble import ReadTrees, read_trees
from governed_serving.explainer.graph.linear import read_linear
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.players import Players
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.shapley.cells import with_main
from governed_serving.explainer.shapley.linear import linear_shapley
from governed_serving.explainer.shapley.trees import TreeExplainer, Trees

__all__ = ["ClosedForms", "TreeMethod"]

TreeMethod = Callable[[Trees, NDArray[np.floating], NDArray[np.floating]], tuple[Floats, Floats]]
"""Trees, background and rows as the trees see them → values (rows, columns, outputs) and base (outputs,), without the
trees' own ``base``."""

AGREEMENT = 1e-3
"""Largest difference between the graph as read here and the answers of the serving model (single precision, quantised
sums)."""

_LINKS = {
    "NONE": "",
    "": "",
    "LOGISTIC": "logistic",
    "logistic": "logistic",
    "SOFTMAX": "softmax",
    "softmax": "softmax",
}


class ClosedForms:
    """Explainers of one model read from its graph, prepared once per set of players."""

    def __init__(self, model: ExplainedModel) -> None:
        names = dict(zip(model.manifest.inputs, (f.name for f in model.features), strict=False))
        self._model = model
        self._names = names
        self._trees: ReadTrees | None = None
        self._prepared: dict[tuple[tuple[str, ...], ...], TreeExplainer] = {}

    def sums_to_output(self) -> bool:
        """Whether the output is a plain sum over trees: then TreeSHAP gives what enumeration would."""
        try:
            return _LINKS.get(self._read().link, "other") == ""
        except NotExplainable:
            return False

    def trees(self, rows: Columns, players: Players, outputs: Floats, pairs: bool = False) -> list[Attribution]:
        """Exact TreeSHAP, with ``pairs`` their interactions too. Raises :class:`NotExplainable` if the model isn't a
        tree ensemble, or not the one that answered."""
        read, link = self._linked()
        explainer = self._prepared.get(players.members)
        if explainer is None:
            background = read.columns(self._model.background)
            mass = np.full(len(background), 1 / len(background))
            owners = read.owners(self._model.background, players)
            explainer = TreeExplainer(read.trees, background, mass, owners, len(players))
            self._prepared[players.members] = explainer
        z = read.columns(rows)
        values = explainer.explain(z)
        if pairs:  # beside the players': what makes margins outputs does the same to both
            values = np.concatenate([values, explainer.interactions(z)], axis=1)
        margins = _Margins(values, explainer.base, read.trees.predict(z), link)
        return _attributions("tree", players, margins.as_outputs(outputs.shape[1], read.binary), outputs, pairs)

    def trees_by(
        self, explain: TreeMethod, rows: Columns, players: Players, outputs: Floats
    ) -> tuple[list[Attribution], int]:
        """As :meth:`trees`, the trees' columns explained by another and summed by player, and how many columns."""
        read, link = self._linked()
        background, z = read.columns(self._model.background), read.columns(rows)
        owners = read.owners(self._model.background, players)
        by_column, base = explain(read.trees, background, z)
        values = np.zeros((len(z), len(players), by_column.shape[2]))
        for column, owner in enumerate(owners):
            values[:, owner] += by_column[:, column]
        margins = _Margins(values, base + read.trees.base, read.trees.predict(z), link)
        return _attributions(
            "tree", players, margins.as_outputs(outputs.shape[1], read.binary), outputs, False
        ), z.shape[1]

    def linear(self, rows: Columns, players: Players, outputs: Floats, pairs: bool = False) -> list[Attribution]:
        """Exact LinearSHAP in the margin, in which no two players interact. Raises :class:`NotExplainable` if the
        graph isn't linear in the players."""
        layer = read_linear(self._graph, self._model.output)
        mean = layer.columns(self._model.background).mean(axis=0)
        owners = layer.owners(self._model.background, players)
        z = layer.columns(rows)
        values, base = linear_shapley(layer.weights, layer.bias, z, mean, owners, len(players))
        if pairs:
            none = np.zeros((len(z), math.comb(len(players), 2), values.shape[2]))
            values = np.concatenate([values, none], axis=1)
        margins = _Margins(values, base, z @ layer.weights + layer.bias, layer.link)
        return _attributions(
            "linear", players, margins.as_outputs(outputs.shape[1], outputs.shape[1] == 2), outputs, pairs
        )

    @functools.cached_property
    def _graph(self) -> Graph:
        if self._model.manifest.graph is not None:
            raise NotExplainable("expected a graph that was trained here, found an import's; use 'sampled' or 'exact'")
        return Graph(self._model.onnx, self._names)

    def _linked(self) -> tuple[ReadTrees, str]:
        read = self._read()
        link = _LINKS.get(read.link)
        if link is None:
            raise NotExplainable(f"post_transform {read.link} of the tree ensemble is not supported; use 'sampled'")
        return read, link

    def _read(self) -> ReadTrees:
        if self._trees is None:
            self._trees = read_trees(self._graph, self._model.output)
        return self._trees


class _Margins:
    """Values (rows, players and maybe pairs, margins), base (margins,), prediction (rows, margins) before ``link``."""

    def __init__(self, values: Floats, base: Floats, prediction: Floats, link: str) -> None:
        self.values, self.base, self.prediction, self.link = values, base, prediction, link

    def as_outputs(self, outputs: int, binary: bool) -> "_Margins":
        """One margin per output column: log-odds for two classes, the complement where there is no link."""
        if outputs != 2 or (not binary and self.values.shape[2] == 1):
            return self
        if self.values.shape[2] == 1:
            one = 1.0 if self.link == "" else 0.0
            return _Margins(
                np.concatenate([-self.values, self.values], axis=2),
                np.concatenate([one - self.base, self.base]),
                np.concatenate([one - self.prediction, self.prediction], axis=1),
                self.link,
            )
        if self.link == "softmax":
            odds = self.values[..., 1:] - self.values[..., :1]
            base, prediction = self.base[1:] - self.base[:1], self.prediction[:, 1:] - self.prediction[:, :1]
            return _Margins(odds, base, prediction, "logistic").as_outputs(2, True)
        return self

    def linked(self) -> Floats:
        """What the model answers for these margins."""
        if self.link == "logistic":
            odds: Floats = 1 / (1 + np.exp(-self.prediction))
            return odds
        if self.link == "softmax":
            raised = np.exp(self.prediction - self.prediction.max(axis=1, keepdims=True))
            shares: Floats = raised / raised.sum(axis=1, keepdims=True)
            return shares
        return self.prediction


def _attributions(
    method: str, players: Players, margins: _Margins, outputs: NDArray[np.float64], pairs: bool
) -> list[Attribution]:
    linked = margins.linked()
    if linked.shape != outputs.shape or np.abs(linked - outputs).max() > AGREEMENT * max(
        1.0, float(np.abs(outputs).max())
    ):
        raise NotExplainable(f"the graph as read for {method!r} disagrees with what the model answers; use 'sampled'")
    details: dict[str, object] = {"space": {"": "output", "logistic": "log-odds", "softmax": "margin"}[margins.link]}
    return [
        Attribution(
            method=method,
            names=players.names,
            values=values[: len(players)],
            lower=values[: len(players)],
            upper=values[: len(players)],
            base=margins.base,
            prediction=margins.prediction[row],
            evaluations=0,
            coalitions=0,
            exact=True,
            details={**details, "graph_residual": float(np.abs(linked[row] - outputs[row]).max())},
            interactions=_interactions(values, len(players)) if pairs else None,
        )
        for row, values in enumerate(margins.values)
    ]


def _interactions(values: Floats, players: int) -> Interactions:
    """Of one row's values (players and pairs, outputs)."""
    pairs = values[players:]
    main = with_main(values[:players], pairs)
    return Interactions(pairs, pairs, pairs, main, main, main)

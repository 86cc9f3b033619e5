"""A linear last layer read from the graph: MatMul/Gemm with constant weights, LinearClassifier, LinearRegressor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.graph.reading import PASSING, Graph, attributes
from governed_serving.explainer.players import Players

__all__ = ["LinearLayer", "read_linear"]

_LINKS = {"Softmax": "softmax", "Sigmoid": "logistic", "SOFTMAX": "softmax", "LOGISTIC": "logistic"}


@dataclass(frozen=True)
class LinearLayer:
    """``margin = z @ weights + bias`` with z the tensor ``tensor``; ``link`` is what the graph applies to the margin ("" for nothing).

    ``weights`` (columns, outputs), ``bias`` (outputs,). With one margin for two classes, it is that of the second.
    """

    graph: Graph
    tensor: str
    weights: Floats
    bias: Floats
    link: str

    def columns(self, columns: Columns) -> Floats:
        """z for the given rows, shape (rows, columns)."""
        found = np.asarray(self.graph.evaluate([self.tensor], columns)[self.tensor], np.float64)
        return found.reshape(len(found), -1)

    def owners(self, columns: Columns, players: Players) -> NDArray[np.int64]:
        """Player of each column of z. Raises :class:`NotExplainable` if a column mixes players: the model isn't linear in them."""
        refusal = "the model isn't linear in its features: column {index} of its last layer is made of {sources}"
        return self.graph.owners(self.tensor, columns, players, refusal)


def read_linear(graph: Graph, output: str) -> LinearLayer:
    """The linear layer that makes ``output``. Raises :class:`NotExplainable` when there is none."""
    links = frozenset({"Softmax", "Sigmoid"})
    tensor, passed = graph.back(output, PASSING | links)
    link = next((_LINKS[name] for name in passed if name in links), "")
    node = graph.producer.get(tensor)
    bias: Floats = np.zeros(1)
    if node is not None and node.op_type == "Add" and (constant := [n for n in node.input if n in graph.constants]):
        bias = np.asarray(graph.constants[constant[0]], float).reshape(-1)
        tensor, _ = graph.back(next(n for n in node.input if n not in graph.constants))
        node = graph.producer.get(tensor)
    if node is None:
        raise NotExplainable(f"expected {output!r} to come from a linear layer, found the graph's input")
    if node.op_type == "MatMul" and node.input[1] in graph.constants:
        return LinearLayer(graph, node.input[0], np.asarray(graph.constants[node.input[1]], float), bias, link)
    if node.op_type == "Gemm" and node.input[1] in graph.constants:
        given = attributes(node)
        weights = np.asarray(graph.constants[node.input[1]], float) * given.get("alpha", 1.0)
        weights = weights.T if given.get("transB", 0) else weights
        inner = np.asarray(graph.constants[node.input[2]], float).reshape(-1) if len(node.input) > 2 else np.zeros(1)
        return LinearLayer(graph, node.input[0], weights, bias + inner * given.get("beta", 1.0), link)
    if node.op_type in ("LinearClassifier", "LinearRegressor"):
        given = attributes(node)
        inner = np.asarray(given.get("intercepts", [0.0]), float)
        weights = np.asarray(given["coefficients"], float).reshape(len(inner) if len(inner) else 1, -1).T
        post = given.get("post_transform", "NONE")
        return LinearLayer(graph, node.input[0], weights, bias + inner, link or _LINKS.get(post, ""))
    raise NotExplainable(f"expected {output!r} to come from a linear layer, found {node.op_type}")

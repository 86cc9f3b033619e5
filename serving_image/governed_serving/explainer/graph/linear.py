"""A linear last layer read from the graph: MatMul/Gemm with constant weights, LinearClassifier, LinearRegressor."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.graph.reading import PASSING, Graph, attributes
from governed_serving.explainer.players import Players

__all__ = ["Affine", "LinearLayer", "affine", "layer_of", "read_linear"]

_LINKS = {"Softmax": "softmax", "Sigmoid": "logistic", "SOFTMAX": "softmax", "LOGISTIC": "logistic"}


@dataclass(frozen=True)
class LinearLayer:
    """``margin = z @ weights + bias`` with z the tensor ``tensor``; ``link`` is what the graph applies to the margin
    ("" for nothing).

    ``weights`` (columns, outputs), ``bias`` (outputs,). With one margin for two classes, it is that of the second.
    """

    graph: Graph
    tensor: str
    weights: Floats
    bias: Floats
    link: str

    def columns(self, columns: Columns) -> Floats:
        """z for the given rows, shape (rows, columns)."""
        columns_of_layer = np.asarray(self.graph.evaluate([self.tensor], columns)[self.tensor], np.float64)
        return columns_of_layer.reshape(len(columns_of_layer), -1)

    def owners(self, columns: Columns, players: Players) -> NDArray[np.int64]:
        """Player of each column of z. Raises :class:`NotExplainable` if a column mixes players: the model isn't linear
        in them."""
        refusal = "the model isn't linear in its features: column {index} of its last layer is made of {sources}"
        return self.graph.owners(self.tensor, columns, players, refusal)


def read_linear(graph: Graph, output: str) -> LinearLayer:
    """The linear layer that makes ``output``. Raises :class:`NotExplainable` when there is none."""
    links = frozenset({"Softmax", "Sigmoid"})
    tensor, passed = graph.back(output, PASSING | links)
    link = next((_LINKS[name] for name in passed if name in links), "")
    tensor, after = affine(graph, tensor)
    node = graph.producer.get(tensor)
    if node is None:
        raise NotExplainable(f"expected {output!r} to come from a linear layer, found the graph's input")
    weights, bias = layer_of(graph, node, output)
    if node.op_type in ("LinearClassifier", "LinearRegressor"):
        link = link or _LINKS.get(attributes(node).get("post_transform", "NONE"), "")
    if not {after.factor.size, after.shift.size} <= {1, weights.shape[1]}:
        raise NotExplainable(
            f"{output!r}: expected a linear layer scaled as a whole or output by output, found neither"
        )
    return LinearLayer(graph, node.input[0], weights * after.factor, bias * after.factor + after.shift, link)


@dataclass(frozen=True)
class Affine:
    """``y = x · factor + shift``, shape (1,) or (outputs,) each: what the graph does to a layer's margin with
    constants."""

    factor: Floats
    shift: Floats


def affine(graph: Graph, tensor: str) -> tuple[str, Affine]:
    """Walks back over additions of and multiplications by constants: scales of a label, a bias beside its MatMul."""
    factor, shift = np.ones(1), np.zeros(1)
    while (node := graph.producer.get(tensor)) is not None and node.op_type in ("Add", "Sub", "Mul", "Div"):
        constant = [index for index, name in enumerate(node.input) if name in graph.constants]
        if len(constant) != 1 or (node.op_type == "Div" and constant == [0]):
            break
        value = np.asarray(graph.constants[node.input[constant[0]]], float).reshape(-1)
        if node.op_type == "Add":
            shift = shift + factor * value
        elif node.op_type == "Sub":
            sign = -1.0 if constant == [1] else 1.0
            factor, shift = -sign * factor, shift + sign * factor * value
        else:
            factor = factor * value if node.op_type == "Mul" else factor / value
        tensor, _ = graph.back(node.input[1 - constant[0]])
    return tensor, Affine(factor, shift)


def layer_of(graph: Graph, node: onnx.NodeProto, output: str) -> tuple[Floats, Floats]:
    """``weights`` (columns, outputs) and ``bias`` of the node, which must be one of those that are linear."""
    given = attributes(node)
    if node.op_type == "MatMul" and node.input[1] in graph.constants:
        return np.asarray(graph.constants[node.input[1]], float), np.zeros(1)
    if node.op_type == "Gemm" and node.input[1] in graph.constants:
        weights = np.asarray(graph.constants[node.input[1]], float) * given.get("alpha", 1.0)
        weights = weights.T if given.get("transB", 0) else weights
        inner = np.asarray(graph.constants[node.input[2]], float).reshape(-1) if len(node.input) > 2 else np.zeros(1)
        return weights, inner * given.get("beta", 1.0)
    if node.op_type in ("LinearClassifier", "LinearRegressor"):
        inner = np.asarray(given.get("intercepts", [0.0]), float)
        weights = np.asarray(given["coefficients"], float).reshape(len(inner) if len(inner) else 1, -1).T
        return weights, inner if len(inner) else np.zeros(1)
    raise NotExplainable(f"expected {output!r} to come from a linear layer, found {node.op_type}")

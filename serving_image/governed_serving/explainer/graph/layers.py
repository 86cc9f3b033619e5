"""A network's dense layers read from the graph: what a trainer here exports after it has encoded features and texts."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.graph.linear import affine, layer_of
from governed_serving.explainer.graph.reading import PASSING, Graph
from governed_serving.explainer.players import Players

__all__ = ["Layers", "read_layers"]

_DENSE = frozenset({"Gemm", "MatMul"})


@dataclass(frozen=True)
class Layers:
    """``x ← relu(x @ weights + bias)`` layer by layer, from the tensor ``tensor``; none after the last.

    ``layers``: weights (columns, outputs) and bias (outputs,) of each, in the order of computation. ``softmax``: of
    the last one's outputs, which else are what the model predicts.
    """

    graph: Graph
    tensor: str
    layers: tuple[tuple[Floats, Floats], ...]
    softmax: bool

    def columns(self, columns: Columns) -> Floats:
        """What the first layer sees of the given rows, shape (rows, columns)."""
        seen = np.asarray(self.graph.evaluate([self.tensor], columns)[self.tensor], np.float64)
        return seen.reshape(len(seen), -1)

    def owners(self, columns: Columns, players: Players) -> NDArray[np.int64]:
        """Player of each column that the first layer sees. Raises :class:`NotExplainable` if one mixes players."""
        refusal = "column {index} of the network's first layer is made of {sources}; group these features"
        return self.graph.owners(self.tensor, columns, players, refusal)


def read_layers(graph: Graph, output: str) -> Layers:
    """The dense layers that make ``output``, back to where something else is computed.

    Raises :class:`NotExplainable` where there are none: the weights of an int8 model aren't there as numbers that a
    gradient could be taken of.
    """
    tensor, passed = graph.back(output, PASSING | {"Softmax"})
    softmax = "Softmax" in passed
    tensor, after = affine(graph, tensor)
    layers: list[tuple[Floats, Floats]] = []
    node = _dense(graph, tensor)
    while node is not None:
        weights, bias = layer_of(graph, node, output)
        layers.append((weights, np.broadcast_to(bias, weights.shape[1:])))
        tensor, _ = graph.back(node.input[0])
        node = _before_relu(graph, tensor)
    if not layers:
        last = graph.producer.get(tensor)
        last_type = last.op_type if last is not None else "the graph's input"
        raise NotExplainable(
            f"expected {output!r} to come from dense layers in floating point, found {last_type}; an int8 model "
            "(lifecycle.compression) has no gradients"
        )
    weights, bias = layers[0]
    layers[0] = (weights * after.factor, bias * after.factor + after.shift)
    if layers[0][0].shape != weights.shape or layers[0][1].shape != bias.shape:
        raise NotExplainable(f"{output!r}: expected a layer scaled as a whole or output by output, found neither")
    return Layers(graph, tensor, tuple(reversed(layers)), softmax)


def _dense(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """The node that makes ``tensor``, where it is a product with constant weights."""
    node = graph.producer.get(tensor)
    return node if node is not None and node.op_type in _DENSE and node.input[1] in graph.constants else None


def _before_relu(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """The dense layer whose ReLU is ``tensor``."""
    node = graph.producer.get(tensor)
    if node is None or node.op_type != "Relu":
        return None
    return _dense(graph, graph.back(node.input[0])[0])

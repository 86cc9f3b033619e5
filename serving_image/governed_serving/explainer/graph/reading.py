"""Walking an ONNX graph: producers, constants, sub-models, and the sources of each column of a tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from governed_serving.artefact import NO_FILES
from governed_serving.blackbox.columns import Columns
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.players import Players

__all__ = ["PASSING", "Graph", "attributes"]

PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "ZipMap"})
"""Operators that change a tensor's type or shape but none of its values."""

_COLUMNWISE = frozenset(
    {
        "Cast",
        "Identity",
        "Scaler",
        "Imputer",
        "Sub",
        "Add",
        "Div",
        "Mul",
        "Clip",
        "Log",
        "Sqrt",
        "Abs",
        "Neg",
        "Relu",
        "Tanh",
        "Sigmoid",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "Not",
        "IsNaN",
        "Where",
        "Binarizer",
    }
)

_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that keep columns in place where a row is its last axis alone, before and after."""


@dataclass(frozen=True)
class _Shape:
    """``width`` of a tensor's last axis; ``flat``: the axes between rows and columns, if any, are of length 1."""

    width: int
    flat: bool

    @classmethod
    def of(cls, value: NDArray[np.generic]) -> "_Shape":
        width = value.shape[-1] if value.ndim > 1 else 1
        return cls(width, math.prod(value.shape[1:]) == width)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attribute name → Python value (tensors as arrays, bytes as str)."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], bytes):
            value = [item.decode() for item in value]
        values[attribute.name] = value
    return values


class Graph:
    """A parsed model. ``names`` maps ONNX input names to the features that feed them, one column each."""

    def __init__(self, model: bytes, names: Mapping[str, str]) -> None:
        try:
            self.model = onnx.load_from_string(model)
        except Exception as error:  # protobuf's own errors share no base class
            raise NotExplainable(f"expected an ONNX model, found {len(model)} bytes that are none") from error
        graph = self.model.graph
        self.producer = {output: node for node in graph.node for output in node.output if output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and "value" in attributes(node):
                self.constants[node.output[0]] = attributes(node)["value"]
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.names = {name: names.get(name, name) for name in self.inputs}

    def back(self, output: str, through: frozenset[str] = PASSING) -> tuple[str, list[str]]:
        """The first tensor before ``output`` whose producer isn't in ``through``, and the operators passed on the
        way."""
        passed: list[str] = []
        while (node := self.producer.get(output)) is not None and node.op_type in through:
            passed.append(node.op_type)
            variable = [name for name in node.input if name and name not in self.constants]
            if not variable:
                break
            output = variable[0]
        return output, passed

    def evaluate(self, tensors: list[str], columns: Columns) -> dict[str, NDArray[np.generic]]:
        """Values of inner ``tensors`` on the given rows, computed by ONNX Runtime."""
        feed = self.feed(columns)
        given = {name: feed[name] for name in tensors if name in feed}
        wanted = [name for name in dict.fromkeys(tensors) if name not in given and name not in self.constants]
        if not wanted:
            return given
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(*NO_FILES)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        needed = {value.name for value in session.get_inputs()}
        computed = session.run(wanted, {name: value for name, value in feed.items() if name in needed})
        return {**given, **dict(zip(wanted, computed, strict=True))}

    def feed(self, columns: Columns) -> dict[str, NDArray[np.generic]]:
        """ONNX inputs from feature columns: [rows, 1] each, or all of them side by side for a single matrix input."""
        if len(self.inputs) == 1 and self.names[self.inputs[0]] not in columns:
            return {self.inputs[0]: np.stack([np.asarray(values, np.float32) for values in columns.values()], axis=1)}
        return {name: columns[feature].reshape(-1, 1) for name, feature in self.names.items() if feature in columns}

    def sources(self, tensor: str, columns: Columns) -> list[frozenset[str]]:
        """For each column of ``tensor`` (its last axis), the features that it is computed from."""
        values = self.evaluate(self._upstream(tensor), columns)
        shapes = {name: _Shape.of(value) for name, value in values.items()}
        matrix = len(self.inputs) == 1 and self.names[self.inputs[0]] not in columns
        traced: dict[str, list[frozenset[str]]] = {}
        for name in self.inputs:
            traced[name] = [frozenset({f}) for f in columns] if matrix else [frozenset({self.names[name]})]
        return self._sources(tensor, shapes, traced)

    def owners(self, tensor: str, columns: Columns, players: Players, refusal: str) -> NDArray[np.int64]:
        """Player of each column of ``tensor``; raises :class:`NotExplainable` with ``refusal`` (of index, sources) if
        one mixes players."""
        place = {feature: index for index, members in enumerate(players.members) for feature in members}
        owners = []
        for index, source in enumerate(self.sources(tensor, columns)):
            mine = {place[feature] for feature in source}
            if len(mine) != 1:
                raise NotExplainable(refusal.format(index=index, sources=sorted(source)))
            owners.append(mine.pop())
        return np.array(owners, np.int64)

    def _upstream(self, tensor: str) -> list[str]:
        todo, seen = [tensor], []
        while todo:
            name = todo.pop()
            if name and name not in seen and name not in self.constants:
                seen.append(name)
                todo.extend(self.producer[name].input if name in self.producer else [])
        return seen

    def _sources(
        self, tensor: str, shapes: Mapping[str, _Shape], traced: dict[str, list[frozenset[str]]]
    ) -> list[frozenset[str]]:
        if tensor in traced:
            return traced[tensor]
        node = self.producer.get(tensor)
        if node is None:
            raise NotExplainable(f"the graph uses {tensor!r}, which nothing makes")
        variable = [name for name in node.input if name and name not in self.constants]
        parts = [self._sources(name, shapes, traced) for name in variable]
        shape = shapes.get(tensor, _Shape(1, True))
        width = shape.width
        if node.op_type in ("Concat", "FeatureVectorizer"):
            sources = [source for part in parts for source in part]
        elif node.op_type in _RESHAPING and shape.flat and len(variable) == 1 and shapes[variable[0]] == shape:
            sources = parts[0]
        elif node.op_type in _COLUMNWISE and all(len(part) == width for part in parts):
            sources = [frozenset().union(*column) for column in zip(*parts, strict=True)]
        else:
            sources = [frozenset().union(*(source for part in parts for source in part))] * width
        if len(sources) != width:
            sources = [frozenset().union(*sources)] * width
        traced[tensor] = sources
        return sources

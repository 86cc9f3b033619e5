"""An ONNX file run through what would serve it."""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.datatypes import BYTES, DATATYPES
from governed_serving.artefact import Graph, MalformedArtefact, Tensor
from governed_serving.formats import Declared, Node, OnnxFile, describe, read, settled
from governed_serving.importer.answering import answered
from governed_serving.server.predictors.onnx import OnnxPredictor, session
from governed_serving.server.signature import NUMPY, Signature

__all__ = ["Trial", "tried"]

SEARCH_SECONDS = 30.0
"""How long sizes are looked for that the graph answers."""
SIZES = (1, 2, 3, 8, 16, 32, 64, 128, 224, 256, 320, 512, 576, 640)
"""What is tried for dimensions that are free."""
FILLS = (0.0, 1.0, 16000.0)
"""What whole numbers are filled with: codes, lengths, sampling rates."""
LARGEST = 256 << 20
"""Bytes of an answer that is still served: the journal's frame."""


NEARLY = 0.01
"""How far probabilities of half precision, or of rounded shares, may be from a sum of 1."""


class SessionNode(Protocol):
    """An input, likewise."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


class Session(Protocol):
    """ONNX Runtime's, as far as it is needed."""

    def run(self, names: list[str], feeds: Mapping[str, object]) -> Sequence[object]: ...

    def get_inputs(self) -> Sequence["SessionNode"]: ...


Example = tuple[list[list[int]], list[float]]


@dataclass(frozen=True)
class Trial:
    """``graph`` as running it showed it. ``merges``: requests share a call; else ``why``."""

    file: OnnxFile
    graph: Graph
    merges: bool
    why: str


def tried(data: bytes, declared: Declared) -> Trial:
    """Raises MalformedArtefact with what keeps the file from being served, and what to do."""
    file = read(data)
    try:
        opened = session(data)
    except ValueError as error:
        raise MalformedArtefact(f"ONNX file: {str(error).removeprefix('model.onnx: ')}") from error
    inputs = [Node(i.name, i.type, list(i.shape)) for i in opened.get_inputs()]
    outputs = [Node(o.name, o.type, list(o.shape)) for o in opened.get_outputs()]
    graph = describe(file, inputs, outputs, declared)
    graph = _shown(opened, graph, inputs, file, {one.name for one in declared.outputs if one.role})
    signature = Signature.of_graph(graph)
    predictor = OnnxPredictor(data, signature)
    answered(predictor)
    why = "" if predictor.merges else predictor.independence.first or "a row alone is rounded differently"
    return Trial(file, graph, predictor.merges, why)


def _shown(opened: Session, graph: Graph, nodes: Sequence[Node], file: OnnxFile, said: set[str]) -> Graph:
    """The graph with an example that it answers, its unit and the shapes of its outputs; ``said``: of whose role the
    manifest speaks."""
    if graph.unit == "row" and (shapes := _rows(opened, graph)) is not None:
        named = [
            tensor if tensor.name in said or _is_so(tensor, values) else _plain(tensor)
            for tensor, values in zip(graph.outputs, _run(opened, graph, _rowwise_example(graph, 3)), strict=True)
        ]
        graph = Graph(graph.inputs, named, graph.unit)
        return settled(graph, "row", [[-1, *shape] for shape in shapes], file)
    if any(tensor.columns or tensor.role == "tabular" for tensor in graph.inputs) and graph.unit == "row":
        _run(opened, graph, _rowwise_example(graph, 1))  # its own words for what is wrong, where it fails
        raise MalformedArtefact(
            "predictor.model.inputs: expected an answer for each row of a table, found outputs without; leave role "
            "tabular and columns out"
        )
    example, outputs = _searched(opened, graph, nodes)
    inputs = [
        msgspec.structs.replace(tensor, example=shape, fill=fill)
        for tensor, shape, fill in zip(graph.inputs, *example, strict=True)
    ]
    graph = Graph(inputs, graph.outputs, graph.unit)
    sizes = [
        [size if size > 0 and size == length else -1 for size, length in zip(tensor.shape, values.shape, strict=True)]
        if len(tensor.shape) == values.ndim
        else [-1] * values.ndim
        for tensor, values in zip(graph.outputs, outputs, strict=True)
    ]
    return settled(graph, "request", sizes, file)


def _is_so(tensor: Tensor, values: NDArray[np.generic]) -> bool:
    """Whether an output is what exporters mean by its name: some call margins ``probabilities``, and several
    quantities ``variable``."""
    row = values.shape[1:]
    if tensor.role == "score":
        return row in ((), (1,))
    if tensor.role != "probabilities" or tensor.maps:
        return True
    if len(row) != 1 or row[0] < 2:
        return False
    shares = values.astype(np.float64)
    within = bool(np.all((shares > -NEARLY) & (shares < 1 + NEARLY)))
    return not np.isfinite(shares).all() or (within and bool(np.all(np.abs(shares.sum(1) - 1) < NEARLY)))


def _plain(tensor: Tensor) -> Tensor:
    return msgspec.structs.replace(tensor, role="", classes=[], served=tensor.name)


def _rowwise_example(graph: Graph, rows: int) -> Example:
    return [[rows, *tensor.row] for tensor in graph.inputs], [tensor.fill for tensor in graph.inputs]


def _rows(opened: Session, graph: Graph) -> list[tuple[int, ...]] | None:
    """Shapes of a row of each output; None where the outputs have no row for each row asked."""
    seen: list[tuple[int, ...]] | None = None
    for rows in (1, 2, 3):
        try:
            outputs = _run(opened, graph, _rowwise_example(graph, rows))
        except MalformedArtefact:
            return None
        if any(values.ndim == 0 or len(values) != rows for values in outputs):
            return None
        shapes = [values.shape[1:] for values in outputs]
        if (seen is not None and shapes != seen) or any(0 in shape for shape in shapes):
            return None
        seen = shapes
    return seen


def _searched(opened: Session, graph: Graph, nodes: Sequence[Node]) -> tuple[Example, list[NDArray[np.generic]]]:
    """Made-up tensors that the graph answers, and its answer. Raises MalformedArtefact."""
    until, last = time.monotonic() + SEARCH_SECONDS, ""
    for example in _examples(graph, nodes):
        try:
            return example, _run(opened, graph, example)
        except MalformedArtefact as error:
            last = str(error)
        if time.monotonic() > until:
            break
    shown = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in graph.inputs)[:400]
    raise MalformedArtefact(
        f"ONNX file: expected an answer to made-up tensors ({shown}), found none for the sizes tried, lastly: {last}; "
        "narrow the shapes that it takes in predictor.model.inputs (shape), and name values that it accepts (example)"
    )


def _examples(graph: Graph, nodes: Sequence[Node]) -> Iterator[Example]:
    """Shapes and fills: the first axis and what is named as a batch is 1, others take each size in turn, all or the
    last of each tensor alone."""
    for fill, size, last in itertools.product(FILLS, SIZES, (True, False)):
        shapes = [
            [own if own > 0 else size if _varies(axis, node, last) else 1 for axis, own in enumerate(tensor.shape)]
            for tensor, node in zip(graph.inputs, nodes, strict=True)
        ]
        fills = [tensor.fill or (fill if _whole(tensor) else 0.0) for tensor in graph.inputs]
        if sum(math.prod(shape) for shape in shapes) <= LARGEST // 8:
            yield shapes, fills


def _varies(axis: int, node: Node, last: bool) -> bool:
    name = str(node.shape[axis] or "").lower()
    if (axis == 0 and len(node.shape) > 1) or "batch" in name:
        return False
    return not last or axis == len(node.shape) - 1


def _whole(tensor: Tensor) -> bool:
    return DATATYPES[tensor.datatype].json == "integer"


def _run(opened: Session, graph: Graph, example: Example) -> list[NDArray[np.generic]]:
    """The graph's answer, maps as matrices. Raises MalformedArtefact."""
    feeds = {}
    if (size := sum(math.prod(shape) for shape in example[0])) > LARGEST // 8:
        raise MalformedArtefact(
            f"ONNX file: expected inputs of at most {LARGEST // 8} values in one request, found {size}; narrow shapes "
            "in predictor.model.inputs"
        )
    for tensor, shape, fill in zip(graph.inputs, *example, strict=True):
        within = np.clip(fill, DATATYPES[tensor.datatype].least, DATATYPES[tensor.datatype].greatest)
        feeds[tensor.name] = (
            np.full(shape, "", object)
            if tensor.datatype == BYTES
            else np.full(shape, within).astype(NUMPY[tensor.datatype])
        )
    try:
        raw = opened.run([tensor.name for tensor in graph.outputs], feeds)
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own
        raise MalformedArtefact(f"ONNX Runtime: {' '.join(str(error).split())[:300]}") from error
    outputs = [
        _maps(cast(Sequence[Mapping[str | int, float]], values)) if tensor.maps else np.asarray(values)
        for tensor, values in zip(graph.outputs, raw, strict=True)
    ]
    if (size := sum(values.nbytes for values in outputs)) > LARGEST:
        raise MalformedArtefact(
            f"ONNX file: expected answers of at most {LARGEST >> 20} MiB, found one of {size >> 20} MiB; cut outputs "
            "off, or narrow shapes in predictor.model.inputs"
        )
    return outputs


def _maps(values: Sequence[Mapping[str | int, float]]) -> NDArray[np.generic]:
    return np.zeros((len(values), len(values[0]) if values else 0), np.float32)

"""An ONNX file as bytes, judged before any runtime is given it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from governed_serving.artefact import MalformedArtefact
from governed_serving.decoding import decode_json

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

__all__ = ["MAX_BYTES", "MAX_TENSORS", "OnnxFile", "read", "volume_for"]

MAX_BYTES = 2**31 - 1
"""A protobuf message can't be longer."""
MAX_TENSORS = 256
"""Inputs or outputs: each is a column of every record of the journal."""
_DEPTH = 16
"""Graphs within graphs."""
_LEAVES = "save the model as one file, such as with onnx.save(model, path, save_as_external_data=False)"


def volume_for(size: int) -> str:
    """predictor.model.volumeSize that a file of so many bytes needs, with room for rows and a manifest beside it."""
    return f"{-(-(size + size // 10) >> 20) + 16}Mi"


@dataclass(frozen=True)
class OnnxFile:
    """``classes``: by output that is a sequence of maps, what its ZipMap names; ``listed``: the metadata property
    ``classes``."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    classes: dict[str, list[str | int]] = field(default_factory=dict)
    listed: list[str | int] = field(default_factory=list)
    operators: frozenset[str] = frozenset()


def read(data: bytes) -> OnnxFile:
    """Raises MalformedArtefact with what is wrong and what to do."""
    import onnx
    from google.protobuf.message import DecodeError

    if len(data) > MAX_BYTES:
        raise MalformedArtefact(
            f"ONNX file: expected at most {MAX_BYTES >> 20} MiB, as one file can hold, found {len(data) >> 20}; "
            "compress it, or serve it by a predictor.model.runtime"
        )
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise MalformedArtefact(
            f"ONNX file: expected a model as onnx.save writes it, found {len(data)} bytes that are none"
        ) from error
    graph = model.graph
    if not graph.node or not graph.output:
        raise MalformedArtefact(
            f"ONNX file: expected a graph that computes something, found {len(graph.node)} nodes and "
            f"{len(graph.output)} outputs"
        )
    for what, found in (("inputs", graph.input), ("outputs", graph.output)):
        if len(found) > MAX_TENSORS:
            raise MalformedArtefact(
                f"ONNX file: expected at most {MAX_TENSORS} {what}, found {len(found)}; concatenate them to one tensor"
            )
    nodes = [*_nodes(graph), *(node for function in model.functions for node in function.node)]
    for tensor in _tensors(graph, nodes):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            raise MalformedArtefact(
                f"ONNX file: {tensor.name!r}: expected its values in the file, found them in another one "
                f"({location[:200]!r}); {_LEAVES}"
            )
    own = {tensor.name for tensor in graph.initializer}
    return OnnxFile(
        inputs=tuple(i.name for i in graph.input if i.name not in own),
        outputs=tuple(o.name for o in graph.output),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part)[:80],
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        classes={node.output[0]: names for node in graph.node if (names := _zipped(node)) and node.output},
        listed=_listed(next((p.value for p in model.metadata_props if p.key == "classes"), "")),
        operators=frozenset(node.op_type for node in nodes),
    )


def _listed(text: str) -> list[str | int]:
    if not text:
        return []
    try:
        return decode_json(text, type=list[str | int])
    except msgspec.DecodeError as error:
        raise MalformedArtefact(
            f"ONNX file: metadata property classes: expected a JSON list of names, found {text[:80]!r}"
        ) from error


def _zipped(node: "NodeProto") -> list[str | int]:
    if node.op_type != "ZipMap":
        return []
    found: list[str | int] = []
    for attribute in node.attribute:
        found += [name.decode(errors="replace") for name in attribute.strings] if attribute.strings else attribute.ints
    return found


def _graphs(attributes: "Iterator[AttributeProto]") -> "Iterator[GraphProto]":
    for attribute in attributes:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(graph: "GraphProto", depth: int = 0) -> "Iterator[NodeProto]":
    if depth > _DEPTH:
        raise MalformedArtefact(f"ONNX file: expected at most {_DEPTH} graphs within each other, found more")
    for node in graph.node:
        yield node
        for inner in _graphs(iter(node.attribute)):
            yield from _nodes(inner, depth + 1)


def _tensors(graph: "GraphProto", nodes: "list[NodeProto]") -> "Iterator[TensorProto]":
    """Every tensor with values: of the graph, of those within it, of attributes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in _graphs(iter(node.attribute)):
            yield from inner.initializer

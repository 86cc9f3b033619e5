"""An ONNX file as bytes, judged before any runtime is given it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from governed_api.regular_files import open_regular
from governed_serving.artefact import MalformedArtefact
from governed_serving.decoding import decode_json

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import NodeProto, TensorProto

__all__ = ["MAX_BYTES", "MAX_TENSORS", "OnnxFile", "check_name", "content_of", "read", "volume_for"]

MAX_BYTES = 2**31 - 1
"""A protobuf message can't be longer."""
MAX_TENSORS = 256
"""Inputs or outputs: each is a column of every record of the journal."""
MAX_NAME = 256
"""Characters of the name of an input, an output or a class: it is in every record of the journal, and in logs."""
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


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise MalformedArtefact(
            f"ONNX file: expected at most {MAX_BYTES >> 20} MiB, as one file can hold, found {size >> 20}; compress "
            "it, or serve it by a predictor.model.runtime"
        )


def check_name(what: str, name: str) -> None:
    """Raises MalformedArtefact for a name that can't be printed as it is, or is too long to be in every record."""
    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise MalformedArtefact(
            f"ONNX file: {what}: expected a printable name of 1 to {MAX_NAME} characters, found {name[:80]!r}"
            f"{f' and {len(name) - 80} more' if len(name) > 80 else ''}; rename it before the export"
        )


def content_of(path: Path) -> bytes:
    """The bytes of a file, or of what a link leads to, read no further than a model may be long. Raises OSError,
    also for a pipe or a device, which isn't waited for; MalformedArtefact."""
    with open_regular(path, follow=True) as file:
        _check_size(os.fstat(file.fileno()).st_size)
        return file.read(MAX_BYTES)


def read(data: bytes) -> OnnxFile:
    """Raises MalformedArtefact with what is wrong and what to do."""
    import onnx
    from google.protobuf.message import DecodeError

    _check_size(len(data))
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
    for what, values in (("inputs", graph.input), ("outputs", graph.output)):
        if len(values) > MAX_TENSORS:
            raise MalformedArtefact(
                f"ONNX file: expected at most {MAX_TENSORS} {what}, found {len(values)}; concatenate them to one tensor"
            )
    nodes: list[NodeProto] = []
    for message in _messages(model):
        if isinstance(message, onnx.NodeProto):
            nodes.append(message)
        elif isinstance(message, onnx.TensorProto):
            _check_values(message)
    own = {tensor.name for tensor in graph.initializer}
    for what, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            if what == "output" or value.name not in own:
                check_name(what, value.name)
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
    classes: list[str | int] = []
    for attribute in node.attribute:
        classes += (
            [name.decode(errors="replace") for name in attribute.strings] if attribute.strings else attribute.ints
        )
    return classes


def _check_values(tensor: "TensorProto") -> None:
    """Raises MalformedArtefact for values that lie elsewhere: the runtime would read any file of ours, or memory."""
    if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        raise MalformedArtefact(
            f"ONNX file: {tensor.name[:200]!r}: expected its values in the file, found them in another one "
            f"({location[:200]!r}); {_LEAVES}"
        )


def _messages(root: "Message") -> "Iterator[Message]":
    """Every message of the file, wherever it stands: a runtime looks in more places than one would list. Raises
    MalformedArtefact for graphs nested too deep."""
    from google.protobuf.message import Message

    waiting: list[tuple[Message, int]] = [(root, 0)]
    while waiting:
        message, depth = waiting.pop()
        depth += message.DESCRIPTOR.name == "GraphProto"
        if depth > _DEPTH + 1:
            raise MalformedArtefact(f"ONNX file: expected at most {_DEPTH} graphs within each other, found more")
        yield message
        for kind, value in message.ListFields():
            if kind.message_type is not None:
                waiting += [(part, depth) for part in ([value] if isinstance(value, Message) else value)]
            elif kind.type == kind.TYPE_STRING and any(
                isinstance(part, bytes) for part in ([value] if isinstance(value, str | bytes) else value)
            ):
                raise MalformedArtefact(f"ONNX file: {kind.name}: expected text in UTF-8, found bytes that are none")

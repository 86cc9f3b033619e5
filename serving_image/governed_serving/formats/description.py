"""The graph's tensors put together with what the manifest says of them."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from governed_api.datatypes import BYTES, DATATYPES, ONNX
from governed_api.tensors import TensorInput, TensorOutput
from governed_serving.artefact import Graph, MalformedArtefact, Tensor
from governed_serving.formats.onnx_file import OnnxFile, check_name

__all__ = ["Declared", "Node", "describe", "rowwise", "settled"]

LABELS, PROBABILITIES = ("label", "output_label"), ("probabilities", "output_probability")
SCORES = ("prediction", "variable")
"""What exporters call them: ours and sklearn's without ZipMap, LightGBM's and XGBoost's; skl2onnx's with it."""
SERVED = {"label": "label", "probabilities": "probabilities", "score": "prediction"}
"""By role, the names that answers, explanations and audits have for them."""
_MAP = re.compile(r"seq\(map\((int64|string),tensor\((float|double)\)\)\)")


class Node(NamedTuple):
    """An input or output as ONNX Runtime tells of it; ``shape`` has names, or None, for what is free."""

    name: str
    type: str
    shape: list[int | str | None]


class Declared(NamedTuple):
    """What the manifest says of the graph."""

    inputs: Sequence[TensorInput] = ()
    outputs: Sequence[TensorOutput] = ()


def describe(file: OnnxFile, inputs: Sequence[Node], outputs: Sequence[Node], declared: Declared) -> Graph:
    """The graph's tensors, with what the manifest adds, and the unit that its inputs allow; running it says the rest
    (:func:`settled`). Raises MalformedArtefact where the two contradict, or for what can't be served."""
    if not inputs:
        raise MalformedArtefact("ONNX file: expected a graph with inputs, found none: its answer is always the same")
    ins = _declared(declared.inputs, inputs, "inputs")
    outs = _declared(declared.outputs, outputs, "outputs")
    taken = [_input(node, ins.get(node.name)) for node in inputs]
    given = [_output(node, outs.get(node.name), file) for node in outputs]
    names = [name for tensor in taken for name in (tensor.columns or [tensor.served])]
    for what, named in (("input or column", names), ("output", [tensor.served for tensor in given])):
        if twice := sorted({name for name in named if named.count(name) > 1}) if len(named) > len(set(named)) else []:
            raise MalformedArtefact(
                f"predictor.model: expected each {what} once, found {twice[0]!r} more than once; name columns apart, "
                "or give a role to one output alone"
            )
    unit: Literal["row", "request"] = "row" if rowwise(taken) else "request"
    if unit == "request" and (named := [tensor.name for tensor in taken if tensor.columns]):
        raise MalformedArtefact(
            f"predictor.model.inputs: {named[0]!r}: expected rows on the first axis of every tensor for a table, "
            "found a graph without them; leave columns out"
        )
    return Graph(taken, given, unit)


def rowwise(inputs: Sequence[Tensor]) -> bool:
    """Whether the first axis of all may count rows, and nothing else of a request is free."""
    return all(tensor.shape[:1] == [-1] and all(size > 0 for size in tensor.row) for tensor in inputs)


def settled(graph: Graph, unit: Literal["row", "request"], shapes: Sequence[Sequence[int]], file: OnnxFile) -> Graph:
    """The graph as running it showed it: ``shapes`` of its outputs, -1 where they vary. Raises MalformedArtefact."""
    outputs = [
        msgspec.structs.replace(tensor, shape=list(shape)) for tensor, shape in zip(graph.outputs, shapes, strict=True)
    ]
    return Graph(graph.inputs, _classified(outputs, file), unit)


T = TypeVar("T", TensorInput, TensorOutput)


def _declared(said: Sequence[T], nodes: Sequence[Node], where: str) -> dict[str, T]:
    names = [node.name for node in nodes]
    for tensor in said:
        if tensor.name not in names:
            raise MalformedArtefact(
                f"predictor.model.{where}: expected names of the graph's {where} ({', '.join(names)[:400]}), found "
                f"{tensor.name!r}"
            )
    return {tensor.name: tensor for tensor in said}


def _input(node: Node, said: TensorInput | None) -> Tensor:
    if node.type not in ONNX:
        raise MalformedArtefact(
            f"ONNX file: input {node.name!r}: expected a tensor of a V2 datatype, found {node.type}; convert it inside "
            "the graph"
        )
    datatype = ONNX[node.type]
    shape = _shape(node)
    if any(size == 0 for size in shape):
        raise MalformedArtefact(f"ONNX file: input {node.name!r}: expected dimensions of 1 or more, found {shape}")
    if said is None:
        return Tensor(node.name, datatype, shape, node.name)
    shape = _agreed(f"predictor.model.inputs: {node.name!r}", datatype, shape, said)
    columns = _columns(node.name, shape, said)
    if not columns and said.role == "tabular" and (len(shape) > 2 or shape[1:] not in ([], [1])):
        raise MalformedArtefact(
            f"predictor.model.inputs: {node.name!r}: expected columns for role tabular, found none; name the "
            f"{shape[-1] if shape else 0} columns of its matrix in the graph's order"
        )
    return Tensor(
        node.name,
        datatype,
        shape,
        node.name,
        role=said.role or ("tabular" if columns else ""),
        columns=columns,
        accepts_missing=said.missing == "Accept",
        fill=said.example or 0.0,
    )


def _columns(name: str, shape: list[int], said: TensorInput) -> list[str]:
    """The names of a matrix's columns. Raises MalformedArtefact."""
    columns = list(said.columns)
    where = f"predictor.model.inputs: {name!r}"
    if not columns:
        return []
    if said.role not in (None, "tabular"):
        raise MalformedArtefact(f"{where}: expected role tabular for columns, found {said.role}")
    if len(shape) != 2 or shape[0] != -1 or shape[1] not in (-1, len(columns)):
        raise MalformedArtefact(
            f"{where}: expected as many columns as its matrix [N, F] has, found {len(columns)} for shape {shape}"
        )
    shape[1] = len(columns)
    if faulty := [column for column in columns if not column.isprintable()]:
        raise MalformedArtefact(f"{where}: expected printable names of columns, found {faulty[0]!r}")
    return columns


def _output(node: Node, said: TensorOutput | None, file: OnnxFile) -> Tensor:
    classes = file.classes.get(node.name, [])
    if mapped := _MAP.fullmatch(node.type.replace(" ", "")):
        width = len(classes) or -1
        tensor = Tensor(
            node.name, {"float": "FP32", "double": "FP64"}[mapped[2]], [-1, width], node.name,
            role="probabilities", classes=classes, maps=True,
        )  # fmt: skip
    elif node.type in ONNX:
        tensor = Tensor(node.name, ONNX[node.type], _shape(node), node.name, role=_usual(node.name))
    else:
        raise MalformedArtefact(
            f"ONNX file: output {node.name!r}: expected a tensor of a V2 datatype, found {node.type}; cut it off the "
            "graph's outputs"
        )
    role, shape = tensor.role, tensor.shape
    if said is not None:
        role = said.role or role
        where = f"predictor.model.outputs: {node.name!r}"
        shape = _agreed(where, tensor.datatype, shape, said)
        if classes and said.classes and [str(name) for name in classes] != said.classes:
            raise MalformedArtefact(
                f"{where}: expected the classes that the graph lists ({', '.join(map(str, classes))[:200]}), found "
                f"{', '.join(said.classes)[:200]}; leave them out"
            )
        classes = classes or list(said.classes)
    _fits_role(node.name, role, tensor)
    return Tensor(
        node.name, tensor.datatype, shape, SERVED.get(role, node.name), role=role, classes=classes, maps=tensor.maps
    )


def _usual(name: str) -> str:
    for role, names in (("label", LABELS), ("probabilities", PROBABILITIES), ("score", SCORES)):
        if name in names:
            return role
    return ""


def _fits_role(name: str, role: str, tensor: Tensor) -> None:
    floats = tensor.datatype.startswith("FP")
    if role in ("probabilities", "score", "logits", "embedding") and not floats:
        raise MalformedArtefact(
            f"predictor.model.outputs: {name!r}: expected floats for role {role}, found {tensor.datatype}"
        )
    if role == "label" and floats:
        raise MalformedArtefact(
            f"predictor.model.outputs: {name!r}: expected whole numbers or strings for role label, found "
            f"{tensor.datatype}; its role is rather score"
        )


def _agreed(where: str, datatype: str, shape: list[int], said: TensorInput | TensorOutput) -> list[int]:
    """The shape, narrowed by what is declared. Raises MalformedArtefact."""
    if said.datatype not in (None, datatype):
        raise MalformedArtefact(f"{where}: expected the graph's datatype {datatype}, found {said.datatype}")
    if said.shape is None:
        return shape
    agrees = len(said.shape) == len(shape) and all(
        own in (-1, other) or other == -1 for own, other in zip(shape, said.shape, strict=True)
    )
    if not agrees or 0 in said.shape:
        raise MalformedArtefact(f"{where}: expected a shape that the graph's {shape} allows, found {said.shape}")
    return [other if own == -1 else own for own, other in zip(shape, said.shape, strict=True)]


def _shape(node: Node) -> list[int]:
    return [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape]


def _classified(outputs: list[Tensor], file: OnnxFile) -> list[Tensor]:
    """Classes of probabilities, which labels share: as the graph or the manifest lists them, else 0 … K − 1 where
    labels are numbers."""
    by_role: dict[str, Tensor] = {tensor.role: tensor for tensor in outputs}
    scores, label = by_role.get("probabilities"), by_role.get("label")
    if scores is None:
        return outputs
    listed: list[str | int] = scores.classes or (label.classes if label else []) or file.listed
    width = scores.shape[-1] if scores.shape else -1
    if not listed and width > 0 and (label is None or label.datatype != BYTES):
        listed = list(range(width))
    if label is not None and DATATYPES[label.datatype].json == "integer":
        listed = _as(int, listed, label.name)
    for name in listed:
        check_name(f"class of {scores.name!r}", str(name))
    if len(set(listed)) < len(listed):
        raise MalformedArtefact(
            f"predictor.model.outputs: {scores.name!r}: expected each class once, found "
            f"{next(name for name in listed if listed.count(name) > 1)!r} more than once"
        )
    if width > 0 and listed and len(listed) != width:
        raise MalformedArtefact(
            f"predictor.model.outputs: {scores.name!r}: expected {width} classes, one for each column, found "
            f"{len(listed)}"
        )
    shape = [*scores.shape[:-1], len(listed)] if listed and scores.shape else scores.shape
    made = msgspec.structs.replace(scores, shape=shape, classes=listed)
    return [made if tensor is scores else tensor for tensor in outputs]


def _as(kind: Callable[[str | int], int], names: list[str | int], label: str) -> list[str | int]:
    try:
        return [kind(name) for name in names]
    except ValueError as error:
        raise MalformedArtefact(
            f"predictor.model.outputs: classes: expected whole numbers, as {label!r} answers them, found {error}"
        ) from None

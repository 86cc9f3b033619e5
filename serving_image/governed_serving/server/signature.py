"""What a model takes and gives: inputs and outputs by name, V2 datatype and shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from governed_api.datatypes import BYTES
from governed_api.json_types import Scalar
from governed_serving.artefact import Graph, Manifest, Text
from governed_serving.journal.columns import DTYPES
from governed_serving.server.errors import InvalidRequest

__all__ = ["NUMPY", "Input", "Output", "Signature", "Values", "array", "tensor"]

Values = list[Any] | NDArray[np.generic]
"""One input over all rows, flattened: numbers or str, as its datatype says; length rows × width."""

Kind = Literal["numeric", "categorical", "text", "tensor"]

NUMPY: dict[str, np.dtype[np.generic]] = {**DTYPES, "BYTES": np.dtype("O")}
"""V2 datatypes and what holds them here."""


@dataclass(frozen=True)
class Input:
    """One input. ``shape`` is that of one row, (1,) for a feature; ``kind`` tensor: neither of the three feature
    kinds."""

    name: str
    dtype: str
    shape: tuple[int, ...] = (1,)
    kind: Kind = "numeric"
    impute: bool = False
    """Missing values (NaN, null, "") are the model's to fill in."""
    example: tuple[int, ...] = ()
    fill: float = 0.0
    """Of a graph that others exported: a shape, and what to fill it with, that it answers."""
    segmentation: str = ""
    max_tokens: int | None = None
    about: bool = False
    """It says whom a decision is about, which blanks don't."""

    @cached_property
    def width(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape)

    @property
    def textual(self) -> bool:
        """Holds strings."""
        return self.dtype == "BYTES"


@dataclass(frozen=True)
class Output:
    """One output; ``shape`` is that of one row, () for a scalar."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @cached_property
    def width(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """All inputs, in feature order, and all outputs. ``classes`` of a classifier, as ``label`` names them. ``graph``:
    how they fit a graph that others exported; ``text``: how texts fit one of tokens. ``mitigation``:
    of bias, applied in training, which every answer names; "": none. ``coverage``: the chance with which a set or an
    interval holds the truth; None: there is none."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    classes: tuple[str | int, ...] = ()
    graph: Graph | None = None
    text: Text | None = None
    mitigation: str = ""
    coverage: float | None = None
    index: dict[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {spec.name: k for k, spec in enumerate(self.inputs)})

    @classmethod
    def of(cls, manifest: Manifest) -> "Signature":
        """The signature of an artefact."""
        if manifest.graph is not None:
            return _of_graph(manifest.graph, tuple(manifest.classes))
        inputs = tuple(
            Input(
                f.name,
                f.dtype,
                (1,),
                f.type,
                f.missing == "impute",
                segmentation=f.segmentation,
                max_tokens=f.max_tokens,
                about=f.about,
            )
            for f in manifest.features
        )
        outputs = tuple(Output(o.name, o.dtype, tuple(o.shape[1:])) for o in manifest.outputs)
        return cls(
            inputs,
            outputs,
            tuple(manifest.classes),
            text=manifest.text,
            mitigation=manifest.mitigation,
            coverage=manifest.coverage,
        )

    @classmethod
    def of_graph(cls, graph: Graph) -> "Signature":
        """The signature of a graph that others exported."""
        classes = next((tensor.classes for tensor in graph.outputs if tensor.classes), [])
        return _of_graph(graph, tuple(classes))

    @property
    def whole(self) -> bool:
        """A request is one call: its tensors have the graph's own shapes (-1: any size), and no rows."""
        return self.graph is not None and self.graph.unit == "request"

    def shape_of(self, spec: Input | Output) -> list[int]:
        """Of the tensor in requests and answers, -1 where a request chooses."""
        return list(spec.shape) if self.whole else [-1, *spec.shape]

    @property
    def numeric(self) -> bool:
        """Every input is one number: then one matrix [rows, features] will do as well."""
        return not self.whole and all(not spec.textual and spec.shape == (1,) for spec in self.inputs)

    def names(self) -> str:
        """Input names for messages."""
        return ", ".join(spec.name for spec in self.inputs[:24]) + (" …" if len(self.inputs) > 24 else "")


def _of_graph(graph: Graph, classes: tuple[str | int, ...]) -> Signature:
    inputs = []
    for tensor in graph.inputs:
        if graph.unit == "request":
            shape, example = tuple(tensor.shape), tuple(tensor.example)
        else:
            shape, example = (1,) if tensor.columns or not tensor.row else tensor.row, ()
        kind: Kind = "tensor"
        if tensor.role == "tabular" or (graph.unit == "row" and shape == (1,)):
            kind = "categorical" if tensor.datatype == BYTES else "numeric"
        inputs += [
            Input(name, tensor.datatype, shape, kind, tensor.accepts_missing, example=example, fill=tensor.fill)
            for name in tensor.columns or [tensor.served]
        ]
    outputs = [
        Output(tensor.served, tensor.datatype, tuple(tensor.shape) if graph.unit == "request" else tensor.row)
        for tensor in graph.outputs
    ]
    return Signature(tuple(inputs), tuple(outputs), classes, graph)


def tensor(spec: Input, values: Values, shape: Sequence[int]) -> NDArray[np.generic]:
    """One request's values as the graph takes them. Raises InvalidRequest on overflow."""
    dtype = NUMPY[spec.dtype]
    if not isinstance(values, np.ndarray):
        return _converted(spec, values, dtype).reshape(shape)
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False).reshape(shape)


def array(spec: Input, parts: Sequence[Values]) -> NDArray[np.generic]:
    """The values of several requests as one array, shape (rows, *spec.shape). Raises InvalidRequest on overflow."""
    dtype = NUMPY[spec.dtype]
    flat: list[Scalar] = []
    arrays: list[NDArray[np.generic]] = []
    for part in parts:
        if isinstance(part, np.ndarray):
            arrays.append(part)
        else:
            flat.extend(part)
    if not arrays:
        return _converted(spec, flat, dtype).reshape(-1, *spec.shape)
    pieces = [p if isinstance(p, np.ndarray) else _converted(spec, p, dtype) for p in parts]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    with np.errstate(over="ignore"):
        return joined.astype(dtype, copy=False).reshape(-1, *spec.shape)


def _converted(spec: Input, values: list[Scalar], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    try:
        if dtype == np.float32:  # a number beyond its range becomes infinite, which the caller refuses by name
            with np.errstate(over="ignore"):
                return np.array(values, np.float64).astype(np.float32)
        return np.array(values, dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidRequest(
            f"input {spec.name!r}: expected {spec.dtype}, found a value out of its range; {error}"
        ) from error

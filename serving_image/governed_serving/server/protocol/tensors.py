"""Checks tensors of any legal form against the signature, and says what is wrong with those that don't fit."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from governed_api.datatypes import DATATYPES
from governed_api.json_types import Scalar
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.protocol.shapes import flattened, quoted
from governed_serving.server.protocol.v2_messages import LooseTensor
from governed_serving.server.signature import NUMPY, Input, Signature, Values

__all__ = ["checked", "checked_whole", "fits", "values_of"]


def checked(signature: Signature, tensors: list[LooseTensor], data: list[Values]) -> tuple[int, list[Values]]:
    """Rows, and columns in the signature's order. Raises InvalidRequest naming the tensor."""
    places = _places(signature, tensors)
    rows: int | None = None
    columns: list[Values] = []
    for spec in signature.inputs:
        tensor = tensors[places[spec.name]]
        count, values = _column(spec, tensor, data[places[spec.name]])
        if rows is not None and count != rows:
            first = signature.inputs[0].name
            raise InvalidRequest(f"input {spec.name!r}: expected {rows} rows as in {first!r}, found {count}")
        rows = count
        columns.append(values)
    return rows or 0, columns


def checked_whole(
    signature: Signature, tensors: list[LooseTensor], data: list[Values]
) -> tuple[tuple[tuple[int, ...], ...], list[Values]]:
    """Shapes and values in the signature's order, of a graph whose shapes a request chooses. Raises InvalidRequest
    naming the tensor."""
    places = _places(signature, tensors)
    shapes: list[tuple[int, ...]] = []
    columns: list[Values] = []
    for spec in signature.inputs:
        given = tensors[places[spec.name]]
        shape = fits(spec, given.shape)
        if shape is None:
            want = f"[{', '.join('any' if size < 0 else str(size) for size in spec.shape)}]"
            least = " without a dimension of 0" if 0 in given.shape else ""
            raise InvalidRequest(f"input {spec.name!r}: expected shape {want}{least}, found {quoted(given.shape)}")
        columns.append(_values(spec, given, data[places[spec.name]]))
        shapes.append(shape)
    return tuple(shapes), columns


def fits(spec: Input, shape: list[int]) -> tuple[int, ...] | None:
    """The shape that a tensor of shape ``shape`` has for the graph, None where it has another. A scalar may come as
    [1]."""
    if not spec.shape and shape in ([], [1]):
        return ()
    if len(shape) != len(spec.shape) or any(size < 1 for size in shape):
        return None
    return tuple(shape) if all(own in (-1, size) for own, size in zip(spec.shape, shape, strict=True)) else None


def _places(signature: Signature, tensors: list[LooseTensor]) -> dict[str, int]:
    places = {tensor.name: k for k, tensor in enumerate(tensors)}
    if len(places) != len(tensors):
        twice = Counter(tensor.name for tensor in tensors).most_common(1)[0][0]
        raise InvalidRequest(f"inputs: expected each name once, found {quoted(twice)} more than once")
    if strange := [n for n in places if n not in signature.index]:
        raise InvalidRequest(
            f"input {quoted(strange[0])}: expected one of {signature.names()}; correct the name or leave it out"
        )
    if missing := [s.name for s in signature.inputs if s.name not in places]:
        raise InvalidRequest(
            f"input {missing[0]!r}: expected this input, found inputs without it; send all of {signature.names()}"
        )
    return places


def _column(spec: Input, tensor: LooseTensor, data: Values) -> tuple[int, Values]:
    shape = tensor.shape
    legal = (len(shape) == 1 and spec.shape == (1,)) or tuple(shape[1:]) == spec.shape
    if not shape or shape[0] < 1 or not legal:
        want = f"[n, {', '.join(map(str, spec.shape))}]" + (" or [n]" if spec.shape == (1,) else "")
        raise InvalidRequest(f"input {spec.name!r}: expected shape {want} with n ≥ 1, found {quoted(shape)}")
    return shape[0], _values(spec, tensor, data)


def _values(spec: Input, tensor: LooseTensor, data: Values) -> Values:
    shape = tensor.shape
    check_datatype(spec.name, spec.textual, spec.dtype, tensor.datatype)
    values = (
        data
        if isinstance(data, np.ndarray)
        else values_of(spec.name, spec.textual, tensor.datatype, flattened(spec.name, shape, data))
    )
    if len(values) != math.prod(shape):
        raise InvalidRequest(
            f"input {spec.name!r}: expected {math.prod(shape)} values for shape {shape}, found {len(values)}"
        )
    return values


def check_datatype(name: str, textual: bool, expected: str, declared: str) -> None:
    """Numbers of any width fit a number; strings fit strings only."""
    if declared not in NUMPY:
        raise InvalidRequest(f"input {name!r}: expected a V2 datatype such as {expected}, found {quoted(declared)}")
    if textual != (declared == "BYTES"):
        what = "BYTES (strings)" if textual else f"{expected} (numbers)"
        raise InvalidRequest(f"input {name!r}: expected datatype {what}, found {declared}")


def values_of(name: str, textual: bool, dtype: str, values: list[Scalar]) -> list[Scalar]:
    """Values that the declared datatype ``dtype`` has; null becomes NaN or "", which the data plane refuses where the
    model can't fill it in."""
    if textual:
        for k, value in enumerate(values):
            if value is None:
                values[k] = ""
            elif not isinstance(value, str):
                raise InvalidRequest(f"input {name!r}: expected strings, found {type(value).__name__} at index {k}")
        return values
    fits = _fitting(dtype)
    for k, value in enumerate(values):
        if value is None:
            values[k] = math.nan
        elif not fits(value):
            raise InvalidRequest(f"input {name!r}: expected {dtype} numbers, found {_kind(value)} at index {k}")
    return values


def _fitting(dtype: str) -> Callable[[Any], bool]:
    """Whether a JSON value is one of the declared datatype."""
    datatype = DATATYPES[dtype]
    low, high = datatype.least, datatype.greatest
    if datatype.json == "boolean":
        return lambda value: value is True or value is False or (type(value) is int and value in (0, 1))
    if datatype.json == "integer":
        return lambda value: type(value) is int and low <= value <= high
    return lambda value: (
        type(value) in (int, float) and (low <= value <= high or (type(value) is float and not math.isfinite(value)))
    )


def _kind(value: object) -> str:
    if type(value) in (int, float):
        return quoted(value, 40)
    return {"str": "a string", "dict": "an object", "list": "an array"}.get(type(value).__name__, type(value).__name__)

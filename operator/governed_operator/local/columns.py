"""Rows as the tensors that a model takes, one for each input; what doesn't fit is told with its row and input."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from governed_api.datatypes import BYTES, DATATYPES
from governed_api.json_types import Json, Scalar
from governed_operator.local.json_client import InvalidInput

__all__ = ["DeclaredTensor", "Row", "Tensor", "column"]

Row = Mapping[str, Json]
"""Raw features of one instance, by name: a scalar each, or nested lists where an input has a shape of its own. None and
NaN: missing."""
_TRUTH = {"true": True, "false": False}


class DeclaredTensor(TypedDict):
    """An input that the model's metadata names; -1: the rows."""

    name: str
    datatype: str
    shape: list[int]


class Tensor(DeclaredTensor):
    """A V2 tensor with its values, flat."""

    data: list[Scalar]


def column(declared: DeclaredTensor, rows: Sequence[Row]) -> Tensor:
    """One input over all rows. Numbers may be written as words, as on a command line. Raises InvalidInput."""
    name, datatype, shape = declared["name"], declared["datatype"], declared["shape"][1:] or [1]
    if any(size < 0 for size in shape) or datatype not in DATATYPES:
        raise InvalidInput(f"{name}: expected an input of a fixed shape, found {datatype} {declared['shape']}")
    width, data = math.prod(shape), list[Scalar]()
    for n, row in enumerate(rows):
        if name not in row:
            raise InvalidInput(f"row {n} has no value for {name}: the model needs it ({datatype})")
        values = list(_flat(row[name]))
        if len(values) != width:
            raise InvalidInput(f"row {n}, {name}: expected {_counted(width)} ({datatype}), found {len(values)}")
        data += [_element(f"row {n}, {name}", datatype, value) for value in values]
    return {"name": name, "datatype": datatype, "shape": [len(rows), *shape], "data": data}


def _counted(width: int) -> str:
    return "one value" if width == 1 else f"{width} values"


def _flat(value: Json) -> Iterator[Json]:
    """Values of nested lists, in row-major order."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _element(place: str, datatype: str, value: Json) -> Scalar:
    """Raises InvalidInput for what the datatype has no form for."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None  # missing: the model fills it in, or the server says that it must be there
    if datatype == BYTES:
        return _text(place, value)
    kind = DATATYPES[datatype].json
    if kind == "boolean":
        truth = _TRUTH.get(value.lower()) if isinstance(value, str) else value
        if truth in (True, False) and isinstance(truth, int):
            return bool(truth)
    elif kind == "integer":
        if (whole := _whole(value)) is not None:
            return whole
    elif (number := _number(value)) is not None:
        return number
    wanted = {"boolean": "true or false", "integer": "a whole number"}.get(kind, "a number")
    raise InvalidInput(f"{place}: expected {wanted} ({datatype}), found {_shown(value)}")


def _text(place: str, value: Json) -> str:
    """A whole number is the text of its digits; of 1.0 nobody knows whether "1" or "1.0" was meant."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidInput(f"{place}: expected a text ({BYTES}), found {_shown(value)}: write it as the text that it is")


def _number(value: Json) -> float | None:
    """None: it is none, or isn't finite."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
        if math.isnan(value):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _whole(value: Json) -> int | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"

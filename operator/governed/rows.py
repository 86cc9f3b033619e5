"""Rows of a notebook: a mapping, a list of them, or a data frame (pandas, polars), which is known by its form."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from governed.plain import plain, scalar
from governed_api.json_types import Json
from governed_operator.local.columns import Row
from governed_operator.local.json_client import InvalidInput

__all__ = ["Frame", "Rows", "rows_of"]


@runtime_checkable
class Frame(Protocol):
    """A data frame of pandas or polars, as far as its rows are read."""

    @property
    def columns(self) -> Iterable[object]:
        """Names."""


Rows: TypeAlias = Mapping[str, object] | Sequence[Mapping[str, object]] | Frame
"""One row, or several. Values are scalars (of Python or numpy), or arrays where an input has a shape of its own; None,
NaN and pandas.NA are missing."""


def rows_of(data: Rows, inputs: Collection[str]) -> list[Row]:
    """Rows as JSON has them, with ``inputs`` alone. Raises InvalidInput for names that the model doesn't take, and for
    values that JSON has no form for, with row and name."""
    rows: Iterable[object]
    if isinstance(data, Mapping):
        rows = [data]
    elif isinstance(data, Frame):
        rows = _records(data)
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        rows = data
    else:
        raise InvalidInput(f"rows: expected a mapping, a list of them or a data frame, found {type(data).__name__}")
    made = [_row(n, row, inputs) for n, row in enumerate(rows)]
    if not made:
        raise InvalidInput("rows: expected one at least, found none")
    return made


def _records(frame: Frame) -> Iterable[object]:
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"rows: expected each column once, found {twice} more than once")
    if callable(to_dicts := getattr(frame, "to_dicts", None)):  # polars
        return _iterable(to_dicts())
    if callable(to_dict := getattr(frame, "to_dict", None)):
        return _iterable(to_dict(orient="records"))
    raise InvalidInput(f"rows: expected a data frame of pandas or polars, found {type(frame).__name__}")


def _iterable(found: object) -> Iterable[object]:
    return found if isinstance(found, list) else []


def _row(n: int, row: object, inputs: Collection[str]) -> Row:
    if not isinstance(row, Mapping):
        raise InvalidInput(f"row {n}: expected a mapping of features, found {type(row).__name__}")
    strange = [name for name in row if name not in inputs]
    if strange:
        raise InvalidInput(
            f"row {n}: the model takes no {strange[0]!r}: correct the name or leave it out; "
            f"it takes {', '.join(inputs)}"
        )
    return {name: _value(f"row {n}, {name}", value) for name, value in row.items()}


def _value(place: str, value: object) -> Json:
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas: missing, and of no type of Python's
        return None
    try:
        several = isinstance(value, list | tuple) or bool(getattr(value, "shape", ()))
        return plain(value, place) if several else scalar(value, place)
    except (TypeError, ValueError) as error:
        raise InvalidInput(str(error)) from None

"""Rows as columns: the one shape in which features travel between a request, a method and the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.errors import NotExplainable

__all__ = [
    "Columns",
    "Floats",
    "Predict",
    "concatenate",
    "factorise",
    "is_numeric",
    "plain",
    "repeat",
    "row_count",
    "take",
]

Columns = Mapping[str, NDArray[np.generic]]
"""Feature name → values, shape (rows,); numeric dtypes as the model takes them, or ``object`` holding ``str``."""

Floats = NDArray[np.float64]

Rows = slice | NDArray[np.integer | np.bool_] | Sequence[int]
"""Which rows: places, a range of them, or a mask."""

Predict = Callable[[Columns], NDArray[np.generic]]
"""The black box: columns of n rows → outputs, shape (n, outputs) or (n,)."""


def row_count(columns: Columns) -> int:
    """Rows of ``columns``; raises :class:`NotExplainable` if they differ in length or there are none."""
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths:
        raise NotExplainable("expected at least one feature column, found none")
    if len(set(lengths.values())) != 1:
        raise NotExplainable(f"expected columns of one length, found {lengths}")
    return next(iter(lengths.values()))


def is_numeric(values: NDArray[np.generic]) -> TypeGuard[NDArray[np.integer | np.floating]]:
    """Whether a column holds numbers; the others hold texts, as objects."""
    return values.dtype != object


def take(columns: Columns, index: Rows) -> dict[str, NDArray[np.generic]]:
    """Rows ``index`` (integers, slice or boolean mask) of every column."""
    return {name: values[index] for name, values in columns.items()}


def repeat(columns: Columns, times: int) -> dict[str, NDArray[np.generic]]:
    """Every row ``times`` times, one after another."""
    return {name: np.repeat(values, times) for name, values in columns.items()}


def concatenate(parts: Sequence[Columns]) -> dict[str, NDArray[np.generic]]:
    """Rows of all ``parts`` in order; the first part names the features."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def factorise(values: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Distinct values and int64 codes into them, shape (rows,). NaN equals NaN."""
    if values.dtype == object:
        index: dict[object, int] = {}
        codes = np.fromiter((index.setdefault(value, len(index)) for value in values), np.int64, len(values))
        distinct = np.empty(len(index), object)
        distinct[:] = list(index)
        return distinct, codes
    distinct, inverse = np.unique(values, return_inverse=True)
    return distinct, inverse.astype(np.int64).reshape(-1)


def plain(value: object) -> object:
    """A cell as JSON holds it: NaN and infinity become null, FP32 and FP16 the shortest number that is the same again
    when it is read (0.85, not 0.8500000238418579)."""
    if isinstance(value, (np.float32, np.float16)):
        value = float(str(value))
    elif isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""Columns on the wire: how values become a :class:`records.Column`, and numpy views of one.

Numeric columns are little-endian arrays; strings are codes into a dictionary, so that an auditor groups by integers.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from governed_api.datatypes import DATATYPES, NUMERIC
from governed_serving.journal.errors import RecordRefused
from governed_serving.records import Column

__all__ = ["DTYPES", "TENSOR_BYTES", "joined", "numbers", "pack", "pack_tensor", "strings"]

TENSOR_BYTES = 64 << 10
"""A larger tensor is kept as its digest: pictures and sounds would fill a spool within minutes."""

DTYPES: dict[str, np.dtype[np.generic]] = {name: np.dtype(d.numpy) for name, d in DATATYPES.items() if name in NUMERIC}
"""V2 datatypes of numeric columns."""

_CODES = np.dtype("<i4")
_U32 = struct.Struct("<I")
# array.array takes Python numbers several times faster than numpy does for the few rows of a request.
_FAST = {name: d.array for name, d in DATATYPES.items() if d.array} if sys.byteorder == "little" else {}

_LISTS = frozenset((list, tuple))
_TEXT = frozenset((str,))

Numbers = NDArray[np.bool_ | np.integer | np.floating]
"""What a column's bytes are read as."""

_Scalar = TypeVar("_Scalar", bound=np.generic)

Values = Sequence[object] | NDArray[np.generic]


def pack(dtype: str, width: int, parts: Sequence[Values], rows: int) -> Column:
    """One column of ``rows`` rows from the ``parts`` of several requests (each flat and row-major, or any ndarray).

    Raises :class:`RecordRefused` when a value isn't of ``dtype`` or the number of values isn't ``rows`` × ``width``.
    """
    if dtype == "BYTES":
        return _pack_strings(parts, rows * width, width)
    try:
        data = _numeric(dtype, parts)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise RecordRefused(f"expected values of {dtype} ({error})") from None
    expected = rows * width * DTYPES[dtype].itemsize
    if len(data) != expected:
        raise RecordRefused(f"expected {expected} bytes for {rows} rows × {width} of {dtype}, found {len(data)}")
    return Column(dtype, data, [], width)


def pack_tensor(dtype: str, values: NDArray[np.generic]) -> Column:
    """One tensor of any shape as the one row of its column, by digest beyond ``TENSOR_BYTES``."""
    shape = list(values.shape)
    if dtype == "BYTES":
        texts = [_text(value) for value in values.ravel().tolist()]
        parts = [text.encode() for text in texts]
        if sum(map(len, parts)) + 4 * len(parts) > TENSOR_BYTES:
            digest = sha256(b"".join([_U32.pack(len(part)) + part for part in parts])).hexdigest()
            return Column(dtype, b"", [], values.size, shape, digest)
        column = _pack_strings([texts], values.size, values.size)
        return Column(dtype, column.data, column.values, values.size, shape)
    data = np.ascontiguousarray(values, DTYPES[dtype]).tobytes()
    if len(data) > TENSOR_BYTES:
        return Column(dtype, b"", [], values.size, shape, sha256(data).hexdigest())
    return Column(dtype, data, [], values.size, shape)


def numbers(column: Column) -> Numbers:
    """Read-only view of a numeric column, shape (rows,) or (rows, width). For strings: the codes, int32."""
    values = np.frombuffer(column.data, _CODES if column.dtype == "BYTES" else DTYPES[column.dtype])
    return _by_row(values, column.width)


def strings(column: Column) -> NDArray[np.object_]:
    """The strings of a BYTES column, row by row, object array."""
    words: NDArray[np.object_] = np.array(column.values, dtype=object)
    return words.take(_by_row(np.frombuffer(column.data, _CODES), column.width))


def _by_row(values: NDArray[_Scalar], width: int) -> NDArray[_Scalar]:
    """Shape (rows,) where a row has one value, else (rows, width)."""
    if width == 1:
        return values
    return values.reshape(len(values) // width if width else 1, width)


def joined(columns: Sequence[Column]) -> Column:
    """The rows of several columns of one dtype and width, one after another."""
    first = columns[0]
    if first.dtype != "BYTES":
        return Column(first.dtype, b"".join([column.data for column in columns]), [], first.width)
    index: dict[str, int] = {}
    code, size = index.setdefault, index.__len__
    parts = []
    for column in columns:
        codes = np.array([code(word, size()) for word in column.values], _CODES)
        parts.append(codes[np.frombuffer(column.data, _CODES)].tobytes())
    return Column("BYTES", b"".join(parts), [*index], first.width)


def _numeric(dtype: str, parts: Sequence[Values]) -> bytes:
    code = _FAST.get(dtype)
    if code is not None and _LISTS.issuperset(map(type, parts)):
        try:
            return array(code, [*chain.from_iterable(parts)]).tobytes()
        except TypeError:  # None (a missing value) or nested rows: numpy knows what to do
            pass
    kind = DTYPES[dtype]
    return b"".join([np.ascontiguousarray(part, kind).tobytes() for part in parts])


def _pack_strings(parts: Sequence[Values], count: int, width: int) -> Column:
    if not _LISTS.issuperset(map(type, parts)):
        parts = [p.ravel().tolist() if isinstance(p, np.ndarray) else p for p in parts]
    index: dict[Any, int] = {}
    code, size = index.setdefault, index.__len__
    codes = array("i", [code(v, size()) for v in chain.from_iterable(parts)])
    if not _TEXT.issuperset(map(type, index)):
        return _pack_strings([[_text(v) for v in chain.from_iterable(parts)]], count, width)
    if len(codes) != count:
        raise RecordRefused(f"expected {count} strings, found {len(codes)}")
    return Column("BYTES", codes.tobytes(), [*index], width)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None:
        return ""
    raise RecordRefused(f"expected a string, found {type(value).__name__}")

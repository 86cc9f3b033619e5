"""The binary tensor data extension of V2: raw little-endian tensors after the JSON.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md (from Triton's)
"""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.server.errors import InvalidRequest
from governed_serving.server.signature import NUMPY

__all__ = ["HEADER", "pack", "unpack"]

HEADER = "inference-header-content-length"
"""Length of the JSON part in bytes."""

_LENGTH = struct.Struct("<I")


def unpack(name: str, datatype: str, data: memoryview, elements: int) -> NDArray[Any]:
    """The tensor in ``data``, flat; BYTES as an object array of str. Raises InvalidRequest."""
    dtype = NUMPY.get(datatype)
    if dtype is None:
        raise InvalidRequest(
            f"input {name!r}: expected a V2 datatype, found {datatype!r}; use one of {', '.join(NUMPY)}"
        )
    if datatype == "BYTES":
        return _strings(name, data, elements)
    if len(data) != elements * dtype.itemsize:
        raise InvalidRequest(
            f"input {name!r}: expected binary_data_size {elements * dtype.itemsize} for {elements} × {datatype}, found {len(data)}"
        )
    return np.frombuffer(data, dtype)


def _strings(name: str, data: memoryview, elements: int) -> NDArray[Any]:
    out = np.empty(elements, object)
    at = 0
    for k in range(elements):
        if at + 4 > len(data):
            raise InvalidRequest(f"input {name!r}: expected {elements} strings in its binary data, found {k}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise InvalidRequest(f"input {name!r}: string {k} claims {length} bytes, found {len(data) - at}")
        try:
            out[k] = str(data[at : at + length], "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input {name!r}: expected UTF-8 in string {k}, found byte 0x{data[at + error.start]:02x}"
            ) from error
        at += length
    if at != len(data):
        raise InvalidRequest(
            f"input {name!r}: expected its binary data to end after {elements} strings, found {len(data) - at} more bytes"
        )
    return out


def pack(datatype: str, values: Iterable[Any]) -> bytes:
    """Inverse of :func:`unpack`."""
    if datatype != "BYTES":
        return np.asarray(values, NUMPY[datatype]).tobytes()
    parts = []
    for value in values:
        raw = str(value).encode()
        parts += [_LENGTH.pack(len(raw)), raw]
    return b"".join(parts)

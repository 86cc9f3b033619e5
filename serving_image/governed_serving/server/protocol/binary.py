"""The binary tensor data extension of V2: raw little-endian tensors after the JSON.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md (from
Triton's)
"""

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.protocol.shapes import quoted
from governed_serving.server.signature import NUMPY

__all__ = ["HEADER", "coded", "least_size", "pack", "unpack"]

HEADER = "inference-header-content-length"
"""Length of the JSON part in bytes."""

_LENGTH = struct.Struct("<I")


def least_size(name: str, datatype: str) -> int:
    """Bytes that one element takes at least. Raises InvalidRequest for a datatype that V2 doesn't have."""
    dtype = NUMPY.get(datatype)
    if dtype is None:
        raise InvalidRequest(
            f"input {quoted(name)}: expected a V2 datatype, found {quoted(datatype)}; use one of {', '.join(NUMPY)}"
        )
    return _LENGTH.size if datatype == "BYTES" else dtype.itemsize


def unpack(name: str, datatype: str, data: memoryview, elements: int) -> NDArray[np.generic]:
    """The tensor in ``data``, flat; BYTES as an object array of str. Raises InvalidRequest."""
    least_size(name, datatype)
    dtype = NUMPY[datatype]
    if datatype == "BYTES":
        return _strings(name, data, elements)
    if len(data) != elements * dtype.itemsize:
        raise InvalidRequest(
            f"input {quoted(name)}: expected binary_data_size {elements * dtype.itemsize} for {elements} × "
            f"{datatype}, found {len(data)}"
        )
    return np.frombuffer(data, dtype)


def coded(name: str, dictionary: object, data: memoryview, elements: int) -> NDArray[np.generic]:
    """Strings as int32 codes into the parameter ``dictionary`` of their tensor: ours beyond V2, for columns of few
    distinct texts.

    The explainer's batches are such, and decoding them string by string would hold up the requests behind them. Raises
    InvalidRequest.
    """
    if not isinstance(dictionary, list) or not all(isinstance(word, str) for word in dictionary):
        raise InvalidRequest(
            f"input {quoted(name)}: expected a list of strings in its parameter dictionary, found another kind"
        )
    codes = unpack(name, "INT32", data, elements)
    least, most = (int(codes.min()), int(codes.max())) if elements else (0, -1)
    if least < 0 or most >= len(dictionary):
        raise InvalidRequest(
            f"input {quoted(name)}: expected codes from 0 to {len(dictionary) - 1} into its dictionary, found "
            f"{least} to {most}"
        )
    words = np.empty(len(dictionary), object)
    words[:] = dictionary
    texts: NDArray[np.generic] = words[codes]
    return texts


def _strings(name: str, data: memoryview, elements: int) -> NDArray[np.generic]:
    out = np.empty(elements, object)
    at = 0
    for k in range(elements):
        if at + 4 > len(data):
            raise InvalidRequest(f"input {quoted(name)}: expected {elements} strings in its binary data, found {k}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise InvalidRequest(f"input {quoted(name)}: string {k} claims {length} bytes, found {len(data) - at}")
        try:
            out[k] = str(data[at : at + length], "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input {quoted(name)}: expected UTF-8 in string {k}, found byte 0x{data[at + error.start]:02x}"
            ) from error
        at += length
    if at != len(data):
        raise InvalidRequest(
            f"input {quoted(name)}: expected its binary data to end after {elements} strings, found "
            f"{len(data) - at} more bytes"
        )
    return out


def pack(datatype: str, values: Iterable[Scalar]) -> bytes:
    """Inverse of :func:`unpack`."""
    if datatype != "BYTES":
        return np.asarray(values, NUMPY[datatype]).tobytes()
    parts = []
    for value in values:
        raw = str(value).encode()
        parts += [_LENGTH.pack(len(raw)), raw]
    return b"".join(parts)

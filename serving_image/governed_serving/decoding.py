"""Bytes that others wrote, decoded: whatever is wrong with them is a ``msgspec.DecodeError``, never another exception.

msgspec raises RecursionError for JSON that nests about a thousand deep and UnicodeDecodeError for some invalid bytes. A
caller that expects DecodeError alone would answer such input with a traceback, or end the thread that reads it from a
journal.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, overload

import msgspec

from governed_api.json_types import Json
from governed_api.strict_json import strict_json

__all__ = [
    "MAX_DEPTH",
    "NestedOtherwise",
    "decode_json",
    "decode_msgpack",
    "decode_strict_json",
    "decode_with",
    "flatten",
    "nested_beyond",
]

T = TypeVar("T")

MAX_DEPTH = 64
"""Arrays and objects within one another that a request may have where its schema leaves them open."""


def decode_with(decoder: "msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]", data: bytes | memoryview) -> T:
    """``data`` as ``decoder`` wants it. Raises msgspec.DecodeError (its subclass ValidationError for a wrong type)."""
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("it nests too deeply") from error
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"expected UTF-8, found byte 0x{error.object[error.start]:02x}") from error


_json: dict[object, "msgspec.json.Decoder[Any]"] = {}
_msgpack: dict[object, "msgspec.msgpack.Decoder[Any]"] = {}


@overload
def decode_json(data: bytes | memoryview | str) -> Any: ...
@overload
def decode_json(data: bytes | memoryview | str, type: type[T]) -> T: ...
def decode_json(data: bytes | memoryview | str, type: Any = Any) -> Any:
    """JSON as ``type`` (default: dicts, lists, strings, numbers). Raises msgspec.DecodeError."""
    decoder = _json.get(type)
    if decoder is None:
        decoder = _json[type] = msgspec.json.Decoder(type)
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError as error:  # a lone surrogate
            raise msgspec.DecodeError(f"expected Unicode text, found a lone surrogate at {error.start}") from error
    return decode_with(decoder, data)


def decode_strict_json(data: bytes) -> Json:
    """JSON that every parser reads alike, such as what was signed. Raises msgspec.DecodeError."""
    try:
        return strict_json(data)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


@overload
def decode_msgpack(data: bytes | memoryview) -> Any: ...
@overload
def decode_msgpack(data: bytes | memoryview, type: type[T]) -> T: ...
def decode_msgpack(data: bytes | memoryview, type: Any = Any) -> Any:
    """MessagePack as ``type``. Raises msgspec.DecodeError."""
    decoder = _msgpack.get(type)
    if decoder is None:
        decoder = _msgpack[type] = msgspec.msgpack.Decoder(type)
    return decode_with(decoder, data)


def nested_beyond(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether lists and dicts lie more than ``depth`` deep in ``value``: what walks it recursively would fail on it."""
    level: list[object] = [value]
    for _ in range(depth):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                below.extend(v for v in item if isinstance(v, (dict, list)))
        if not below:
            return False
        level = below
    return True


class NestedOtherwise(ValueError):
    """Data that is neither flat nor nested as its shape says; the message says what was expected and found."""


def flatten(shape: Sequence[int], data: Sequence[Any]) -> list[Any]:
    """A tensor's ``data`` in row-major order: flat, or nested exactly as ``shape`` says. Raises NestedOtherwise."""
    if not any(isinstance(item, list) for item in data):
        return list(data)
    level: list[Any] = [list(data)]
    for size in shape:
        below: list[Any] = []
        for item in level:
            if not isinstance(item, list) or len(item) != size:
                actual = f"{len(item)} values" if isinstance(item, list) else "a single value"
                raise NestedOtherwise(f"{_expected(shape)} or flat data, found {actual} where {size} belong")
            below.extend(item)
        level = below
    if any(isinstance(item, list) for item in level):
        raise NestedOtherwise(f"{_expected(shape)}, found it nested more deeply")
    return level


def _expected(shape: Sequence[int]) -> str:
    shown = repr(list(shape))
    return f"expected nested data of shape {shown if len(shown) <= 80 else f'{shown[:80]}…'}"

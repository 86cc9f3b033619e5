"""Sizes that a client claims, judged before anything is computed or allocated from them."""

from collections.abc import Sequence
from typing import Any

from governed_api.names import request_id_fault
from governed_serving.decoding import NestedOtherwise, flatten
from governed_serving.server.errors import InvalidRequest

__all__ = ["MAX_DIMENSION", "MAX_ELEMENTS", "MAX_RANK", "elements", "flattened", "identity", "quoted"]

MAX_RANK = 8
MAX_DIMENSION = MAX_ELEMENTS = 2**31 - 1


def quoted(text: object, limit: int = 80) -> str:
    """``text`` for a message: what a client sent may be of any length."""
    shown = repr(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown)} characters)"


def identity(text: str | None, field: str = "id") -> str:
    """A client's id of its request, "" for none; ``field`` is where it stood. Raises InvalidRequest."""
    if not text:
        return ""
    if fault := request_id_fault(text):
        raise InvalidRequest(f"{field}: {fault}; shorten it or leave it out")
    return text


def elements(name: str, shape: Sequence[int], available: int, least_size: int) -> int:
    """Elements of ``shape``, of which ``available`` bytes hold the data, each at least ``least_size`` bytes. Raises
    InvalidRequest."""
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"input {quoted(name)}: expected at most {MAX_RANK} dimensions, found {len(shape)}")
    count = 1
    for size in shape:
        if size > MAX_DIMENSION:
            raise InvalidRequest(
                f"input {quoted(name)}: expected dimensions of at most {MAX_DIMENSION}, found {quoted(size)}"
            )
        count *= max(size, 0)
    if count * least_size > available:
        raise InvalidRequest(
            f"input {quoted(name)}: expected binary_data_size {count * least_size} or more for {count} values of shape "
            f"{list(shape)}, found {available}"
        )
    return count


def flattened(name: str, shape: Sequence[int], data: Sequence[Any]) -> list[Any]:
    """As :func:`governed_serving.decoding.flatten`, of the input ``name``. Raises InvalidRequest."""
    try:
        return flatten(shape, data)
    except NestedOtherwise as error:
        raise InvalidRequest(f"input {quoted(name)}: {error}") from None

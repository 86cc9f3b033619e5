"""Sizes that a client claims, judged before anything is computed or allocated from them."""

from collections.abc import Sequence
from typing import Any

from governed_api.names import request_id_fault
from governed_serving.server.errors import InvalidRequest

__all__ = ["MAX_DIMENSION", "MAX_ELEMENTS", "MAX_RANK", "elements", "flatten", "identity", "quoted"]

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
    """Elements of ``shape``, of which ``available`` bytes hold the data, each at least ``least_size`` bytes. Raises InvalidRequest."""
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


def flatten(name: str, shape: Sequence[int], data: Sequence[Any]) -> list[Any]:
    """``data`` in row-major order: flat, or nested exactly as ``shape`` says. Raises InvalidRequest."""
    if not any(isinstance(item, list) for item in data):
        return list(data)
    level: list[Any] = [list(data)]
    for size in shape:
        below: list[Any] = []
        for item in level:
            if not isinstance(item, list) or len(item) != size:
                found = f"{len(item)} values" if isinstance(item, list) else "a single value"
                raise InvalidRequest(
                    f"input {quoted(name)}: expected nested data of shape {quoted(list(shape))} or flat data, "
                    f"found {found} where {size} belong"
                )
            below.extend(item)
        level = below
    if any(isinstance(item, list) for item in level):
        raise InvalidRequest(
            f"input {quoted(name)}: expected nested data of shape {quoted(list(shape))}, found it nested more deeply"
        )
    return level

"""Bodies as they arrive: counted by what came, refused in the route's own words, and never taken for whole when they
were cut."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from governed_serving.hosting.bodies import BodyLimit, body_chunks, read_body


class TooLong(Exception):
    """A route's own error."""


class Cut(Exception):
    """Another."""


def receiving(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


GONE = {"type": "http.disconnect"}
WHOLE = [
    ((piece(b"", False),), b""),
    (({"type": "http.request"},), b""),
    ((piece(b"ab", False),), b"ab"),
    ((piece(b"a"), piece(b""), piece(b"b"), piece(b"", False), GONE), b"ab"),
]


@pytest.mark.parametrize(("messages", "body"), WHOLE)
async def test_a_whole_body_is_read_to_its_end_and_not_beyond(messages: Any, body: bytes) -> None:
    assert await read_body(receiving(*messages), BodyLimit(2, TooLong), Cut) == body
    assert b"".join([chunk async for chunk in body_chunks(receiving(*messages), Cut)]) == body


@pytest.mark.parametrize("messages", [(GONE,), (piece(b"ab"), GONE), (piece(b""), piece(b"a"), GONE)])
async def test_a_body_that_was_cut_is_none(messages: Any) -> None:
    with pytest.raises(Cut, match="expected its end, found the connection closed"):
        await read_body(receiving(*messages), BodyLimit(9, TooLong), Cut)
    with pytest.raises(Cut, match="expected its end, found the connection closed"):
        [chunk async for chunk in body_chunks(receiving(*messages), Cut)]


@pytest.mark.parametrize(("sizes", "found"), [((4,), "4"), ((3, 1), "4"), ((1, 1, 1, 7), "10")])
async def test_more_than_the_limit_is_refused_as_soon_as_it_has_come(sizes: tuple[int, ...], found: str) -> None:
    receive = receiving(*(piece(b"x" * size) for size in sizes))  # and nothing behind it: reading on would fail
    with pytest.raises(TooLong, match=f"^{found}$"):
        await read_body(receive, BodyLimit(3, TooLong), Cut)

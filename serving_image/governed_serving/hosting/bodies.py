"""Bodies of requests as they arrive over ASGI: counted by what came, not by what a header promises."""

from collections.abc import AsyncIterator, Callable

from starlette.types import Receive

__all__ = ["CUT", "BodyLimit", "body_chunks", "read_body"]

CUT = "request body: expected its end, found the connection closed"
"""What is wrong with a body whose client went."""


class BodyLimit:
    """Counts the bytes of one body. ``too_long(count)`` is the route's own error beyond ``limit``."""

    def __init__(self, limit: int, too_long: Callable[[int], Exception]) -> None:
        self._limit, self._too_long, self._size = limit, too_long, 0

    def __call__(self, size: int) -> None:
        """``size`` more bytes have come. Raises what ``too_long`` makes."""
        self._size += size
        if self._size > self._limit:
            raise self._too_long(self._size)


async def body_chunks(receive: Receive, cut: Callable[[str], Exception]) -> AsyncIterator[bytes]:
    """The body's pieces as they come. Raises ``cut(message)`` when the client goes before its end: half a body is
    none."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise cut(CUT)
        if chunk := message.get("body", b""):
            yield chunk
        more = message.get("more_body", False)


async def read_body(receive: Receive, arrived: Callable[[int], None], cut: Callable[[str], Exception]) -> bytes:
    """The whole body. ``arrived`` is told the size of each piece and raises when it is too much (:class:`BodyLimit`).

    Raises that, and ``cut(message)`` as :func:`body_chunks` does.
    """
    parts: list[bytes] = []
    more = True
    while more:  # not over body_chunks: a generator costs the fast path as much as all else here
        message = await receive()
        if message["type"] == "http.disconnect":
            raise cut(CUT)
        parts.append(message.get("body", b""))
        arrived(len(parts[-1]))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)

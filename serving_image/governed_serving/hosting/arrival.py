"""How long a request may take to arrive, and its answer to be taken: the slow hold memory that others need."""

import asyncio

__all__ = [
    "BODY_LATE",
    "BODY_SECONDS",
    "HEAD_LATE",
    "HEAD_SECONDS",
    "LEAST_RATE",
    "WRITE_SECONDS",
    "Progress",
    "Unread",
]

HEAD_SECONDS = 10.0
"""From a request's first byte to the end of its head."""
BODY_SECONDS = 20.0
"""In which at least ``BODY_SECONDS`` × ``LEAST_RATE`` bytes of a body must come, or its end."""
LEAST_RATE = 16 * 1024
WRITE_SECONDS = 30.0
"""For which a client may leave an answer unread while it fills our buffers."""
HEAD_LATE = f"request head: expected its end within {HEAD_SECONDS:g} s, found it unfinished"
BODY_LATE = "request body: expected it to arrive faster, found it unfinished; send it again"


class Unread:
    """Ends a connection whose client leaves its answers unread: closed, it would wait for its buffer to be taken."""

    __slots__ = ("_timer",)

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        """Our buffer is full."""
        if self._timer is None:
            self._timer = loop.call_later(WRITE_SECONDS, transport.abort)

    def end(self) -> None:
        """It has room again, or the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Progress:
    """Whether a body keeps coming: bytes that came early excuse no silence later. Times in seconds of one clock."""

    __slots__ = ("_mark", "_since")

    def __init__(self, now: float) -> None:
        self._mark, self._since = 0, now

    def late(self, now: float, received: int) -> bool:
        """Whether a body of which ``received`` bytes came by ``now`` comes too slowly."""
        if received - self._mark >= LEAST_RATE * BODY_SECONDS:
            self._mark, self._since = received, now
        return now - self._since > BODY_SECONDS

    def excuse(self, seconds: float) -> None:
        """We didn't read for so long."""
        self._since += seconds

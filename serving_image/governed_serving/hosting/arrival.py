"""How long a request may take to arrive: what comes too slowly holds a connection and memory that others need."""

__all__ = ["BODY_SECONDS", "HEAD_SECONDS", "LEAST_RATE", "WRITE_SECONDS", "Progress"]

HEAD_SECONDS = 10.0
"""From a request's first byte to the end of its head."""
BODY_SECONDS = 20.0
"""In which at least ``BODY_SECONDS`` × ``LEAST_RATE`` bytes of a body must come, or its end."""
LEAST_RATE = 16 * 1024
WRITE_SECONDS = 30.0
"""For which a client may leave an answer unread while it fills our buffers."""


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

"""How long a request may take to arrive: what comes too slowly holds a connection and memory that others need."""

__all__ = ["BODY_SECONDS", "HEAD_SECONDS", "LEAST_RATE", "body_deadline"]

HEAD_SECONDS = 10.0
"""From a request's first byte to the end of its head."""
BODY_SECONDS = 20.0
"""For a body, and one second more for each ``LEAST_RATE`` bytes of it that came."""
LEAST_RATE = 16 * 1024


def body_deadline(began: float, received: int) -> float:
    """When a body must have ended that began at ``began`` (seconds) and of which ``received`` bytes came."""
    return began + BODY_SECONDS + received / LEAST_RATE

"""A route of its own protocol beside ours (OpenAI's)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["JsonRoute", "Stream"]


@dataclass(frozen=True)
class Stream:
    """An answer that comes in pieces (server-sent events)."""

    id: str
    pieces: AsyncIterator[bytes]


class JsonRoute(Protocol):
    """Answers POST bodies; ``path`` is below the upstream, such as ``/v1/chat/completions``."""

    async def answer(self, path: str, body: bytes) -> "tuple[str, bytes] | Stream":
        """(request id, JSON), or a stream. Raises ServerError."""

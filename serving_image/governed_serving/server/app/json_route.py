"""A route of its own protocol beside ours (OpenAI's)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from governed_serving.server.explanation import Proxied

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

    async def internal(self, path: str, body: bytes) -> bytes:
        """The runtime's own answer for the explainer, ungoverned and behind every request. Raises ServerError."""

    async def explain(self, body: bytes, *, later: bool) -> Proxied:
        """A governed completion and its explanation, or a ticket for it. Raises ServerError."""

    async def read_explainer(self, path: str) -> Proxied:
        """GET something of the explainer's. Raises ServerError."""

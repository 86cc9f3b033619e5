"""A route of its own protocol beside ours (OpenAI's)."""

from typing import Protocol

from governed_serving.access.directory import Known
from governed_serving.server.errors import Headers
from governed_serving.server.explanation import ExplainedCompletion, Explainer
from governed_serving.server.messages import Completed, Stream

__all__ = ["JsonRoute"]


class JsonRoute(Protocol):
    """Answers POST bodies; ``path`` is below the upstream, such as ``/v1/chat/completions``, ``request_id`` what the
    client calls its request."""

    async def answer(
        self, path: str, body: bytes, request_id: str = "", *, promise: bool = False, caller: Known | None = None
    ) -> Completed | Stream:
        """A whole answer, or a stream; ``promise``: with a signed one; ``caller``: who asks, where that is known.
        Raises ServerError."""

    async def internal(self, path: str, body: bytes) -> bytes:
        """The runtime's own answer for the explainer, ungoverned and behind every request. Raises ServerError."""

    async def explain(
        self, body: bytes, request_id: str = "", *, later: bool, caller: Known | None = None
    ) -> ExplainedCompletion:
        """A governed completion and its explanation, or a ticket for it. Raises ServerError."""

    def limits(self, caller: Known | None = None) -> Headers:
        """What answers tell of the quota."""

    def explaining(self) -> Explainer:
        """Raises NotFound for a model without explainer."""

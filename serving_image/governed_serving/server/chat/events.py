"""Server-sent events of a completion stream, as they pass."""

from collections.abc import Mapping
from typing import Any

import msgspec

from governed_serving.completions.generated import choice_text

__all__ = ["DONE", "Completion", "error_event"]

DONE = b"data: [DONE]\n\n"


def error_event(message: str) -> bytes:
    """An event that tells the client that the stream went wrong."""
    return b"data: " + msgspec.json.encode({"error": {"message": message, "type": "server_error"}}) + b"\n\n"


class Completion:
    """Gathers the text and the usage of an answer, whole or in chunks."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}
        self._answer: list[str] = []
        self._chunks = 0
        self.usage: int | None = None

    def take(self, answer: Mapping[str, Any]) -> None:
        """Add an answer or a chunk."""
        usage = answer.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("total_tokens"), int):
            self.usage = usage["total_tokens"]
        for choice in answer.get("choices") or []:
            text = choice_text(choice)
            if text:
                self._chunks += 1
                index = int(choice.get("index") or 0)
                self._parts.setdefault(index, []).append(text)
                if index == 0:
                    self._answer.append(choice_text(choice, reasoning=False))

    @property
    def text(self) -> str:
        """All choices, one after another."""
        return "\n".join("".join(parts) for _, parts in sorted(self._parts.items()))

    @property
    def answer(self) -> str:
        """The first choice without the reasoning before it."""
        return "".join(self._answer)

    def tokens(self, prompt: int) -> int:
        """The runtime's own count; without one, ``prompt`` and a token per chunk or three bytes, whichever is more."""
        if self.usage is not None:
            return self.usage
        return prompt + max(self._chunks, -(-len(self.text.encode()) // 3))

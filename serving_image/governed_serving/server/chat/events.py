"""Server-sent events of a completion stream, as they pass."""

from typing import Any

import msgspec

__all__ = ["DONE", "Completion", "error_event"]

DONE = b"data: [DONE]\n\n"


def error_event(message: str) -> bytes:
    """An event that tells the client that the stream went wrong."""
    return b"data: " + msgspec.json.encode({"error": {"message": message, "type": "server_error"}}) + b"\n\n"


class Completion:
    """Gathers the text and the usage of an answer, whole or in chunks."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}
        self._chunks = 0
        self.usage: int | None = None

    def take(self, answer: dict[str, Any]) -> None:
        """Add an answer or a chunk."""
        usage = answer.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("total_tokens"), int):
            self.usage = usage["total_tokens"]
        for choice in answer.get("choices") or []:
            text = _text(choice)
            if text:
                self._chunks += 1
                self._parts.setdefault(int(choice.get("index") or 0), []).append(text)

    @property
    def text(self) -> str:
        """All choices, one after another."""
        return "\n".join("".join(parts) for _, parts in sorted(self._parts.items()))

    def tokens(self, prompt: int) -> int:
        """The runtime's own count; without one, ``prompt`` and a token per chunk or three bytes, whichever is more."""
        if self.usage is not None:
            return self.usage
        return prompt + max(self._chunks, -(-len(self.text.encode()) // 3))


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("delta") or choice.get("message") or {}
    pieces = [choice.get("text"), message.get("content"), message.get("reasoning_content"), message.get("refusal")]
    for call in message.get("tool_calls") or []:
        pieces.append((call.get("function") or {}).get("arguments"))
    return "".join(piece for piece in pieces if isinstance(piece, str))

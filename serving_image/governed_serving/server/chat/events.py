"""Server-sent events of a completion stream, as they pass."""

from collections.abc import Mapping
from typing import Any

import msgspec

from governed_serving.completions.generated import choice_texts
from governed_serving.hosting.answers import openai_error

__all__ = ["DONE", "Completion", "error_event", "promise_event"]

DONE = b"data: [DONE]\n\n"
_MOST = 1 << 40
"""Tokens of an answer that a runtime is believed."""


def error_event(message: str) -> bytes:
    """An event that tells the client that the stream went wrong."""
    return b"data: " + openai_error(message, 500) + b"\n\n"


def promise_event(id: str, model: str, promise: str, *, chat: bool) -> bytes:
    """The event before the last one: a chunk without choices, as that of the usage is, with ``ledger_promise``."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    chunk = {"id": id, "object": kind, "model": model, "choices": [], "ledger_promise": promise}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class Completion:
    """Gathers the text of an answer as the client gets it, and what the runtime used for it, whole or in chunks."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, list[str]]] = {}
        self._answer: list[str] = []
        self._chunks = self._bytes = 0
        self.usage: int | None = None
        self._told: Mapping[str, object] = {}

    def measure(self, answer: Mapping[str, Any]) -> None:
        """Count what the runtime says in an answer or a chunk that the client gets otherwise."""
        self._used(answer)
        for choice in answer.get("choices") or ():
            self._count(choice_texts(choice))

    def take(self, answer: Mapping[str, Any], *, measured: bool = False) -> None:
        """Add an answer or a chunk that the client gets. ``measured``: what it comes from was counted."""
        if not measured:
            self._used(answer)
        for choice in answer.get("choices") or ():
            index = int(choice.get("index") or 0)
            if not (texts := choice_texts(choice)):
                continue
            if not measured:
                self._count(texts)
            fields = self._parts.setdefault(index, {})
            for field, text in texts:
                fields.setdefault(field, []).append(text)
                if index == 0 and not field.startswith("reasoning"):
                    self._answer.append(text)

    def _used(self, answer: Mapping[str, Any]) -> None:
        usage = answer.get("usage")
        if isinstance(usage, dict) and type(total := usage.get("total_tokens")) is int and 0 <= total <= _MOST:
            self.usage = total
            self._told = usage

    def _count(self, texts: list[tuple[str, str]]) -> None:
        if texts:
            self._chunks += 1
            self._bytes += sum(len(text.encode(errors="surrogatepass")) for _, text in texts)

    @property
    def text(self) -> str:
        """All choices, one after another; of each its fields, as they began."""
        return "\n".join(
            "".join(part for parts in fields.values() for part in parts) for _, fields in sorted(self._parts.items())
        )

    @property
    def answer(self) -> str:
        """The first choice without the reasoning before it."""
        return "".join(self._answer)

    def tokens(self, prompt: int) -> int:
        """The runtime's own count; without one, ``prompt`` and a token per chunk or three bytes, whichever is more."""
        if self.usage is not None:
            return self.usage
        return prompt + max(self._chunks, -(-self._bytes // 3))

    def read(self, prompt: int, total: int) -> tuple[int, int]:
        """Of ``total`` tokens those that the runtime read (without its word ``prompt``), and of them those that it says
        it had cached."""
        told, details = self._told.get("prompt_tokens"), self._told.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        read = min(max(told if type(told) is int else prompt, 0), total)
        return read, min(max(cached if type(cached) is int else 0, 0), read)

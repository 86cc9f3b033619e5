"""Bodies of /v1/chat/completions and /v1/completions: which strings they hold, what they may cost."""

import re
from collections.abc import Container, Iterator
from itertools import chain, count

import msgspec

from governed_api import routes
from governed_api.json_types import Json
from governed_serving.server.errors import InvalidRequest, NotFound
from governed_serving.server.protocol.json_errors import decode_object

__all__ = [
    "CHAT", "COMPLETIONS", "SPOKEN", "Message", "budget", "choices", "decode", "is_long", "places", "prompt_text", "strings", "unused", "with_places"  # noqa: E501
]  # fmt: skip

Message = dict[str, Json]
"""A body of OpenAI's protocol: its fields are the runtime's, and more than we know."""

CHAT, COMPLETIONS = routes.CHAT_COMPLETIONS, routes.COMPLETIONS
DEFAULT_TOKENS = 1024
"""max_tokens of a request that names none, where tokens are limited: what isn't bounded can't be reserved."""
_MESSAGE_OVERHEAD = 8
_BYTES_PER_TOKEN = 3
_LARGEST = 1_000_000


def decode(path: str, body: bytes, model: str, *, masked: bool) -> Message:
    """The request. Raises InvalidRequest, NotFound (another model)."""
    message = decode_object(body, "an OpenAI request")
    _check_kinds(message)
    field = "messages" if path == CHAT else "prompt"
    content = message.get(field)
    if not content or not isinstance(content, list if path == CHAT else (str, list)):
        raise InvalidRequest(
            f"{field}: expected {'a list of messages' if path == CHAT else 'text'}, found {_kind(content)}"
        )
    if message.get("model", model) != model:
        raise NotFound(
            f"model {message['model']!r}: expected {model!r}, the one served here; correct it or leave it out"
        )
    if masked:
        _check_maskable(message)
    return message


def _kind(value: Json) -> str:
    return "nothing" if not value else type(value).__name__


_KINDS: dict[str, tuple[type, str]] = {
    "model": (str, "a string"),
    "stream": (bool, "true or false"),
    "stream_options": (dict, "an object"),
    "metadata": (dict, "an object of strings"),
}
"""Optional fields that are read here; null is as good as nothing."""


def _check_kinds(message: Message) -> None:
    for field, (kind, words) in _KINDS.items():
        value = message.get(field)
        if value is not None and not isinstance(value, kind):
            raise InvalidRequest(f"{field}: expected {words}, found {type(value).__name__}")
    messages = message.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise InvalidRequest(f"messages: expected a list of messages, found {type(messages).__name__}")
    if messages:
        for number, item in enumerate(messages):
            if not isinstance(item, dict):
                raise InvalidRequest(f"messages[{number}]: expected an object, found {type(item).__name__}")


def _check_maskable(message: Message) -> None:
    """Token ids and pictures can't be searched for personal data: refused (fails closed)."""
    prompt = message.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(item, str) for item in prompt):
        raise InvalidRequest("prompt: expected text, found token ids, which can't be masked; send strings")
    for number, part in enumerate(_listed(message)):
        content = part.get("content") if isinstance(part, dict) else None
        for piece in content if isinstance(content, list) else []:
            kind = piece.get("type") if isinstance(piece, dict) else None
            if kind != "text":
                raise InvalidRequest(
                    f"messages[{number}].content: expected text parts, found {kind!r}, which can't be masked"
                )


def _listed(message: Message) -> list[Json]:
    """Its messages; none where it has a prompt."""
    messages = message.get("messages")
    return messages if isinstance(messages, list) else []


def strings(value: Json) -> Iterator[str]:
    """Every string in ``value``, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


SPOKEN = re.compile(r"messages\[\d+\]\.content(\[\d+\]\.text)?")
"""Places of what is read one after another."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,63}")
_LEAST_NUMBER = 10**6
"""A number with fewer digits is nobody's."""


def places(value: Json, at: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of all that personal data can be in: texts, keys, and numbers but those of the protocol itself;
    messages[0].content. A place names no key that isn't a word."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = key if _WORD.fullmatch(key) else "*"
            place = f"{at}.{inner}" if at else inner
            yield f"{place} (key)", key
            yield from places(item, place)
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from places(item, f"{at}[{k}]")
    elif is_long(value) and "." in at:
        yield at, str(value)


def is_long(value: Json) -> bool:
    """A number of so many digits that it could be an entity."""
    return isinstance(value, int | float) and abs(value) >= _LEAST_NUMBER


def with_places(message: Message, replacements: Iterator[str]) -> Message:
    """``message`` with what :func:`places` gives replaced, in its order; a number that is changed becomes a text."""
    return _object(message, "", replacements)


def _object(value: dict[str, Json], at: str, replacements: Iterator[str]) -> dict[str, Json]:
    out: dict[str, Json] = {}
    for key, item in value.items():
        name = unused(next(replacements), out) if key else next(replacements)
        out[name] = _replaced(item, f"{at}.{key}" if at else key, replacements)
    return out


def unused(name: str, taken: Container[str]) -> str:
    """``name``, or, where two keys are masked alike, one that isn't taken."""
    return next(candidate for candidate in chain([name], (f"{name} {k}" for k in count(2))) if candidate not in taken)


def _replaced(value: Json, at: str, replacements: Iterator[str]) -> Json:
    if isinstance(value, str):
        return next(replacements)
    if isinstance(value, dict):
        return _object(value, at, replacements)
    if isinstance(value, list):
        return [_replaced(item, f"{at}[]", replacements) for item in value]
    if is_long(value) and "." in at:
        text = next(replacements)
        return value if text == str(value) else text
    return value


def prompt_text(path: str, message: Message) -> str:
    """What the journal keeps of the request: its messages as JSON, or its prompt."""
    content = message["messages" if path == CHAT else "prompt"]
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def budget(path: str, message: Message) -> tuple[int, int]:
    """(tokens to reserve, max_tokens per choice). Raises InvalidRequest for numbers that aren't."""
    names = ("max_completion_tokens", "max_tokens")
    limit = next((message[n] for n in names if message.get(n) is not None), DEFAULT_TOKENS)
    choices = max(_count(message.get("n") or 1, "n"), _count(message.get("best_of") or 1, "best_of"))
    prompt = message["prompt"] if path == COMPLETIONS else None
    prompts = len(prompt) if isinstance(prompt, list) else 1
    most = _count(limit, "max_tokens")
    asked = sum(len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in strings(message))
    asked += _MESSAGE_OVERHEAD * len(_listed(message))
    return asked + choices * most * max(1, prompts), most


def choices(path: str, message: Message) -> int:
    """How many choices an answer has. Raises InvalidRequest."""
    prompt = message["prompt"] if path == COMPLETIONS else None
    many = isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt)
    return _count(message.get("n") or 1, "n") * (len(prompt) if many and isinstance(prompt, list) else 1)


def _count(value: Json, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        shown = repr(value) if isinstance(value, int | float) else type(value).__name__
        raise InvalidRequest(f"{name}: expected a whole number from 1 to {_LARGEST}, found {shown}")
    return value

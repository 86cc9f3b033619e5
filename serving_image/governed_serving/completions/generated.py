"""Generated text as it is audited: the pattern that says whether it favours, the records that hold it, and the request
replayed.

The gateway journals each completion in frames of its own, ``started`` and then ``complete`` or ``cut``; only a complete
one is a decision.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import re2
from numpy.typing import NDArray

from governed_api import routes
from governed_api.json_types import Json
from governed_serving.decoding import decode_json
from governed_serving.journal import numbers, strings
from governed_serving.records import Column, PredictionFrame

__all__ = [
    "MASKED",
    "PARAMETERS",
    "PROMPT",
    "Asked",
    "PatternRefused",
    "Search",
    "answer_of",
    "choice_content",
    "choice_number",
    "choice_text",
    "choice_texts",
    "content_digest",
    "outcomes_of",
    "put_again",
    "said_by_all",
    "said_in",
    "searcher",
    "state_of",
    "swapped",
]

PROMPT, PARAMETERS = "prompt", "parameters"
"""Features of a completion's record beside its attributes."""
MASKED = "masked"
"""Output of a completion's record: JSON of where something was masked, in the request and in the answer → entity → how
often; never what it was. Absent where nothing was."""

CHAT, COMPLETIONS = routes.CHAT_COMPLETIONS, routes.COMPLETIONS

MOST_TOKENS = 2048
"""Tokens that a replayed request may generate."""

_NOT_AGAIN = frozenset(
    [
        "messages",
        "prompt",
        "model",
        "stream",
        "stream_options",
        "n",
        "best_of",
        "echo",
        "logprobs",
        "top_logprobs",
        "user",
        "store",
    ]
)
"""Fields of a request that say nothing of the first choice's text, or who asked."""

State = Literal["", "started", "complete", "cut"]
Search = Callable[[str], bool]
Choice = Mapping[str, Any]
"""Of an answer or a chunk, as the runtime shaped it."""


class PatternRefused(ValueError):
    """governance.bias.favorableOutcome.pattern is no RE2 expression."""


@lru_cache(maxsize=16)
def searcher(pattern: str) -> Search:
    """Whether ``pattern`` is found in a text, in time linear in it. Raises PatternRefused."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise PatternRefused(
            f"governance.bias.favorableOutcome.pattern: expected an RE2 expression, found {pattern!r} ({why}); correct it"  # noqa: E501
        ) from error
    return lambda text: compiled.search(text) is not None


_ANSWERED = ("content", "refusal")
_SAID = ("content", "reasoning_content", "reasoning", "refusal")


def choice_texts(choice: Choice, *, reasoning: bool = True) -> list[tuple[str, str]]:
    """(field, text) of what was generated in a choice of an answer or of a chunk, with the ``reasoning`` beside the
    answer or without."""
    message = choice.get("delta") or choice.get("message") or {}
    texts = [("text", text)] if isinstance(text := choice.get("text"), str) and text else []
    for field in _SAID if reasoning else _ANSWERED:
        if isinstance(text := message.get(field), str) and text:
            texts.append((field, text))
    for place, call in enumerate(message.get("tool_calls") or ()):
        if isinstance(text := (call.get("function") or {}).get("arguments"), str) and text:
            texts.append((f"tool_calls[{call.get('index', place)}]", text))
    return texts


def choice_text(choice: Choice, *, reasoning: bool = True) -> str:
    """All of :func:`choice_texts`."""
    return "".join(text for _, text in choice_texts(choice, reasoning=reasoning))


def said_in(choice: Choice) -> dict[str, Json]:
    """The object that holds a chat's content; empty where there is none."""
    for name in ("delta", "message"):
        if isinstance(inner := choice.get(name), dict):
            return inner
    return {}


def choice_content(choice: Choice) -> str:
    """What a choice says to its reader, content in parts too: no reasoning, no refusal, no tool calls."""
    text = choice.get("text")
    content = text if isinstance(text, str) else said_in(choice).get("content")
    if isinstance(content, list):
        return "".join(
            words for part in content if isinstance(part, dict) and isinstance(words := part.get("text"), str)
        )
    return content if isinstance(content, str) else ""


def choice_number(choice: Choice, place: int) -> int:
    """Its own, or its ``place`` in the answer where it has none."""
    number = choice.get("index")
    return number if isinstance(number, int) else place


def said_by_all(contents: Mapping[int, str]) -> str:
    """Choice → content as one text, of which a label's metadata have the digest."""
    return "\n".join(text for _, text in sorted(contents.items()))


def content_digest(text: str) -> str:
    """``sha256:`` and the SHA-256 (hex) of a text in UTF-8."""
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def state_of(frame: PredictionFrame) -> State:
    """How far the completion of a frame had come; "" for a frame that holds none."""
    column = frame.outputs.get("state")
    if column is None or not column.values or "completion" not in frame.outputs:
        return ""
    state: State = str(strings(column)[0])  # type: ignore[assignment]
    return state


def _judged(frame: PredictionFrame) -> Column:
    """The first choice's answer: a column of its own where there were several choices, or reasoning before it."""
    return frame.outputs.get("answer") or frame.outputs["completion"]


def answer_of(frame: PredictionFrame) -> str:
    """The text that is judged."""
    return str(strings(_judged(frame))[0])


def outcomes_of(frame: PredictionFrame, search: Search) -> NDArray[np.bool_]:
    """Whether each generated text favours its person, shape (rows,)."""
    column = _judged(frame)
    matches = np.array([search(text) for text in column.values] or [False], np.bool_)
    return np.asarray(matches[numbers(column)])


class Asked(NamedTuple):
    """A request as the internal lane takes it."""

    path: str
    body: dict[str, Json]


def put_again(frame: PredictionFrame) -> Asked | None:
    """The request of a completion, to be asked again without chance (temperature 0) and with one choice; None for many
    prompts."""
    prompt = str(strings(frame.features[PROMPT])[0])
    kept = frame.features.get(PARAMETERS)
    parameters: dict[str, Json] = decode_json(str(strings(kept)[0]), type=dict[str, Any]) if kept else {}
    body = {name: value for name, value in parameters.items() if name not in _NOT_AGAIN}
    limit = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    body |= {"temperature": 0, limit: min(_whole(body.get(limit) or MOST_TOKENS), MOST_TOKENS)}
    try:
        content = decode_json(prompt)
    except msgspec.DecodeError:
        content = prompt
    if (
        isinstance(content, list)
        and content
        and all(isinstance(message, dict) and "role" in message for message in content)
    ):
        return Asked(CHAT, {**body, "messages": content})
    return None if isinstance(content, list) else Asked(COMPLETIONS, {**body, "prompt": prompt})


def _whole(value: Json) -> int:
    """Raises TypeError for what can't be a number."""
    if isinstance(value, (list, dict)) or value is None:
        raise TypeError(f"expected a number of tokens, found {type(value).__name__}")
    return int(value)


def swapped(asked: Asked, swap: Callable[[str], str]) -> Asked | None:
    """``asked`` with what the user said changed by ``swap``; None where that changes nothing."""
    prompt, messages = asked.body.get("prompt"), asked.body.get("messages")
    if isinstance(prompt, str):
        body = {**asked.body, "prompt": swap(prompt)}
    elif isinstance(messages, list):
        body = {
            **asked.body,
            "messages": [_message(message, swap) for message in messages if isinstance(message, dict)],
        }
    else:
        raise TypeError(f"{asked.path}: expected a prompt or messages, found neither")
    return None if body == asked.body else Asked(asked.path, body)


def _message(message: dict[str, Json], swap: Callable[[str], str]) -> dict[str, Json]:
    content = message.get("content")
    if message["role"] != "user":
        return message
    if isinstance(content, str):
        return {**message, "content": swap(content)}
    return {**message, "content": list(_parts(content, swap))} if isinstance(content, list) else message


def _parts(parts: Iterable[Json], swap: Callable[[str], str]) -> Iterable[Json]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        yield {**part, "text": swap(text)} if isinstance(part, dict) and isinstance(text, str) else part

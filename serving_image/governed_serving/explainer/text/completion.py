"""A language model behind an OpenAI-compatible runtime, as a function of its prompt: the log-probability of a given
completion.

``/v1/completions`` with ``echo`` scores the whole completion under each prompt, summed over its tokens. Chat routes
don't echo, so there the first token is scored, from ``top_logprobs``: one that is not among them counts with the least
that is, an upper bound.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import numpy as np

from governed_api import routes
from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import ModelMisbehaved
from governed_serving.decoding import decode_json

__all__ = ["CHAT", "COMPLETIONS", "FEATURES", "CompletionScorer"]

CHAT, COMPLETIONS = routes.CHAT_COMPLETIONS, routes.COMPLETIONS

FEATURES = ("prompt", "completion", "messages")
"""Columns of a scored row: the text that is cut, what the model said, and for chats the messages around it as JSON
(else "")."""

ALTERNATIVES = 20
"""Most ``top_logprobs`` that OpenAI's protocol allows."""

NOTHING = "\n"
"""Stands for a prompt of which nothing is left: a completion's first token needs something before it to have a
probability."""


T = TypeVar("T")


class _Logprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    text_offset: list[int]


class _Choice(msgspec.Struct):
    text: str
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Position(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Token] = []


class _Content(msgspec.Struct):
    content: list[_Position] | None = None


class _Reply(msgspec.Struct):
    logprobs: _Content | None = None


class _Chat(msgspec.Struct):
    choices: list[_Reply]


class CompletionScorer:
    """``scorer(columns)`` → log-probabilities in nats, shape (rows, 1). ``post(path, message)`` answers the runtime's
    JSON.

    Raises :class:`ModelMisbehaved` where the runtime doesn't answer log-probabilities, and says what it would have to
    do.
    """

    def __init__(self, post: Callable[[str, Mapping[str, object]], bytes]) -> None:
        self._post = post

    def __call__(self, columns: Columns) -> Floats:
        rows = zip(*(columns[name].tolist() for name in FEATURES), strict=True)
        scores: Floats = np.array([[self._score(*row)] for row in rows], np.float64)
        return scores

    def _score(self, prompt: str, completion: str, messages: str) -> float:
        return (
            self._first_token(prompt, completion, messages) if messages else self._whole(prompt or NOTHING, completion)
        )

    def _whole(self, prompt: str, completion: str) -> float:
        given = prompt + completion
        message = {"prompt": given, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        answer = _decoded(self._post(COMPLETIONS, message), _Completion)
        choice = answer.choices[0] if answer.choices else None
        if choice is None or choice.logprobs is None:
            raise ModelMisbehaved(
                "the runtime: expected logprobs of an echoed prompt, found none; start it so that it answers "
                "them (llama.cpp: --logits_all true)"
            )
        if not choice.text.startswith(given):
            raise ModelMisbehaved(
                "the runtime: expected the prompt to be echoed before the completion, found another text; it "
                "doesn't support echo"
            )
        return _summed(choice.logprobs, len(completion), len(choice.text), len(choice.text) - len(given))

    def _first_token(self, prompt: str, completion: str, messages: str) -> float:
        message = {
            "messages": _filled(messages, prompt), "max_tokens": 1, "temperature": 0, "logprobs": True,
            "top_logprobs": ALTERNATIVES,
        }  # fmt: skip
        answer = _decoded(self._post(CHAT, message), _Chat)
        logprobs = answer.choices[0].logprobs if answer.choices else None
        if logprobs is None or not logprobs.content or not logprobs.content[0].top_logprobs:
            raise ModelMisbehaved(
                "the runtime: expected top_logprobs of a chat's first token, found none; it doesn't support them"
            )
        first = logprobs.content[0]
        by_token = {first.token: first.logprob} | {other.token: other.logprob for other in first.top_logprobs}
        said = max((token for token in by_token if token and completion.startswith(token)), key=len, default=None)
        return min(by_token.values()) if said is None else by_token[said]


def _summed(logprobs: _Logprobs, length: int, answered: int, generated: int) -> float:
    """Over the tokens that hold any of the ``length`` characters before the ``generated`` last ones of ``answered`` in
    all.

    Counted from the end: what a tokenizer puts before the text (a space, a sentinel) doesn't shift it.
    """
    ends = [at + len(token) for at, token in zip(logprobs.text_offset, logprobs.tokens, strict=True)]
    if max(ends, default=0) < answered:
        raise ModelMisbehaved(
            "the runtime: expected a log-probability for every token that it answers, found fewer, so that it "
            "can't be told which token "
            "each belongs to (llama-cpp-python does so for models without a BOS token)"
        )
    stop = max(ends) - generated
    start = stop - length
    scored = [
        score
        for at, end, score in zip(logprobs.text_offset, ends, logprobs.token_logprobs, strict=True)
        if at < stop and (end > start if end > at else at >= start)
    ]
    if not scored or any(score is None for score in scored):
        raise ModelMisbehaved(
            "the runtime: expected a log-probability for every token of the completion, found none for some"
        )
    return float(sum(score for score in scored if score is not None))


def _filled(messages: str, prompt: str) -> list[dict[str, object]]:
    """The messages with ``prompt`` as the content of the last one of the user."""
    conversation: list[dict[str, object]] = decode_json(messages)
    last = max(index for index, message in enumerate(conversation) if message.get("role") == "user")
    return [{**message, "content": prompt} if index == last else message for index, message in enumerate(conversation)]


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return decode_json(data, type=kind)
    except msgspec.DecodeError as error:
        raise ModelMisbehaved(f"the runtime: expected an OpenAI completion with logprobs, found: {error}") from error

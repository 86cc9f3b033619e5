"""Requests to have a completion explained: an OpenAI body with ``explain`` beside, and what of it the explainer is
asked."""

import msgspec

from governed_api.json_types import Json
from governed_serving.completions.conversation import Spoken
from governed_serving.decoding import decode_json
from governed_serving.server.chat.events import Completion
from governed_serving.server.chat.request import CHAT, COMPLETIONS
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.explanation import Column, Question
from governed_serving.server.protocol.json_errors import decode_object

__all__ = ["first_text", "question", "taken_apart"]


def taken_apart(body: bytes) -> tuple[str, bytes, dict[str, Json]]:
    """(route of the completion, its body, parameters of the explanation). Raises InvalidRequest."""
    message = decode_object(body, "an OpenAI request with the field explain")
    options = message.pop("explain", {})
    if not isinstance(options, dict):
        raise InvalidRequest(f"explain: expected an object of parameters, found {type(options).__name__}")
    if message.get("stream"):
        raise InvalidRequest("stream: expected false, found true; an explanation needs the whole completion")
    if isinstance(message.get("prompt"), list):
        raise InvalidRequest("prompt: expected one text to explain, found a list; send one request for each")
    return (CHAT if "messages" in message else COMPLETIONS), msgspec.json.encode(message), options


def first_text(answer: bytes) -> str:
    """The text of the first choice. Raises InvalidRequest when nothing was generated."""
    first = Completion()
    first.take({"choices": decode_json(answer).get("choices", [])[:1]})
    if not first.text:
        raise InvalidRequest(
            "max_tokens: expected a completion to explain, found an empty one; raise it or change the prompt"
        )
    return first.text


def question(request_id: str, spoken: Spoken, completion: str, options: dict[str, Json]) -> Question:
    """What the explainer is asked: the text to cut, the completion to score, the chat around it."""
    texts = {"prompt": spoken.text, "completion": completion, "messages": spoken.messages}
    return Question(request_id, [Column(name, [1], "BYTES", [text]) for name, text in texts.items()], options)

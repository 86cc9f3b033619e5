"""A journalled prompt as explanations take it apart: the text that a person wrote, and the messages around it."""

from typing import NamedTuple

import msgspec

from governed_serving.decoding import decode_json

__all__ = ["Spoken", "last_spoken"]


class Spoken(NamedTuple):
    """``text`` to explain; ``messages``: the whole chat as JSON, or "" for a bare prompt."""

    text: str
    messages: str


def last_spoken(prompt: str) -> Spoken | None:
    """The last message of the user in a chat's JSON, or the bare prompt; None for a chat in which the user wrote no
    plain text."""
    try:
        messages: object = decode_json(prompt)
    except msgspec.DecodeError:
        return Spoken(prompt, "")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and "role" in message for message in messages
    ):
        return Spoken(prompt, "")
    said = [message.get("content") for message in messages if message["role"] == "user"]
    return Spoken(said[-1], prompt) if said and isinstance(said[-1], str) and said[-1] else None

"""msgspec's decoding errors in our words: position for malformed JSON, path for wrong types."""

from typing import Any

import msgspec

from governed_api.json_types import Json
from governed_serving.decoding import MAX_DEPTH, decode_json, nested_beyond
from governed_serving.server.errors import InvalidRequest

__all__ = ["decode_object", "malformed"]


def malformed(error: msgspec.DecodeError, body: bytes | memoryview, expected: str) -> InvalidRequest:
    """The error to answer for a body that is not ``expected``."""
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return InvalidRequest(f"request body: expected {expected}, found: {text}")
    if "truncated" in text or not len(body):
        return InvalidRequest(f"request body: expected JSON, found its end too early (byte {len(body)})")
    return InvalidRequest(f"request body: expected JSON, found: {text.removeprefix('JSON is malformed: ')}")


def decode_object(body: bytes, expected: str) -> dict[str, Json]:
    """A JSON object whose fields are open, nested at most MAX_DEPTH deep. Raises InvalidRequest."""
    try:
        message: dict[str, Json] = decode_json(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise malformed(error, body, expected) from error
    if nested_beyond(message):
        raise InvalidRequest(f"request body: expected {expected} nested at most {MAX_DEPTH} deep, found it deeper")
    return message

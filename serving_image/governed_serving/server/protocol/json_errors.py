"""msgspec's decoding errors in our words: position for malformed JSON, path for wrong types."""

import msgspec

from governed_serving.server.errors import InvalidRequest

__all__ = ["malformed"]


def malformed(error: msgspec.DecodeError, body: bytes | memoryview, expected: str) -> InvalidRequest:
    """The error to answer for a body that is not ``expected``."""
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return InvalidRequest(f"request body: expected {expected}, found: {text}")
    if "truncated" in text or not len(body):
        return InvalidRequest(f"request body: expected JSON, found its end too early (byte {len(body)})")
    return InvalidRequest(f"request body: expected JSON, found: {text.removeprefix('JSON is malformed: ')}")

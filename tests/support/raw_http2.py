"""Calls of gRPC as no library would send them: frames of HTTP/2 by hand (RFC 9113; RFC 7541 without compression)."""

from collections.abc import Iterable

__all__ = ["INFER", "Field", "call", "status_of"]

Field = tuple[bytes, bytes]
INFER = b"/inference.GRPCInferenceService/ModelInfer"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS = b"grpc-status"


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _text(value: bytes) -> bytes:
    """A string literal of HPACK (RFC 7541, 5.2), whatever it holds."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value


def call(path: bytes, metadata: Iterable[Field] = (), message: bytes = b"") -> bytes:
    """A connection's beginning and one call with ``message``, to its end. The head is cut into frames as needed."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *metadata]
    head = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    parts = [head[start : start + 16_000] for start in range(0, len(head), 16_000)]
    out = _PREFACE + _frame(4, 0, 0, b"")
    for number, part in enumerate(parts):
        out += _frame(9 if number else 1, 4 if number == len(parts) - 1 else 0, 1, part)
    body = b"\0" + len(message).to_bytes(4, "big") + message
    pieces = [body[start : start + 16_000] for start in range(0, len(body), 16_000)]
    for number, piece in enumerate(pieces):
        out += _frame(0, 1 if number == len(pieces) - 1 else 0, 1, piece)
    return out


def status_of(answer: bytes) -> int | None:
    """The gRPC status that ``answer`` ends with, as grpc's servers write it; None: there is none."""
    place = answer.rfind(_STATUS)
    if place < 0:
        return None
    length = answer[place + len(_STATUS)]
    digits = answer[place + len(_STATUS) + 1 :][:length]
    return int(digits) if digits.isdigit() else None

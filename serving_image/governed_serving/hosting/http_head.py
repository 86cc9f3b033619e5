"""The head of an HTTP/1.1 request, judged strictly once for every port (RFC 9112; what it leaves to taste is refused).

Whoever stands before or behind us must read a request's end where we read it: one Host, one Content-Length or
``chunked`` alone, no folded lines, no bare line feeds, no CONNECT. A request to switch protocols is answered in the one
that it came in (RFC 9110, 7.8).
"""

import re
from typing import NamedTuple

from governed_api.callers import API_KEY_HEADER
from governed_api.names import MAX_REQUEST_ID
from governed_api.runtime import PROMISE_HEADER

__all__ = ["CREDENTIAL_HEADERS", "HEAD_LIMIT", "BadHead", "Head", "parse_head", "without_upgrade"]

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and header fields."""
CREDENTIAL_HEADERS = frozenset({b"authorization", API_KEY_HEADER.encode(), b"api-key"})
"""In which a credential may stand: OpenAI's clients send the first, Azure's the last."""

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FOR_UVICORN = frozenset(
    {b"expect", b"upgrade", b"content-encoding", b"trailer", b"te", b"http2-settings", PROMISE_HEADER.encode()}
)


class BadHead(Exception):
    """A head that can't be answered but with ``status``, after which the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """What matters of a request's head."""

    length: int
    """Bytes of the body, -1 where no Content-Length tells."""
    header: int | None = None
    """Inference-Header-Content-Length."""
    chunked: bool = False
    upgrade: bool = False
    """It asks for another protocol."""
    request_id: str = ""
    """X-Request-Id, at most 128 printable ASCII characters."""
    plain: bool = True
    """POST-like: a Content-Length, and nothing that the fast path doesn't understand."""
    credentials: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that may hold one, names in lower case."""


def parse_head(head: bytes) -> Head:
    """``head`` without its blank line, request line included. Raises BadHead."""
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadHead(400, "request line: expected 'METHOD target HTTP/1.1', found something else")
    if line[3] != b"1":
        raise BadHead(505, f"request line: expected HTTP/1.1, found HTTP/{line[3].decode()}.{line[4].decode()}")
    if line[1] == b"CONNECT":
        raise BadHead(501, "CONNECT: expected a request for this server, found one for a tunnel")
    current = line[4] != b"0"
    length, header, hosts, codings, upgrade, plain, request_id = -1, None, 0, 0, False, current, ""
    credentials: tuple[tuple[bytes, bytes], ...] = ()
    for text in lines:
        field = _FIELD.fullmatch(text)
        if field is None:
            raise BadHead(400, "header: expected 'Name: value' lines, found something else")
        name, value = field[1].lower(), field[2].strip()
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = _length(length, value)
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                raise BadHead(501, "Transfer-Encoding: expected chunked, found another coding; send the body as it is")
        elif name == b"connection":
            plain = plain and value.lower() == b"keep-alive"
            upgrade = upgrade or b"upgrade" in value.lower()
        elif name == b"inference-header-content-length":
            if header is not None or not value.isdigit() or len(value) > 15:
                plain = False
            else:
                header = int(value)
        elif name == b"x-request-id":
            plain = plain and not request_id and len(value) <= MAX_REQUEST_ID and value.isascii() and b"\t" not in value
            request_id = value.decode("latin-1")
        elif name in CREDENTIAL_HEADERS:
            credentials = (*credentials, (name, value))
        elif name in _FOR_UVICORN:
            plain = False
            upgrade = upgrade or name == b"upgrade"
            if name == b"expect" and value.lower() != b"100-continue":
                raise BadHead(417, "Expect: expected 100-continue, found another expectation; leave it out")
    if hosts > 1 or (current and not hosts):
        raise BadHead(400, f"Host: expected exactly one, found {hosts}")
    if codings and (codings > 1 or length >= 0 or not current):
        raise BadHead(400, "Transfer-Encoding: expected it once, alone, in HTTP/1.1; found it beside another framing")
    return Head(length, header, bool(codings), upgrade, request_id, plain and length >= 0, credentials)


def _length(before: int, value: bytes) -> int:
    if before >= 0:
        raise BadHead(400, "Content-Length: expected it once, found it more than once")
    if not value.isdigit() or len(value) > 15:
        raise BadHead(400, "Content-Length: expected a whole number of bytes, found something else")
    return int(value)


def without_upgrade(head: bytes, *, close: bool = False) -> bytes:
    """``head`` without what asks for another protocol; with ``close`` its request is the connection's last."""
    kept = []
    for text in head.split(b"\r\n"):
        name, _, value = text.partition(b":")
        name = name.lower()
        if name in (b"upgrade", b"http2-settings"):
            continue
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            tokens = [token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings")]
            if close or not tokens:
                continue
            text = b"connection: " + b", ".join(tokens)
        kept.append(text)
    if close:
        kept.append(b"connection: close")
    return b"\r\n".join(kept)

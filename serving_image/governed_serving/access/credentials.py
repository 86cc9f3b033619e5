"""What a request shows of who sends it: an API key or a token in one header, and nowhere else."""

import re
from collections.abc import Iterable

from governed_api.callers import KEY_PREFIX
from governed_serving.access.jwt import LONGEST_TOKEN, is_token
from governed_serving.access.refusals import Unknown
from governed_serving.hosting.http_head import CREDENTIAL_HEADERS

__all__ = ["credential"]

LONGEST = 512
"""Bytes of one that is no token."""
_LONGEST_FIELD = LONGEST_TOKEN + 64
_NAMED = rb"(?:^|[&;])(?:api[-_]?key|x-api-key|(?:access|id|bearer)[-_]?token|jwt|authorization)="
_TOKEN = rb"eyJ[A-Za-z0-9_-]{8,}(?:\.|%2e)[A-Za-z0-9_-]{8,}(?:\.|%2e)"
_QUERY = re.compile(KEY_PREFIX.encode() + b"|" + _NAMED + b"|" + _TOKEN, re.IGNORECASE)


def credential(headers: Iterable[tuple[bytes, bytes]], query: bytes = b"") -> str:
    """The one that is shown in ``headers`` (names in lower case). Raises Unknown."""
    if query and _QUERY.search(query):
        raise Unknown("query")
    shown = [(name, value) for name, value in headers if name in CREDENTIAL_HEADERS]
    if len(shown) != 1:
        raise Unknown("several" if shown else "missing")
    name, value = shown[0]
    if len(value) > _LONGEST_FIELD or not value.isascii():
        raise Unknown("malformed")
    text = value.decode().strip()
    if name == b"authorization":
        scheme, _, text = text.partition(" ")
        if scheme.lower() != "bearer":
            raise Unknown("malformed")
        text = text.strip()
    if not text:
        raise Unknown("missing")
    if len(value) > LONGEST and not (name == b"authorization" and is_token(text) and len(text) <= LONGEST_TOKEN):
        raise Unknown("malformed")
    return text

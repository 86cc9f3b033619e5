"""The pod's tokens: what tells our containers apart from a foreign runtime beside them, which shares their loopback.

One for each inner port, random for each pod, in a volume in memory that the runtime doesn't mount.
"""

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from governed_api.runtime import POD_TOKEN_HEADER

__all__ = ["NO_POD_TOKENS", "PodToken", "PodTokens", "headers_of"]

_NAME = POD_TOKEN_HEADER.encode()
_FORM = re.compile(rb"[0-9a-f]{64}")


class PodToken:
    """Raises ValueError for bytes that no draw gave."""

    __slots__ = ("_value", "headers")

    def __init__(self, value: bytes) -> None:
        if not _FORM.fullmatch(value):
            raise ValueError(f"expected 64 hexadecimal characters, found {len(value)} bytes")
        self._value = value
        self.headers: Mapping[str, str] = {POD_TOKEN_HEADER: value.decode()}
        """Of a request that shows it."""

    @staticmethod
    def draw() -> bytes:
        """Content for the file of a new pod."""
        return secrets.token_hex(32).encode()

    def shown_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with ``headers`` (ASGI's: names in lower case) shows it: once, byte for byte."""
        shown = [value for name, value in headers if name == _NAME]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._value)


class PodTokens(NamedTuple):
    """By whose port they open, the server's being the internal lane; none where no foreign runtime shares the pod."""

    server: PodToken | None = None
    explainer: PodToken | None = None
    auditor: PodToken | None = None


NO_POD_TOKENS = PodTokens()


def headers_of(token: PodToken | None) -> Mapping[str, str]:
    """What a client adds to its requests; nothing where the pod has no token."""
    return token.headers if token is not None else {}

"""What a caller who may not call is told, in the form of the protocol that they speak; never whether a model exists.

AccessRefused
├── Unknown 401          no credential, or none that counts
├── CannotTell 503       who knows whose the credential is doesn't answer
│   └── KeysAway         keys of the token's issuer can't be had
├── NotAllowed 403       a known caller whose roles don't have the route
└── TooManyFailures 429  of one address; whoever shows a key that counts isn't held up
"""

from typing import Literal, get_args

from starlette.responses import Response

from governed_api.callers import CallerRole
from governed_serving.hosting.answers import JSON, error_body

__all__ = [
    "REASONS",
    "AccessRefused",
    "CannotTell",
    "KeysAway",
    "NotAllowed",
    "Reason",
    "TooManyFailures",
    "Unknown",
    "answer",
    "body_of",
]

Reason = Literal[
    "missing", "malformed", "several", "query", "unknown", "expired", "early", "audience", "ambiguous", "suspended",
    "role", "throttled", "unavailable", "keys_away",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
"""As metrics count them."""

_CHALLENGE = 'Bearer realm="governed-models"'
_EXPECTED = "access: expected an API key (Authorization: Bearer gmk_…, or X-API-Key) or a token (Bearer eyJ…)"
_ASK = "ask whoever runs the service for one"
_FOUND: dict[Reason, str] = {
    "missing": f"{_EXPECTED}, found none; {_ASK}",
    "malformed": f"{_EXPECTED}, found a credential of another form; {_ASK}",
    "several": f"{_EXPECTED} once, found several credentials; send one",
    "query": f"{_EXPECTED} in a header alone, found a credential in the query string, where others can read it; have "
    "it revoked, and send the new one in a header",
    "unknown": f"{_EXPECTED} that is valid here, found another; {_ASK}",
    "expired": f"{_EXPECTED} that is valid, found one that has expired; {_ASK}",
    "early": f"{_EXPECTED} that is valid, found one whose time has yet to come; look at the clock of its issuer",
    "audience": f"{_EXPECTED} for this service, found a token for another audience; ask its issuer for one with the "
    "audience that whoever runs the service names",
    "ambiguous": f"{_EXPECTED} of one consumer, found a token that several name; ask whoever runs the service",
    "suspended": f"{_EXPECTED} of a consumer that may call, found one that is suspended; ask whoever runs the service",
}


class AccessRefused(Exception):
    """The message is one line. ``status`` of HTTP; ``code`` is OpenAI's word; ``retry_after`` in seconds."""

    status = 401
    code = "invalid_api_key"
    retry_after: int | None = None

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """RFC 6750, 3; RFC 9110, 10.2.3."""
        if self.retry_after is not None:
            return ((b"retry-after", str(self.retry_after).encode()),)
        error = "" if self.reason == "missing" else ', error="invalid_token"'
        return ((b"www-authenticate", f"{_CHALLENGE}{error}".encode()),)


class Unknown(AccessRefused):
    """Nobody knows who calls."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason, _FOUND[reason])


class CannotTell(AccessRefused):
    """Not now."""

    status = 503
    code = "service_unavailable"
    retry_after = 5

    reason_why: tuple[Reason, str] = (
        "unavailable",
        "access: expected the archive to tell whose this token is, found no answer; retry later",
    )

    def __init__(self) -> None:
        super().__init__(*self.reason_why)


class KeysAway(CannotTell):
    """Nothing is believed of a token meanwhile."""

    reason_why = ("keys_away", "access: expected fresh keys of the token's issuer, found none; retry later")


class NotAllowed(AccessRefused):
    """The caller is known."""

    status = 403
    code = "insufficient_permissions"

    def __init__(self, role: CallerRole) -> None:
        super().__init__("role", f"access: expected a consumer with role {role}, found one without; ask for it")

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"www-authenticate", f'{_CHALLENGE}, error="insufficient_scope"'.encode()),)


class TooManyFailures(AccessRefused):
    """Of one address."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, wait: int) -> None:
        super().__init__("throttled", f"access: expected fewer wrong credentials, found too many; retry in {wait} s")
        self.retry_after = wait


def body_of(refused: AccessRefused, path: str = "") -> bytes:
    """The answer's body to a request for ``path``: V2's and V1's form, or OpenAI's."""
    return error_body(str(refused), refused.status, path, refused.code)


def answer(refused: AccessRefused, path: str) -> Response:
    """To a request for ``path``."""
    headers = {name.decode(): value.decode() for name, value in refused.headers}
    return Response(body_of(refused, path), refused.status, headers, JSON)

"""A token as it is shown (JWT, RFC 7519, in JWS's compact form, RFC 7515), taken apart and not yet believed.

What another parser could read in another way is refused: names that stand twice, base64 that isn't canonical, header
fields that name a key (RFC 8725). Nothing that a token names is ever fetched.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from governed_api.json_types import Json
from governed_api.token_keys import ALGORITHMS, b64url
from governed_serving.access.refusals import Unknown
from governed_serving.decoding import decode_strict_json

__all__ = ["LONGEST_TOKEN", "Token", "is_token", "parsed"]

LONGEST_TOKEN = 8192
"""Bytes of one."""
MOST_AUDIENCES = 64
_LONGEST_NAME = 256
_LONGEST_SUBJECT = 255
_NAMES_A_KEY = ("jwk", "jku", "x5u", "x5c")
_OTHERWISE = ("crit", "b64", "zip", "enc", "cty")
"""Header fields that change how the rest is read."""
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
"""What may be shown to a service: neither a logout's token nor a proof of another kind (RFC 8725, 3.11; RFC 9068)."""


class Token(NamedTuple):
    """``expires``, ``begins``: seconds since the epoch."""

    algorithm: str
    key: str | None
    """kid."""
    issuer: str
    audiences: tuple[str, ...]
    subject: str | None
    expires: float
    begins: float
    claims: Mapping[str, Json]
    signed: bytes
    signature: bytes


def is_token(text: str) -> bool:
    """Whether it has a token's form: no API key has a point."""
    return text.count(".") == 2


def parsed(text: str) -> Token:
    """Raises Unknown."""
    try:
        if len(text) > LONGEST_TOKEN:
            raise ValueError
        head, body, signature = text.split(".")
        header, claims = _object(head), _object(body)
        algorithm, key = _header(header)
        return Token(
            algorithm, key, _text(claims, "iss"), _audiences(claims), _subject(claims), _moment(claims, "exp"),
            max(_moment(claims, "nbf", 0.0), _moment(claims, "iat", 0.0)), claims,
            text.rpartition(".")[0].encode(), b64url(signature),
        )  # fmt: skip
    except (ValueError, msgspec.DecodeError):
        raise Unknown("malformed") from None


def _object(part: str) -> Mapping[str, Json]:
    found = decode_strict_json(b64url(part))
    if not isinstance(found, dict):
        raise ValueError
    return found


def _header(header: Mapping[str, Json]) -> tuple[str, str | None]:
    """(alg, kid)."""
    algorithm, key, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if any(name in header for name in (*_NAMES_A_KEY, *_OTHERWISE)):
        raise ValueError
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise ValueError
    if key is not None and not (isinstance(key, str) and len(key) <= _LONGEST_NAME):
        raise ValueError
    return algorithm, key


def _text(claims: Mapping[str, Json], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _subject(claims: Mapping[str, Json]) -> str | None:
    if "sub" not in claims:
        return None
    subject = _text(claims, "sub")
    if len(subject) > _LONGEST_SUBJECT:
        raise ValueError
    return subject


def _audiences(claims: Mapping[str, Json]) -> tuple[str, ...]:
    value = claims.get("aud")
    listed = value if isinstance(value, list) else [] if value is None else [value]
    texts = tuple(one for one in listed if isinstance(one, str))
    if len(texts) != len(listed) or len(texts) > MOST_AUDIENCES:
        raise ValueError
    return texts


def _moment(claims: Mapping[str, Json], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise ValueError
    return math.ceil(value) if name == "nbf" else float(value)

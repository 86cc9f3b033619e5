"""Who may call a model: the document that the operator compiles from ModelConsumers and every port of the model reads,
the form of API keys, and which role each route needs.

The document is of one model, so that a pod learns of those alone who may call it, and is authenticated under a key that
the model's containers and the operator hold (``CALLERS_KEY`` of the Secret ``MODEL-callers``): who may write a
ConfigMap alone makes no caller.
"""

import hashlib
import hmac
import json
import re
import secrets
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from governed_api.base import Part

__all__ = [
    "API_KEY_HEADER",
    "CALLERS_FILE",
    "CALLERS_KEY",
    "KEY_FORM",
    "KEY_PREFIX",
    "MOST_KEYS",
    "Caller",
    "CallerKey",
    "CallerLimit",
    "CallerRole",
    "CallerToken",
    "Callers",
    "TokenClaim",
    "TokenIssuer",
    "caller_pseudonym",
    "callers_secret",
    "document_of",
    "new_api_key",
    "open_callers",
    "seal_callers",
    "split_api_key",
]

CALLERS_FILE = "callers.json"
"""Key of the ConfigMap ``MODEL-callers`` and name of the file: what :func:`seal_callers` makes."""
CALLERS_KEY = "callers-key"
"""Key of the Secret ``MODEL-callers``: 64 hexadecimal characters, :func:`callers_secret`."""
_CONTEXT = b"governed-callers-v1\n"
_PSEUDONYM = b"governed-caller-pseudonym-v1\n"
_ISSUER_ID = r"^[0-9a-f]{32}$"

KEY_PREFIX = "gmk_"
API_KEY_HEADER = "x-api-key"
"""In which our own commands show a key; clients may take others."""
MOST_KEYS = 16
"""Keys of one consumer."""
KEY_FORM = re.compile(KEY_PREFIX + r"([a-z2-7]{16})_([A-Za-z0-9_-]{43})")
"""An API key: a name that may be seen (80 bits) and a secret (256 bits), so that a leaked one is found by its form."""


class CallerRole(StrEnum):
    """What a caller may do. Each port's routes name the one that they need."""

    CALL = "call"
    """Predictions, completions, metadata and receipts of one's own."""
    EXPLAIN = "explain"
    """Explanations, overviews, importances."""
    LABEL = "label"
    """Say how a decision turned out."""
    REVIEW = "review"
    """Contest a decision and see contests, which hold personal data."""
    ACKNOWLEDGE = "acknowledge"
    """Take note of a finding, which ends a block."""
    AUDIT = "audit"
    """Verdict, groups, findings."""
    SCRAPE = "scrape"
    """Metrics."""


class CallerKey(Part):
    """An API key as it is kept: nothing here lets anyone call."""

    id: str = Field(pattern=r"^[a-z2-7]{16}$")
    """The key's name, which is in the key."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key's secret part, hex. The secret has 256 random bits: a slow hash would guard nothing."""
    expires: datetime | None = None
    """From then on it is refused; with a zone."""


class TokenClaim(Part):
    """A claim of a token: the text, or a list of texts that has it."""

    name: str = Field(min_length=1, max_length=256)
    value: str = Field(min_length=1, max_length=256)


class CallerToken(Part):
    """Which tokens are the caller's: of an issuer, by subject or by a claim."""

    issuer: str = Field(pattern=_ISSUER_ID)
    """A :class:`TokenIssuer`'s id."""
    subject: str | None = Field(default=None, min_length=1, max_length=255)
    claim: TokenClaim | None = None


class TokenIssuer(Part):
    """Whose signature counts for one audience, and by which keys."""

    id: str = Field(pattern=_ISSUER_ID)
    issuer: str = Field(min_length=1, max_length=512)
    """A token's iss."""
    audience: str = Field(min_length=1, max_length=256)
    """Must be in a token's aud."""
    jwks: str = ""
    """Public keys: a JWK set as JSON text."""
    public_keys: str = ""
    """Public keys as PEM."""
    until: datetime | None = None
    """From then on the keys are too old to count; with a zone."""


class CallerLimit(Part):
    """At most so many requests or tokens in a window."""

    unit: Literal["requests", "tokens"]
    limit: int = Field(ge=1, le=1_000_000_000_000)
    window_seconds: int = Field(ge=1, le=31_708_800)


class Caller(Part):
    """One consumer of the model."""

    name: str = Field(min_length=1, max_length=253)
    """Of the ModelConsumer, in the model's namespace."""
    keys: list[CallerKey] = Field(default=[], max_length=MOST_KEYS)
    tokens: list[CallerToken] = Field(default=[], max_length=4)
    roles: list[CallerRole] = Field(min_length=1, max_length=16)
    limits: list[CallerLimit] = Field(default=[], max_length=8)
    max_concurrent: int | None = Field(default=None, ge=1, le=100_000)
    attributes: dict[str, Annotated[str, Field(max_length=256)]] = Field(default={}, max_length=16)
    """Audit attributes that come from who calls, whatever a request says of them."""
    expires: datetime | None = None
    suspended: bool = False


class Callers(Part):
    """All consumers of one model."""

    namespace: str
    model: str
    sequence: int = Field(ge=0)
    """Grows with each change: a port that has seen a higher one refuses a lower, which somebody put back."""
    callers: list[Caller] = Field(default=[], max_length=100_000)
    issuers: list[TokenIssuer] = Field(default=[], max_length=100_000)
    """Of the tokens that callers may show."""


def new_api_key() -> tuple[str, CallerKey]:
    """A key to hand out once, and what is kept of it."""
    name = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(16))
    secret = secrets.token_urlsafe(32)
    return f"{KEY_PREFIX}{name}_{secret}", CallerKey(id=name, sha256=hashlib.sha256(secret.encode()).hexdigest())


def split_api_key(text: str) -> tuple[str, str] | None:
    """(id, secret) of a key; None for what has not its form."""
    match = KEY_FORM.fullmatch(text)
    return (match[1], match[2]) if match else None


def caller_pseudonym(secret: str, name: str) -> str:
    """How records call a consumer: told by whoever holds the model's key of callers, and by nobody else."""
    return hmac.new(bytes.fromhex(secret), _PSEUDONYM + name.encode(), hashlib.sha256).hexdigest()[:32]


def callers_secret(root: bytes, namespace: str, model: str) -> str:
    """The key under which a model's document is authenticated, of the archive's root. No token of a role: those are
    taken over ``NAMESPACE/MODEL/ROLE`` with a role's name last."""
    return hmac.new(root, f"{namespace}/{model}/{CALLERS_KEY}".encode(), hashlib.sha256).hexdigest()


def _tag(secret: str, document: bytes) -> str:
    return hmac.new(bytes.fromhex(secret), _CONTEXT + document, hashlib.sha256).hexdigest()


def document_of(callers: Callers) -> bytes:
    """Canonical JSON, without what defaults say."""
    plain = callers.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seal_callers(callers: Callers, secret: str) -> bytes:
    """The tag (64 hexadecimal characters), a line end, and the document."""
    document = document_of(callers)
    return _tag(secret, document).encode() + b"\n" + document


def open_callers(sealed: bytes, secret: str) -> bytes:
    """The JSON of a document that :func:`seal_callers` made. Raises ValueError for one that has been edited or is
    another model's."""
    tag, _, document = sealed.partition(b"\n")
    if not hmac.compare_digest(tag, _tag(secret, document).encode()):
        raise ValueError("expected a document that the operator sealed for this model, found another or an edited one")
    return document

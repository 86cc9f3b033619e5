"""All callers of a model, by the names of their keys: one look-up whatever their number, a few hundred bytes each."""

import hashlib
import hmac
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from governed_api.callers import Caller, CallerLimit, CallerRole, TokenIssuer, split_api_key
from governed_serving.access.jwt import is_token
from governed_serving.access.refusals import Unknown
from governed_serving.access.tokens import Tokens
from governed_serving.decoding import decode_json

__all__ = ["BadDocument", "Directory", "Known"]

T = TypeVar("T")

_PAUSE_EVERY = 64
"""Callers that are read between two moments in which other threads go on."""


class BadDocument(Exception):
    """It is the operator's, and can't be used."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """Who calls. ``expires``: seconds since the epoch."""

    name: str
    roles: frozenset[CallerRole]
    limits: tuple[CallerLimit, ...] = ()
    max_concurrent: int | None = None
    attributes: Mapping[str, str] = {}
    expires: float = math.inf
    suspended: bool = False
    mark: int = 0
    """Hash of what the document says of them, so that who hasn't changed needn't be read again."""


class _Key(msgspec.Struct, frozen=True, gc=False):
    digest: bytes
    expires: float
    caller: Known


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    namespace: str
    model: str
    sequence: int
    callers: list[msgspec.Raw] = []
    issuers: list[msgspec.Raw] = []


_NOBODY = _Key(bytes(32), math.inf, Known("", frozenset()))
"""Stands for a key that isn't there, so that one costs what a wrong secret does."""


_IDS = re.compile(rb'"id":"([a-z2-7]{16})"')
_TOKENS = b'"tokens":['


class Directory:
    """Made of a document's JSON, which was opened. What is as in the one ``before`` is taken from there. Raises
    BadDocument."""

    def __init__(self, document: bytes, namespace: str, model: str, before: "Directory | None" = None) -> None:
        try:
            read = decode_json(document, type=_Document)
        except msgspec.DecodeError as error:
            raise BadDocument(f"expected a document of callers, found: {error}") from None
        if (read.namespace, read.model) != (namespace, model):
            raise BadDocument(f"expected callers of {namespace}/{model}, found those of {read.namespace}/{read.model}")
        self.sequence = read.sequence
        self._keys: dict[str, _Key] = {}
        self._shared: dict[object, object] = {}
        issuers = map(_issuer, range(len(read.issuers)), read.issuers)
        self._tokens: Tokens = Tokens(issuers, None if before is None else before._tokens)
        self.callers = len(read.callers)
        for number, raw in enumerate(read.callers):
            if number % _PAUSE_EVERY == _PAUSE_EVERY - 1:
                time.sleep(0)
            self._take(number, bytes(raw), {} if before is None else before._keys)
        self._shared.clear()

    def _take(self, number: int, raw: bytes, before: Mapping[str, _Key]) -> None:
        mark = hash(raw)
        # once each: an attribute may be called id, and hold the caller's own key's
        names = [name.decode() for name in dict.fromkeys(_IDS.findall(raw))] if before and _TOKENS not in raw else []
        keys = [before.get(name) for name in names]
        if not names or not all(key is not None and key.caller.mark == mark for key in keys):
            self._add(number, raw, mark)
            return
        for name, key in zip(names, keys, strict=True):
            if key is not None:
                self._keep(number, name, key)

    def _keep(self, number: int, name: str, key: _Key) -> None:
        if name in self._keys:
            raise BadDocument(f"callers[{number}].keys: expected each key once, found {name} twice")
        self._keys[name] = key

    def _add(self, number: int, raw: bytes, mark: int) -> None:
        try:
            caller = Caller.model_validate_json(raw)
        except ValidationError as error:
            raise _bad(f"callers[{number}]", error) from None
        known = Known(
            caller.name,
            self._once(frozenset(caller.roles)),
            self._once(tuple(caller.limits), tuple((one.unit, one.limit, one.window_seconds) for one in caller.limits)),
            caller.max_concurrent,
            self._once(caller.attributes, tuple(sorted(caller.attributes.items()))),
            _seconds(caller.expires),
            caller.suspended,
            mark,
        )
        for key in caller.keys:
            self._keep(number, key.id, _Key(bytes.fromhex(key.sha256), _seconds(key.expires), known))
        for token in caller.tokens:
            if not self._tokens.add(token, known):
                raise BadDocument(f"callers[{number}].tokens: expected one of the document's issuers, found another")

    def _once(self, value: T, key: object = None) -> T:
        """One object for all that are alike."""
        shared: T = self._shared.setdefault((type(value), value if key is None else key), value)  # type: ignore[assignment]
        return shared

    def find(self, text: str, now: float) -> Known:
        """Whose key or token ``text`` is, at ``now`` (seconds since the epoch). Raises Unknown, KeysAway."""
        if is_token(text):
            return self._tokens.find(text, now)
        parts = split_api_key(text)
        if parts is None:
            raise Unknown("malformed")
        name, secret = parts
        key = self._keys.get(name, _NOBODY)
        if not hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), key.digest) or key is _NOBODY:
            raise Unknown("unknown")
        caller = key.caller
        if now >= key.expires or now >= caller.expires:
            raise Unknown("expired")
        if caller.suspended:
            raise Unknown("suspended")
        return caller


def _issuer(number: int, raw: msgspec.Raw) -> TokenIssuer:
    try:
        return TokenIssuer.model_validate_json(bytes(raw))
    except ValidationError as error:
        raise _bad(f"issuers[{number}]", error) from None


def _bad(where: str, error: ValidationError) -> BadDocument:
    first = error.errors()[0]
    return BadDocument(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}")


def _seconds(moment: datetime | None) -> float:
    if moment is None:
        return math.inf
    if moment.tzinfo is None:
        raise BadDocument("expires: expected a time with a zone, found one without")
    return moment.timestamp()

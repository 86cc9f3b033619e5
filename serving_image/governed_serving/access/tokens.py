"""Whose a token is: the signature of an issuer that a consumer names, for the consumer's audience, now.

What is said of an unknown issuer, key, signature or subject is the same, and costs the same.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from governed_api.callers import CallerToken, TokenIssuer
from governed_api.json_types import Json
from governed_api.token_keys import ALGORITHMS
from governed_serving.access.jwt import Token, parsed
from governed_serving.access.refusals import KeysAway, Unknown
from governed_serving.access.signatures import DECOYS, Verifier, verifiers_of

if TYPE_CHECKING:
    from governed_serving.access.directory import Known

__all__ = ["Issuer", "Tokens"]

SKEW = 60.0
"""Seconds that an issuer's clock may differ from ours."""
REMEMBERED = 4096
"""Tokens that were verified, by digest: the one that was shown longest ago is forgotten first."""
MOST_TRIED = 16
"""Signatures that are computed for a token."""


class Issuer:
    """Of a document: ``url`` is a token's iss."""

    def __init__(self, said: TokenIssuer) -> None:
        self.said, self.url, self.audience = said, said.issuer, said.audience
        self.until = math.inf if said.until is None else said.until.timestamp()
        self._verifiers = verifiers_of(said.jwks, said.public_keys)

    def has_keys(self, now: float) -> bool:
        """Whether it has any that count."""
        return bool(self._verifiers) and now < self.until

    def fitting(self, token: Token) -> list[Verifier]:
        """Keys that the token may be by: the one that it names, or those without a name."""
        keys = [one for one in self._verifiers if one.described.fits(token.algorithm)]
        if token.key is None:
            return keys
        return [one for one in keys if one.described.name in (token.key, None)]


class Tokens:
    """All identities of a document. ``before``: what an earlier one had, whose issuers are taken where they say the
    same. Not for several threads."""

    def __init__(self, issuers: Iterable[TokenIssuer], before: "Tokens | None" = None) -> None:
        self._issuers: dict[str, Issuer] = {}
        self._by_url: dict[str, list[Issuer]] = {}
        self._subjects: dict[tuple[str, str], list[Known]] = {}
        self._claims: dict[str, dict[str, dict[str, list[Known]]]] = {}
        self._verified: OrderedDict[bytes, tuple[Known, float]] = OrderedDict()
        for said in issuers:
            old = before._issuers.get(said.id) if before is not None else None
            issuer = old if old is not None and old.said == said else Issuer(said)
            self._issuers[said.id] = issuer
            self._by_url.setdefault(issuer.url, []).append(issuer)

    def add(self, token: CallerToken, caller: "Known") -> bool:
        """``caller`` is known by it; whether the document has the issuer."""
        if token.issuer not in self._issuers:
            return False
        if token.subject is not None:
            self._subjects.setdefault((token.issuer, token.subject), []).append(caller)
        elif token.claim is not None:
            values = self._claims.setdefault(token.issuer, {}).setdefault(token.claim.name, {})
            values.setdefault(token.claim.value, []).append(caller)
        return True

    def find(self, text: str, now: float) -> "Known":
        """Whose ``text`` is at ``now``, seconds since the epoch. Raises Unknown, KeysAway."""
        digest = hashlib.sha256(text.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and now < known[1]:
            self._verified.move_to_end(digest)
            return known[0]
        caller, until = self._judged(parsed(text), now)
        self._verified[digest] = (caller, until)
        self._verified.move_to_end(digest)
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return caller

    def _judged(self, token: Token, now: float) -> tuple["Known", float]:
        """(caller, until when)."""
        issuers = self._signers(token, now)
        if now >= token.expires + SKEW:
            raise Unknown("expired")
        if now < token.begins - SKEW:
            raise Unknown("early")
        meant = [issuer for issuer in issuers if issuer.audience in token.audiences]
        if not meant:
            raise Unknown("audience")
        callers = {id(caller): caller for issuer in meant for caller in self._callers(issuer, token)}
        if len(callers) != 1:
            raise Unknown("ambiguous" if callers else "unknown")
        (caller,) = callers.values()
        if now >= caller.expires:
            raise Unknown("expired")
        if caller.suspended:
            raise Unknown("suspended")
        return caller, min(token.expires + SKEW, caller.expires, *(issuer.until for issuer in meant))

    def _signers(self, token: Token, now: float) -> list[Issuer]:
        """Issuers whose signature it bears; a signature is computed whoever it says that it is by."""
        named = self._by_url.get(token.issuer, [])
        meant = [issuer for issuer in named if issuer.audience in token.audiences] or named
        keyed = [issuer for issuer in meant if issuer.has_keys(now)]
        if meant and not keyed:
            raise KeysAway
        tried, signers = 0, []
        for issuer in keyed:
            for key in issuer.fitting(token):
                if tried >= MOST_TRIED:
                    break
                tried += 1
                if key.verifies(token.algorithm, token.signature, token.signed):
                    signers.append(issuer)
                    break
        if not tried:
            DECOYS[ALGORITHMS[token.algorithm]].verifies(token.algorithm, token.signature, token.signed)
        if not signers:
            raise Unknown("unknown")
        return signers

    def _callers(self, issuer: Issuer, token: Token) -> Iterator["Known"]:
        name = issuer.said.id
        if token.subject is not None:
            yield from self._subjects.get((name, token.subject), ())
        for claim, values in self._claims.get(name, {}).items():
            for value in _texts(token.claims, claim):
                yield from values.get(value, ())


def _texts(claims: Mapping[str, Json], name: str) -> list[str]:
    """What a claim says: a text, or a list of nothing else. An address of which the issuer doesn't say that it verified
    it says nothing: at some issuers people write their own (OpenID Connect Core, 5.7)."""
    value = claims.get(name)
    if name == "email" and claims.get("email_verified") is not True:
        return []
    listed = value if isinstance(value, list) else [value]
    texts = [one for one in listed if isinstance(one, str)]
    return texts if len(texts) == len(listed) else []

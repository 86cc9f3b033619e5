"""ModelConsumers → the document of a model's callers. Pure, and whatever the clock says: ports judge what expires."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from governed_api.callers import Caller, Callers, TokenIssuer
from governed_api.consumer import caller_of
from governed_api.token_identity import IssuerSource
from governed_operator.watch.consumers import Consumer, caller_text

__all__ = ["MOST_BYTES", "NOBODY", "Compiled", "compiled", "digest_of"]

MOST_BYTES = 1_000_000
"""Of a document: the API server takes a ConfigMap of 1 MiB."""


@dataclass(frozen=True)
class Compiled:
    """Who may call a model."""

    callers: tuple[Caller, ...]
    left_out: frozenset[str]
    """Consumers for whom there is no room."""
    digest: bytes
    """Of what is said of the callers."""
    issuers: tuple[TokenIssuer, ...] = ()
    """Of their tokens."""

    def document(self, namespace: str, model: str, sequence: int) -> Callers:
        """As a model's ports read it."""
        return Callers(
            namespace=namespace, model=model, sequence=sequence, callers=list(self.callers), issuers=list(self.issuers)
        )


NOBODY = Compiled((), frozenset(), b"")


def digest_of(texts: Iterable[bytes], issuers: Iterable[TokenIssuer]) -> bytes:
    """Of callers as they are written, and of the issuers of their tokens."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text + b"\n")
    for issuer in issuers:
        digest.update(_issuer_text(issuer) + b"\n")
    return digest.digest()


def _issuer_text(issuer: TokenIssuer) -> bytes:
    return issuer.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def compiled(
    consumers: list[Consumer],
    holder: Callable[[str], str],
    issuer_of: Callable[[IssuerSource], TokenIssuer] = IssuerSource.given,
    *,
    most: int = MOST_BYTES,
) -> Compiled:
    """Of those that are about the model, the oldest first. ``holder``: whose a key, or a token's identity, is by its
    id; ``issuer_of``: an issuer with the keys that it has now.

    A document that is full takes no further caller and still lets go of those that are gone: no revocation may wait
    until there is room.
    """
    callers: list[Caller] = []
    issuers, texts = dict[str, TokenIssuer](), list[bytes]()
    left_out, room = set[str](), most
    for consumer in consumers:
        caller, text = _own(consumer, holder)
        if caller is None:
            continue
        named = {token.issuer for token in caller.tokens} - issuers.keys()
        added = {t.source.id: issuer_of(t.source) for t in consumer.tokens if t.source.id in named}
        room -= len(text) + len(",") + sum(len(_issuer_text(issuer)) + len(",") for issuer in added.values())
        if room < 0:
            left_out.add(consumer.name)
        else:
            callers.append(caller)
            texts.append(text)
            issuers |= added
    said = tuple(issuers.values())
    return Compiled(tuple(callers), frozenset(left_out), digest_of(texts, said), said)


def _own(consumer: Consumer, holder: Callable[[str], str]) -> tuple[Caller | None, bytes]:
    """With the keys and tokens that are its own."""
    if consumer.spec is None:
        return None, b""
    taken = [identity for identity in consumer.identities if holder(identity) != consumer.name]
    if not taken:
        return consumer.caller, consumer.text
    caller = caller_of(consumer.name, consumer.spec, taken)
    return caller, caller_text(caller)

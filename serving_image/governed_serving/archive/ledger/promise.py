"""Signed promises: that the record of an answer will be in the ledger within a time (after the SCT of RFC 6962 §3.2).

A promise is a compact JWS (RFC 7515) by Ed25519 (EdDSA, RFC 8037): ``header.payload.signature``, each base64url without
padding. Header and payload are JSON with sorted keys and no spaces, in one form only; the header's ``kid`` is the id of
the ledger's entry ``promiseKey``, whose summary has the public key and how long it may sign.
"""

import base64
from contextlib import suppress

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from governed_api.printable import printable
from governed_serving.archive.ledger.note import NoteError
from governed_serving.decoding import decode_json

__all__ = ["KEY_TYPE", "MOST_BYTES", "AnnouncedKey", "Promise", "SignedPromise", "decode_key", "encode_key", "sign"]

KEY_TYPE = "promiseKey"
"""Type of the ledger's entries that announce keys."""
MOST_BYTES = 8192
"""Longest promise that is read."""
_KIND = "governed-promise"
_FOR_EVER = 1 << 40


class Promise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is promised: an entry of type prediction with ``id``, ``revision`` and time ``recorded`` about request
    ``index`` of frame ``frame`` of ``stream``, which is ciphertext with SHA-256 ``record`` (hex).

    ``time``: when it was promised; ``delay``: seconds after which it is broken. Times are RFC 3339, UTC.
    """

    namespace: str
    model: str
    id: str
    revision: str
    recorded: str
    stream: str
    frame: int
    index: int
    record: str
    time: str
    delay: int
    v: int = 1


class AnnouncedKey(msgspec.Struct, frozen=True, rename="camel"):
    """Summary of an entry ``promiseKey``: a public key (base64url), which signs between two times (RFC 3339)."""

    public_key: str
    not_before: str
    not_after: str
    algorithm: str = "Ed25519"


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alg: str = "EdDSA"
    kid: str
    typ: str = _KIND


class SignedPromise(msgspec.Struct, frozen=True):
    """A promise as it was given; its signature isn't checked yet."""

    promise: Promise
    key: str
    """Id of the entry that announces the key."""
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> "SignedPromise":
        """Raises :class:`NoteError` for another form than the one that is written."""
        parts = text.strip("\r\n").split(".")
        if len(text) > MOST_BYTES or len(parts) != 3:
            raise NoteError(f"a promise must be three parts with dots between, of at most {MOST_BYTES} bytes")
        header, payload, signature = (_decoded(part) for part in parts)
        try:
            head, promise = decode_json(header, type=_Header), decode_json(payload, type=Promise)
        except msgspec.DecodeError as error:
            raise NoteError(f"a promise must be of format {_KIND}, version 1: {error}") from None
        if (head.alg, head.typ, promise.v) != ("EdDSA", _KIND, 1):
            raise NoteError(
                f"a promise must be of format {_KIND}, version 1, by EdDSA; found {head.typ!r:.40}, {promise.v}, "
                f"{head.alg!r:.40}"
            )
        if (_canonical(head), _canonical(promise)) != (header, payload):
            raise NoteError("the promise isn't in its one form (sorted keys, no spaces): it was changed")
        if not (promise.frame >= 0 and promise.index >= 0 and 0 < promise.delay < _FOR_EVER and len(signature) == 64):
            raise NoteError("the promise holds a number that can't be, or no signature of 64 bytes")
        texts = [head.kid, *(t for t in msgspec.to_builtins(promise).values() if isinstance(t, str))]
        if any(printable(line) != line for line in texts):
            raise NoteError("the promise holds control characters: it was made to deceive")
        return cls(promise, head.kid, f"{parts[0]}.{parts[1]}".encode(), signature)

    def verify(self, public: bytes) -> None:
        """Raises :class:`NoteError` where ``public`` (32 bytes) didn't sign this."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, self.signed)
        except (InvalidSignature, ValueError):
            raise NoteError(
                f"the promise's signature is not by the key that entry {self.key} announces: it was forged or changed"
            ) from None


def sign(promise: Promise, key: str, private: Ed25519PrivateKey) -> str:
    """The promise as it is given; ``key``: id of the entry that announces the public key of ``private``."""
    signed = f"{_encoded(_canonical(_Header(kid=key)))}.{_encoded(_canonical(promise))}"
    return f"{signed}.{_encoded(private.sign(signed.encode()))}"


def encode_key(private: Ed25519PrivateKey) -> str:
    """Its public key, as it is announced."""
    return _encoded(private.public_key().public_bytes_raw())


def decode_key(announced: AnnouncedKey) -> bytes:
    """32 bytes. Raises :class:`NoteError`."""
    public = _decoded(announced.public_key)
    if announced.algorithm != "Ed25519" or len(public) != 32:
        raise NoteError("a key of promises must be Ed25519, 32 bytes in base64url")
    return public


def _canonical(part: msgspec.Struct) -> bytes:
    return msgspec.json.encode(part, order="deterministic")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    with suppress(ValueError):  # what isn't base64, or isn't ASCII
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if data and _encoded(data) == text:
            return data
    raise NoteError("each part of a promise, and a key, must be base64url without padding")

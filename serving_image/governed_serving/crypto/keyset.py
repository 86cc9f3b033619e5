"""A purpose's keyset, opened: sealed bytes, data-key wrapping, deterministic tokens, keyed digests, signing."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tink import KeysetHandle, TinkError, aead, daead, prf, signature
from tink.proto import ed25519_pb2, tink_pb2

from governed_serving.crypto.document import KeyInfo, KeysetDocument, plain_keyset
from governed_serving.crypto.errors import CryptoError, KeyMissing, Tampered

__all__ = ["SEALED_BYTES", "TEMPLATES", "Keyset", "register"]

SEALED_BYTES = b"GMSEAL1\n"
"""First bytes of :meth:`Keyset.seal`'s result; then Tink's ciphertext (0x01 ‖ key id ‖ nonce ‖ ciphertext ‖ tag)."""

TEMPLATES: dict[str, Any] = {
    "ledger-signing": signature.signature_key_templates.ED25519,
    "masking-tokens": daead.deterministic_aead_key_templates.AES256_SIV,
    "masking-digests": prf.prf_key_templates.HMAC_SHA256,
    "subject-index": prf.prf_key_templates.HMAC_SHA256,
    "decision-coins": prf.prf_key_templates.HMAC_SHA256,
}
"""Key types by purpose; every other purpose is AES256_GCM."""

Reload = Callable[[], tuple[KeysetDocument, KeysetHandle]]

_PREFIX = 5
_registered = threading.Lock()
_done = False


def register() -> None:
    """Register the Tink primitives that are used here, once per process."""
    global _done
    with _registered:
        if not _done:
            for module in (aead, daead, prf, signature):
                module.register()
            _done = True


class _Opened(NamedTuple):
    info: list[KeyInfo]
    handle: KeysetHandle
    primitives: dict[Any, Any]


class Keyset:
    """Keys of one purpose. Thread-safe. Keys added elsewhere meanwhile (rotation) are fetched when first needed."""

    def __init__(self, document: KeysetDocument, handle: KeysetHandle, reload: Reload | None = None):
        register()
        self._reload = reload
        self._adopt(document, handle)

    @property
    def purpose(self) -> str:
        """What the keys are for."""
        return self._opened.info[0].purpose

    @property
    def primary_key_id(self) -> int:
        """The key that seals."""
        return next(k.key_id for k in self._opened.info if k.status == "primary")

    def info(self) -> list[KeyInfo]:
        """The keys without their material."""
        return list(self._opened.info)

    def seal(self, data: bytes, aad: bytes = b"") -> bytes:
        """``data`` encrypted and authenticated together with ``aad``; 41 bytes longer."""
        return SEALED_BYTES + bytes(self._primitive(aead.Aead).encrypt(data, aad))

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """Inverse of :meth:`seal`. Raises :class:`Tampered`, or :class:`KeyMissing` when its key isn't in the
        keyset."""
        if sealed[: len(SEALED_BYTES)] != SEALED_BYTES:
            raise Tampered(
                f"expected data sealed by the {self.purpose!r} keyset, found {len(sealed)} bytes that begin otherwise"
            )
        return self._decrypt(aead.Aead, sealed[len(SEALED_BYTES) :], aad)

    def tokenize(self, data: bytes, aad: bytes = b"") -> bytes:
        """Reversible token: AES-SIV (RFC 5297), the same for the same input. Purpose ``masking-tokens``."""
        return bytes(self._primitive(daead.DeterministicAead).encrypt_deterministically(data, aad))

    def detokenize(self, token: bytes, aad: bytes = b"") -> bytes:
        """Inverse of :meth:`tokenize`; raises Tampered or KeyMissing."""
        return self._decrypt(daead.DeterministicAead, token, aad)

    def digest(self, data: bytes, length: int = 16) -> bytes:
        """Keyed one-way digest: HMAC-SHA256 under the primary key, cut to ``length``. Purpose ``masking-digests``."""
        return bytes(self._primitive(prf.PrfSet).primary().compute(data, length))

    def signing_keys(self) -> list[Ed25519PrivateKey]:
        """The Ed25519 keys for pyca, the primary one first, then the others from the newest on. Purpose
        ``ledger-signing``."""
        opened = self._opened
        status = {k.key_id: k.status for k in opened.info}
        keys: list[Ed25519PrivateKey] = []
        for key in reversed(plain_keyset(opened.handle).key):
            if status.get(key.key_id) in ("primary", "enabled") and key.key_data.type_url.endswith("Ed25519PrivateKey"):
                private = ed25519_pb2.Ed25519PrivateKey.FromString(key.key_data.value)
                place = 0 if status[key.key_id] == "primary" else len(keys)
                keys.insert(place, Ed25519PrivateKey.from_private_bytes(private.key_value))
        if not keys:
            raise CryptoError(f"the {self.purpose!r} keyset holds no Ed25519 key; use the 'ledger-signing' keyset")
        return keys

    def refresh(self) -> None:
        """Read the keyset from its store again."""
        if self._reload is not None:
            self._adopt(*self._reload())

    def _adopt(self, document: KeysetDocument, handle: KeysetHandle) -> None:
        self._opened = _Opened(document.info(), handle, {})  # swapped as one: a writer may be in the middle of sealing

    def _primitive(self, kind: Any) -> Any:
        opened = self._opened
        primitive = opened.primitives.get(kind)
        if primitive is None:
            try:
                primitive = opened.primitives[kind] = opened.handle.primitive(kind)
            except TinkError as error:
                raise CryptoError(
                    f"the {self.purpose!r} keyset is of type {opened.info[0].type}, which can't do this ({error})"
                ) from None
        return primitive

    def _decrypt(self, kind: Any, ciphertext: bytes, aad: bytes) -> bytes:
        self._require(ciphertext)
        primitive = self._primitive(kind)
        try:
            if kind is daead.DeterministicAead:
                return bytes(primitive.decrypt_deterministically(ciphertext, aad))
            return bytes(primitive.decrypt(ciphertext, aad))
        except TinkError:
            raise Tampered(
                f"data sealed for {self.purpose!r} doesn't authenticate: it was changed, cut or moved"
            ) from None

    def _require(self, ciphertext: bytes) -> None:
        """Tink prefixes a ciphertext with 0x01 and its key's id: look whether we have it, and in the store if not."""
        if len(ciphertext) < _PREFIX or ciphertext[0] != 1:
            raise Tampered(
                f"data for the {self.purpose!r} keyset doesn't begin like a ciphertext: {len(ciphertext)} bytes"
            )
        key_id = int.from_bytes(ciphertext[1:_PREFIX], "big")
        if not self._has(key_id):
            self.refresh()
        if not self._has(key_id):
            listed = ", ".join(f"{k.key_id} ({k.status})" for k in self._opened.info)
            raise KeyMissing(
                f"the data was sealed under key {key_id}, the {self.purpose!r} keyset holds {listed}: "
                "that key was destroyed, or the data belongs to another model"
            )

    def _has(self, key_id: int) -> bool:
        return any(k.key_id == key_id and k.status in ("primary", "enabled") for k in self._opened.info)


def new_handle(purpose: str) -> KeysetHandle:
    """A keyset with one fresh key of the type for ``purpose``."""
    register()
    return KeysetHandle.generate_new(TEMPLATES.get(purpose, aead.aead_key_templates.AES256_GCM))


def with_new_primary(handle: KeysetHandle, purpose: str) -> tink_pb2.Keyset:
    """The keyset plus a fresh key, which becomes the primary one; the others go on opening what they sealed."""
    keyset = plain_keyset(handle)
    used = {k.key_id for k in keyset.key}
    fresh = plain_keyset(new_handle(purpose))
    while fresh.primary_key_id in used:
        fresh = plain_keyset(new_handle(purpose))
    keyset.key.append(fresh.key[0])
    keyset.primary_key_id = fresh.primary_key_id
    return keyset


def without_key(handle: KeysetHandle, key_id: int) -> tink_pb2.Keyset:
    """The keyset with one key's material gone; raises CryptoError for the primary or an unknown one."""
    keyset = plain_keyset(handle)
    if key_id == keyset.primary_key_id:
        raise CryptoError(f"key {key_id} is the primary key: rotate first, or destroy the whole keyset")
    for key in keyset.key:
        if key.key_id == key_id:
            key.ClearField("key_data")
            key.status = tink_pb2.DESTROYED
            return keyset
    raise CryptoError(f"no key {key_id} in the keyset; it holds {', '.join(str(k.key_id) for k in keyset.key)}")

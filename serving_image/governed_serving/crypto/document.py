"""A stored keyset: JSON around Tink's encrypted keyset, readable as to which key, since when, wrapped by whom."""

import base64
import re
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from tink import KeysetHandle, TinkError, proto_keyset_format, secret_key_access
from tink.proto import tink_pb2

from governed_serving.crypto.errors import CryptoError, KeyMissing, Tampered, WrongKek
from governed_serving.crypto.kek import Kek
from governed_serving.decoding import decode_json

__all__ = ["FORMAT", "KeyInfo", "KeysetDocument", "is_keyset_document", "is_purpose"]

FORMAT = "governed-keyset-1"
_LEAST = 12 + 16
_STATUSES = {tink_pb2.ENABLED: "enabled", tink_pb2.DISABLED: "disabled", tink_pb2.DESTROYED: "destroyed"}
_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


class KeyInfo(msgspec.Struct, frozen=True):
    """One key of a keyset, without its material. ``status``: primary | enabled | destroyed; times RFC 3339."""

    purpose: str
    key_id: int
    type: str
    status: str
    created: str
    kek: str


class _Key(msgspec.Struct, frozen=True):
    id: int
    type: str
    status: str
    created: str


class KeysetDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a store holds. Everything but ``keyset`` is associated data of the wrapping, so that none of it can be
    changed."""

    purpose: str
    kek: str
    keys: list[_Key]
    keyset: str
    format: str = FORMAT

    @classmethod
    def wrap(cls, purpose: str, handle: KeysetHandle, kek: Kek, created: dict[int, str]) -> bytes:
        """JSON bytes of ``handle`` wrapped by ``kek``; ``created`` gives each key's birth."""
        if not _PURPOSE.match(purpose):
            raise CryptoError(f"key purpose {purpose!r}: expected a lower-case name such as 'journal'")
        info = handle.keyset_info()
        keys = [_describe(k, info.primary_key_id, created[k.key_id]) for k in info.key_info]
        bare = cls(purpose, kek.id, keys, "")
        wrapped = proto_keyset_format.serialize_encrypted(handle, kek, bare.aad())
        return msgspec.json.encode(msgspec.structs.replace(bare, keyset=base64.b64encode(wrapped).decode()))

    @classmethod
    def parse(cls, data: bytes, purpose: str) -> "KeysetDocument":
        """Read a document without opening it; raises :class:`KeyMissing` when it is none, or of another purpose."""
        try:
            document = decode_json(data, type=cls)
        except msgspec.DecodeError as error:
            raise KeyMissing(f"the stored {purpose!r} keyset is damaged ({error}); restore it from a backup") from None
        if document.format != FORMAT or document.purpose != purpose:
            raise KeyMissing(f"expected a {FORMAT} for {purpose!r}, found a {document.format} for {document.purpose!r}")
        return document

    @classmethod
    def audit(cls, data: bytes, purpose: str, kek: Kek | None = None) -> "KeysetDocument":
        """Read a document and account for every byte of it, those that opening it passes over included; ``kek`` None:
        without opening it.

        Raises KeyMissing, WrongKek, and :class:`Tampered` for bytes that :meth:`wrap` doesn't write.
        """
        document = cls.parse(data, purpose)
        try:
            raw = base64.b64decode(document.keyset, validate=True)
            wrapped = tink_pb2.EncryptedKeyset.FromString(raw)
        except (ValueError, DecodeError) as error:
            raise Tampered(f"the {purpose!r} keyset isn't as it was written: {error}") from None
        wrapped.DiscardUnknownFields()  # a message keeps what it doesn't know, and would write it again
        exact = base64.b64encode(raw).decode() == document.keyset and wrapped.SerializeToString() == raw
        if not exact or msgspec.json.encode(document) != data:
            raise Tampered(f"the {purpose!r} keyset isn't as it was written: bytes that opening it passes over differ")
        if wrapped.HasField("keyset_info"):
            raise Tampered(f"the {purpose!r} keyset tells of keys beside the wrapping: ours doesn't")
        if kek is not None:
            document.unwrap(kek)
        return document

    def unwrap(self, kek: Kek) -> KeysetHandle:
        """The keyset's handle; raises :class:`WrongKek`."""
        if self.kek != kek.id:
            raise WrongKek(
                f"the {self.purpose!r} keyset is wrapped by key {self.kek}, the key given is {kek.id}: mount the right key file"  # noqa: E501
            )
        try:
            return proto_keyset_format.parse_encrypted(base64.b64decode(self.keyset), kek, self.aad())
        except WrongKek as error:
            raise WrongKek(f"the stored {self.purpose!r} keyset: {error}; restore it from a backup") from None
        except (TinkError, ValueError) as error:
            raise KeyMissing(
                f"the stored {self.purpose!r} keyset is damaged ({error}); restore it from a backup"
            ) from None

    def aad(self) -> bytes:
        """What the wrapping binds."""
        return msgspec.json.encode(msgspec.structs.replace(self, keyset=""), order="deterministic")

    def info(self) -> list[KeyInfo]:
        """The keys, oldest first; needs no KEK."""
        return [KeyInfo(self.purpose, k.id, k.type, k.status, k.created, self.kek) for k in self.keys]


def _describe(key: Any, primary: int, created: str) -> _Key:
    status = "primary" if key.key_id == primary else _STATUSES[key.status]
    kind = key.type_url.rpartition(".")[2].removesuffix("Key") or "none"
    return _Key(key.key_id, kind, status, created)


def is_purpose(name: str) -> bool:
    """Whether a keyset may have this purpose; the file that it lies in, and a backup's member, are named by it."""
    return _PURPOSE.match(name) is not None


def is_keyset_document(data: bytes) -> bool:
    """Whether ``data`` is a wrapped keyset and holds no plaintext key (for the archive's upload check)."""
    try:
        document = decode_json(data, type=KeysetDocument)
        wrapped = tink_pb2.EncryptedKeyset.FromString(base64.b64decode(document.keyset, validate=True))
    except (ValueError, DecodeError):  # msgspec's and base64's errors are ValueErrors
        return False
    return document.format == FORMAT and bool(document.keys) and len(wrapped.encrypted_keyset) > _LEAST


def plain_keyset(handle: KeysetHandle) -> tink_pb2.Keyset:
    """The keyset as a message, keys in plaintext: for rotation and for pyca, never for storage."""
    return tink_pb2.Keyset.FromString(proto_keyset_format.serialize(handle, secret_key_access.TOKEN))


def handle_of(keyset: tink_pb2.Keyset) -> KeysetHandle:
    """Inverse of :func:`plain_keyset`."""
    return proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)

"""ECDSA P-256 keys, cosign's simple signing (containers/image "simple signing"), and DSSE envelopes of in-toto
Statements (secure-systems-lab/dsse v1.0)."""

import base64
import binascii
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release.errors import ReleaseError

PASSWORD = "GOVERNED_RELEASE_PASSWORD"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_HOW = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key && chmod 600"


@dataclass(frozen=True)
class Signer:
    """Who signs a release."""

    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return self.private.public_key()

    def sign(self, content: bytes) -> str:
        """Base64 of the DER signature over SHA-256, as cosign writes it."""
        return base64.b64encode(self.private.sign(content, _ALGORITHM)).decode()

    def public_pem(self) -> bytes:
        return self.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_signer(path: Path) -> Signer:
    """A private key in PEM (PKCS #8 or SEC 1) that only its owner can read; its password is in
    GOVERNED_RELEASE_PASSWORD."""
    text = _read(path)
    mode = path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise ReleaseError(
            f"{path}: expected a key that only its owner can read, found mode {stat.S_IMODE(mode):04o}; "
            f"chmod 600 it, and make a new key if others could read it"
        )
    if b"ENCRYPTED SIGSTORE" in text or b"ENCRYPTED COSIGN" in text:
        raise ReleaseError(
            f"{path}: cosign's own form of key isn't read here; {_HOW}; "
            "cosign import-key-pair --key release.key makes cosign's form of it"
        )
    password = os.environ.get(PASSWORD)
    try:
        key = serialization.load_pem_private_key(text, password.encode() if password else None)
    except (ValueError, TypeError) as error:
        raise ReleaseError(
            f"{path}: expected a private key in PEM, found none that opens ({error}); {PASSWORD} holds "
            f"its password where it has one; {_HOW}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ReleaseError(f"{path}: expected an ECDSA key on P-256, found another kind; {_HOW}")
    return Signer(key)


def load_public(path: Path) -> ec.EllipticCurvePublicKey:
    """cosign.pub: a P-256 public key in PEM."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise ReleaseError(f"{path}: expected a public key in PEM, found none ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ReleaseError(f"{path}: expected an ECDSA key on P-256, found another kind")
    return key


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ReleaseError(f"{path}: expected a file with a key, found something else")
        return path.read_bytes()[:65536]
    except OSError as error:
        raise ReleaseError(f"{path}: expected a file with a key, found {error.strerror}") from error


def verifies(key: ec.EllipticCurvePublicKey, content: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), content, _ALGORITHM)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def claim(reference: str, digest: str) -> bytes:
    """What cosign signs about an image."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return compact({"critical": critical, "optional": None})


def statement(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> bytes:
    """An in-toto Statement about one image."""
    subject = [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}]
    return compact({"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate})


def compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def envelope(signer: Signer, payload: bytes) -> bytes:
    """A DSSE envelope; without a key id, as cosign writes it."""
    signatures = [{"keyid": "", "sig": signer.sign(_pae(payload))}]
    return compact({"payload": base64.b64encode(payload).decode(), "payloadType": IN_TOTO, "signatures": signatures})


def opened(key: ec.EllipticCurvePublicKey, content: bytes) -> bytes:
    """The payload of a DSSE envelope that `key` signed, or ReleaseError."""
    try:
        read = json.loads(content)
        payload = base64.b64decode(read["payload"], validate=True)
        kind, signatures = read["payloadType"], [one["sig"] for one in read["signatures"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseError("expected a DSSE envelope, found something else") from error
    if kind != IN_TOTO:
        raise ReleaseError(f"expected a payload of type {IN_TOTO}, found {str(kind)[:100]!r}")
    if not any(isinstance(one, str) and verifies(key, _pae(payload), one) for one in signatures):
        raise ReleaseError("not signed by this key, or changed since")
    return payload

"""Public keys that verify tokens' signatures: one algorithm's key never serves another's (RFC 8725, 3.1)."""

from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from governed_api.token_keys import LEAST_BITS, MOST_BITS, SigningKey, b64url, given_keys, has_small_order, pem_blocks

__all__ = ["DECOYS", "Verifier", "verifiers_of"]

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class Verifier(NamedTuple):
    """A key that :mod:`cryptography` has taken."""

    described: SigningKey
    key: _PublicKey

    def verifies(self, algorithm: str, signature: bytes, signed: bytes) -> bool:
        """Whether ``signature`` over ``signed`` is this key's. ``algorithm``: one that it fits."""
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                digest = _HASHES[algorithm[2:]]
                pad = padding.PSS(padding.MGF1(digest), digest.digest_size) if algorithm[0] == "P" else _PKCS1
                self.key.verify(signature, signed, pad, digest)
            elif isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(_der(signature, self.key), signed, ec.ECDSA(_HASHES[_ES_HASH[algorithm]]))
            else:
                self.key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


_PKCS1 = padding.PKCS1v15()
_ES_HASH = {"ES256": "256", "ES384": "384", "ES512": "512"}


def _der(signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """RFC 7518, 3.4: R and S side by side, each as long as the curve's order. Raises InvalidSignature."""
    size = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * size:
        raise InvalidSignature
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def verifiers_of(jwks: str, pem: str) -> list[Verifier]:
    """Of a document's keys; those that are none, such as points that lie on no curve, are left out."""
    made: list[Verifier] = []
    try:
        listed = given_keys(jwks) if jwks else []
    except ValueError:
        listed = []
    for one in listed:
        made += _made(lambda one=one: Verifier(one, _LOADERS[one.kind](one)))  # type: ignore[misc]
    for block in pem_blocks(pem):
        made += _made(lambda block=block: _of_pem(block))  # type: ignore[misc]
    return made


def _made(make: Callable[[], Verifier]) -> list[Verifier]:
    try:
        return [make()]
    except (ValueError, UnsupportedAlgorithm):
        return []


def _number(one: SigningKey, name: str) -> int:
    return int.from_bytes(b64url(one.members[name]), "big")


def _rsa(one: SigningKey) -> _PublicKey:
    return rsa.RSAPublicNumbers(_number(one, "e"), _number(one, "n")).public_key()


def _ec(one: SigningKey) -> _PublicKey:
    return ec.EllipticCurvePublicNumbers(_number(one, "x"), _number(one, "y"), _CURVES[one.curve]).public_key()


def _okp(one: SigningKey) -> _PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(b64url(one.members["x"]))


_LOADERS: dict[str, Callable[[SigningKey], _PublicKey]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _of_pem(block: str) -> Verifier:
    """Raises ValueError."""
    key = load_pem_public_key(block.encode())
    if isinstance(key, rsa.RSAPublicKey) and LEAST_BITS <= key.key_size <= MOST_BITS:
        return Verifier(SigningKey(None, "RSA", "", "", {}), key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve = next((name for name, curve in _CURVES.items() if curve.name == key.curve.name), None)
        if curve is not None:
            return Verifier(SigningKey(None, "EC", curve, "", {}), key)
    if isinstance(key, ed25519.Ed25519PublicKey) and not has_small_order(key.public_bytes_raw()):
        return Verifier(SigningKey(None, "OKP", "Ed25519", "", {}), key)
    raise ValueError("it is of a kind that isn't taken")


def _decoys() -> dict[tuple[str, str], Verifier]:
    """Keys of nobody: a token of an issuer or a key that nobody knows costs what one with a wrong signature does."""
    keys: list[tuple[str, str, _PublicKey]] = [("RSA", "", rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key())]
    keys += [("EC", name, ec.derive_private_key(1, curve).public_key()) for name, curve in _CURVES.items()]
    keys.append(("OKP", "Ed25519", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()))
    return {(kind, curve): Verifier(SigningKey(None, kind, curve, "", {}), key) for kind, curve, key in keys}


DECOYS = _decoys()
"""By kind and curve."""

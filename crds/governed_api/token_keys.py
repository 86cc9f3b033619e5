"""Public keys that tokens are verified with, as people and issuers write them: a JWK set (RFC 7517) or PEM.

What is said here of a key needs no cryptography, so that ``governed validate``, the operator and the ports judge alike:
its kind, its size, what it is for. Whether a point lies on its curve is found where signatures are verified.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from governed_api.json_types import Json
from governed_api.strict_json import strict_json

__all__ = [
    "ALGORITHMS",
    "MOST_SIGNING_KEYS",
    "TOKEN_FORM",
    "SigningKey",
    "b64url",
    "check_pem",
    "fetched_keys",
    "given_keys",
    "has_small_order",
    "pem_blocks",
]

ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "RS256": ("RSA", ""), "RS384": ("RSA", ""), "RS512": ("RSA", ""),
    "PS256": ("RSA", ""), "PS384": ("RSA", ""), "PS512": ("RSA", ""),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip
"""Signatures that are taken (RFC 7518, 3; RFC 8037; RFC 9864) → kind and curve of their key. No secret makes one."""
TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]+[.][A-Za-z0-9_-]+[.][A-Za-z0-9_-]+")
"""A token (JWT) as it is shown: a key has no point."""
MOST_SIGNING_KEYS = 16
"""Of an issuer that are kept."""
MOST_READ = 256
LEAST_BITS, MOST_BITS = 2048, 8192
"""Of an RSA modulus (RFC 7518, 3.3); verifying with a larger one takes too long."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_COORDINATE = {"P-256": 32, "P-384": 48, "P-521": 66}
_LONGEST_NAME = 256
_SMALL_ORDER = frozenset(
    map(
        bytes.fromhex,
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ),
    )
)
"""Points of Ed25519 (without the sign) under which a signature holds that nobody made: order 1, 2, 4 or 8."""
_B64URL = re.compile(r"[A-Za-z0-9_-]*")


class SigningKey(NamedTuple):
    """A public key. ``members``: as JWK has them."""

    name: str | None
    """kid."""
    kind: str
    curve: str
    algorithm: str
    """The one that it is for; "" for any that fits it."""
    members: Mapping[str, str]

    def fits(self, algorithm: str) -> bool:
        """Whether a token by ``algorithm`` may be verified with it."""
        return ALGORITHMS.get(algorithm) == (self.kind, self.curve) and self.algorithm in ("", algorithm)

    def jwk(self) -> dict[str, str]:
        """As JSON has it."""
        named = {"kty": self.kind, "crv": self.curve, "alg": self.algorithm, "kid": self.name}
        return {name: value for name, value in named.items() if value} | dict(self.members)


class _NotFor(ValueError):
    """A key of a kind, or for a use, that isn't ours: right, and left alone."""


def b64url(text: str) -> bytes:
    """RFC 7515's base64url: no padding, no bit that says nothing. Raises ValueError."""
    if not _B64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("it is no base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError("it is no base64url: bits at its end say nothing")
    return data


def has_small_order(point: bytes) -> bool:
    """Whether a public key of Ed25519 (32 bytes) is one that anybody can sign for."""
    return point[:31] + bytes([point[31] & 0x7F]) in _SMALL_ORDER


def given_keys(text: str) -> list[SigningKey]:
    """Of a JWK set that a person wrote: whatever is odd about it is told. Raises ValueError."""
    listed = _listed(text)
    if len(listed) > MOST_SIGNING_KEYS:
        raise ValueError(f"expected at most {MOST_SIGNING_KEYS} keys, found {len(listed)}")
    keys = []
    for number, one in enumerate(listed):
        try:
            keys.append(_key(one))
        except _NotFor:
            continue
        except ValueError as error:
            raise ValueError(f"keys[{number}]: {error}") from None
    if twice := _twice(keys):
        raise ValueError(f"expected each kid once, found {twice[0]!r} twice")
    return _some(keys)


def fetched_keys(text: bytes | str) -> list[SigningKey]:
    """Of a JWK set that an issuer publishes: keys that aren't for us are left out, and both of a name that stands
    twice. Raises ValueError."""
    keys = []
    for one in _listed(text):
        try:
            keys.append(_key(one))
        except ValueError:
            continue
    twice = set(_twice(keys))
    return _some([key for key in keys if key.name is None or key.name not in twice])[:MOST_SIGNING_KEYS]


def _listed(text: bytes | str) -> Sequence[Json]:
    try:
        found = strict_json(text)
    except ValueError as error:
        raise ValueError(f'expected a JWK set as JSON, {{"keys": […]}}, found {error}') from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError('expected a JWK set, {"keys": […]}, found no list of keys')
    if len(listed) > MOST_READ:
        raise ValueError(f"expected at most {MOST_READ} keys, found {len(listed)}")
    return listed


def _twice(keys: list[SigningKey]) -> list[str]:
    return [name for name, times in Counter(key.name for key in keys).items() if name is not None and times > 1]


def _some(keys: list[SigningKey]) -> list[SigningKey]:
    if not keys:
        raise ValueError("expected a public key for signatures (RSA, EC P-256/384/521, Ed25519), found none")
    return keys


def _key(one: Json) -> SigningKey:
    """Raises ValueError."""
    if not isinstance(one, dict):
        raise ValueError("expected a JWK, found no object")
    if secret := sorted(_PRIVATE & one.keys()):
        raise ValueError(
            f"expected a public key, found a secret ({secret[0]}): it has been shown now, so draw another key, and "
            "give its public part alone"
        )
    kind, name, algorithm = one.get("kty"), one.get("kid"), one.get("alg", "")
    operations = one.get("key_ops", ["verify"])
    if one.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _NotFor("it isn't for signatures")
    if name is not None and not (isinstance(name, str) and len(name) <= _LONGEST_NAME):
        raise ValueError(f"kid: expected a text of at most {_LONGEST_NAME} characters")
    if not isinstance(algorithm, str) or (algorithm and algorithm not in ALGORITHMS):
        raise _NotFor(f"alg: expected one of {', '.join(ALGORITHMS)}")
    made = _rsa(one) if kind == "RSA" else _point(one, kind)
    key = SigningKey(name, made.kind, made.curve, algorithm, made.members)
    if algorithm and not key.fits(algorithm):
        raise ValueError(f"alg: expected one that its kind of key makes, found {algorithm}")
    return key


def _rsa(one: Mapping[str, Json]) -> SigningKey:
    modulus, exponent = _bytes(one, "n"), int.from_bytes(_bytes(one, "e"), "big")
    bits = int.from_bytes(modulus, "big").bit_length()
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"n: expected an RSA key of {LEAST_BITS} to {MOST_BITS} bits, found {bits}")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 32:
        raise ValueError("e: expected an odd number from 3 to 32 bits, such as AQAB")
    return SigningKey(None, "RSA", "", "", {name: str(one[name]) for name in ("n", "e")})


def _point(one: Mapping[str, Json], kind: Json) -> SigningKey:
    curve = one.get("crv")
    names = {"EC": ("x", "y"), "OKP": ("x",)}.get(str(kind), ())
    size = _COORDINATE.get(str(curve)) if kind == "EC" else 32 if (kind, curve) == ("OKP", "Ed25519") else None
    if size is None:
        raise _NotFor("it is of a kind that isn't taken")
    for name in names:
        if (found := len(_bytes(one, name))) != size:
            raise ValueError(f"{name}: expected {size} bytes, found {found}")
    if kind == "OKP" and has_small_order(_bytes(one, "x")):
        raise ValueError(
            "x: expected a public key of Ed25519, found a point of small order, for which anybody can sign"
        )
    return SigningKey(None, str(kind), str(curve), "", {name: str(one[name]) for name in names})


def _bytes(one: Mapping[str, Json], name: str) -> bytes:
    text = one.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected base64url, found none")
    try:
        return b64url(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


# PEM

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s([A-Za-z0-9+/=\s]+)-----END \1-----")
_RSA, _EC, _ED25519 = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2b6570")
_ED25519_DER = 44
"""Bytes of one with an Ed25519 key (RFC 8410, 4)."""
_LEAST_RSA = 290
"""Bytes of a SubjectPublicKeyInfo (RFC 5280, 4.1) with an RSA key of 2048 bits: 294, or a few less."""


def pem_blocks(text: str) -> list[str]:
    """Each key of ``text`` alone."""
    return [match[0] for match in _BLOCK.finditer(text)]


def check_pem(text: str) -> None:
    """Raises ValueError for what holds no public keys, or holds anything else."""
    blocks = list(_BLOCK.finditer(text))
    if any("PRIVATE" in match[1] for match in blocks):
        raise ValueError(
            "expected public keys (-----BEGIN PUBLIC KEY-----), found a private key: it has been shown now, so draw "
            "another, and give its public part alone"
        )
    if not blocks or _BLOCK.sub("", text).strip():
        raise ValueError("expected public keys (-----BEGIN PUBLIC KEY-----), found something else")
    if len(blocks) > MOST_SIGNING_KEYS:
        raise ValueError(f"expected at most {MOST_SIGNING_KEYS} keys, found {len(blocks)}")
    for match in blocks:
        if match[1] != "PUBLIC KEY":
            raise ValueError(
                f"expected -----BEGIN PUBLIC KEY-----, found {match[1]}; of a certificate: openssl x509 -pubkey -noout"
            )
        _check_der("".join(match[2].split()))


def _check_der(text: str) -> None:
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("expected base64 between the lines of a PEM, found something else") from None
    if _RSA in der[:32]:
        if len(der) < _LEAST_RSA:
            raise ValueError(f"expected an RSA key of {LEAST_BITS} bits or more, found a smaller one")
    elif _ED25519 in der[:32] and len(der) == _ED25519_DER and has_small_order(der[-32:]):
        raise ValueError("expected a public key of Ed25519, found a point of small order, for which anybody can sign")
    elif _EC not in der[:32] and _ED25519 not in der[:32]:
        raise ValueError("expected a public key of RSA, EC or Ed25519, found another kind")

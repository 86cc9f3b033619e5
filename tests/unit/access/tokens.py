"""Tokens for tests: issuers with keys of every kind, signed by joserfc, or by hand where no library would."""

import base64
import json
import warnings
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from governed_api.token_identity import IssuerSource
from governed_serving.access.directory import Directory
from governed_serving.access.gate import Gate

from .people import NOW, SECRET, caller

ISSUER, AUDIENCE = "https://idp.example/realms/staff", "governed-models"
RSA_KEY = RSAKey.generate_key(2048, {"kid": "r1"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "r2"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "e1"})
KEYS: dict[str, Key] = {
    "RS256": RSA_KEY, "RS384": RSA_KEY, "RS512": RSA_KEY, "PS256": RSA_KEY, "PS384": RSA_KEY, "PS512": RSA_KEY,
    "ES256": EC_KEY, "ES384": ECKey.generate_key("P-384", {"kid": "e2"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "e3"}), "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "o1"}),
}  # fmt: skip


def public(key: Key, **more: Any) -> dict[str, Any]:
    """As a JWK."""
    return {**key.as_dict(private=False), **more}


def jwks(*keys: Any) -> str:
    return json.dumps({"keys": [one if isinstance(one, dict) else public(one) for one in keys]})


def pem(key: Any) -> str:
    """The public part."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    text: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return text.decode()


ALL_KEYS = jwks(*{key.kid: key for key in KEYS.values()}.values())


def claims(**more: Any) -> dict[str, Any]:
    """Valid at NOW; None takes a claim out."""
    made = {"iss": ISSUER, "sub": "app", "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW - 10, **more}
    return {name: value for name, value in made.items() if value is not None}


def token(algorithm: str = "RS256", key: Key | None = None, header: Any = None, **more: Any) -> str:
    """Signed by joserfc."""
    key = key or KEYS[algorithm]
    head = {"alg": algorithm, "kid": key.kid, **(header or {})}
    with warnings.catch_warnings(action="ignore"):  # of EdDSA, which has a newer name
        made = jwt.encode({k: v for k, v in head.items() if v is not None}, claims(**more), key, algorithms=[algorithm])
    return str(made)


def b64(data: bytes | str | dict[str, Any]) -> str:
    text = json.dumps(data) if isinstance(data, dict) else data
    raw = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, body: Any, key: Any = None) -> str:
    """Whatever a header and a body say, signed with RS256 or ES256 as ``key`` is, or HS256 where it is bytes."""
    signed = f"{header if isinstance(header, str) else b64(header)}.{body if isinstance(body, str) else b64(body)}"
    key = RSA_KEY.get_op_key("sign") if key is None else key
    if isinstance(key, bytes):
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(signed.encode())
        signature = mac.finalize()
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signed}.{b64(signature)}"


def source(**more: str) -> IssuerSource:
    """With all keys, where nothing else is said."""
    keys = {} if {"jwks", "public_keys"} & more.keys() else {"jwks": ALL_KEYS}
    return IssuerSource(**{"issuer": ISSUER, "audience": AUDIENCE, **keys, **more})


def known_by(name: str, *, of: IssuerSource | None = None, claim: tuple[str, str] | None = None, **more: Any) -> Any:
    """A caller in a document, by subject (its name) or claim."""
    made = {"issuer": (of or source()).id}
    made |= {"claim": {"name": claim[0], "value": claim[1]}} if claim else {"subject": more.pop("subject", name)}  # type: ignore[dict-item]
    return caller(name, tokens=[made], **more)


def document(*callers: Any, issuers: tuple[IssuerSource, ...] = (), sequence: int = 1, **until: str) -> bytes:
    said = [(one.given().plain() | until) for one in issuers or (source(),)]
    whole = {"namespace": "team-a", "model": "credit", "sequence": sequence, "callers": list(callers)}
    return json.dumps(whole | {"issuers": said}).encode()


def gate_of(*callers: Any, issuers: tuple[IssuerSource, ...] = (), **until: str) -> Gate:
    gate = Gate("team-a", "credit", "server", SECRET, clock=lambda: NOW)
    gate.directory = Directory(document(*callers, issuers=issuers, **until), "team-a", "credit")
    return gate


def _without(text: str, place: int, part: str) -> str:
    parts = text.split(".")
    parts[place] = part
    return ".".join(parts)


def _turned(text: str) -> str:
    """With a bit at the end of the signature's base64 that says nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1]


_HEAD, _SMALL = {"alg": "RS256", "kid": "r1"}, rsa.generate_private_key(65537, 1024)
_EC = EC_KEY.get_op_key("sign")

BAD: dict[str, tuple[str, str]] = {
    # name: (token, reason); every one but for its fault is valid for the caller app
    "expired": (token(exp=NOW - 60), "expired"),
    "expired long ago": (token(exp=0), "expired"),
    "without an end": (token(exp=None), "malformed"),
    "an end as text": (token(exp=str(NOW + 600)), "malformed"),
    "an end that is true": (token(exp=True), "malformed"),
    "an end before time": (token(exp=-1), "malformed"),
    "an endless end": (by_hand(_HEAD, b64(json.dumps(claims(exp=1)).replace('"exp": 1', '"exp": 1e999'))), "malformed"),
    "an end of many digits": (
        by_hand(_HEAD, b64(json.dumps(claims(exp=1)).replace('"exp": 1', f'"exp": {"9" * 5000}'))), "malformed",
    ),
    "not yet valid": (token(nbf=NOW + 61), "early"),
    "made in the future": (token(iat=NOW + 61), "early"),
    "a beginning as text": (token(nbf="now"), "malformed"),
    "another audience": (token(aud="another"), "audience"),
    "other audiences": (token(aud=["a", "b"]), "audience"),
    "no audience": (token(aud=None), "audience"),
    "an empty list of audiences": (token(aud=[]), "audience"),
    "an audience in a list in a list": (token(aud=[[AUDIENCE]]), "malformed"),
    "an audience that is an object": (token(aud={AUDIENCE: True}), "malformed"),
    "an audience that only begins so": (token(aud=f"{AUDIENCE}-2"), "audience"),
    "many audiences": (token(aud=[AUDIENCE, *map(str, range(64))]), "malformed"),
    "another issuer": (token(iss="https://evil.example"), "unknown"),
    "an issuer with a slash more": (token(iss=f"{ISSUER}/"), "unknown"),
    "no issuer": (token(iss=None), "malformed"),
    "issuers in a list": (token(iss=[ISSUER]), "malformed"),
    "unsigned": (f"{b64({'alg': 'none'})}.{b64(claims())}.", "malformed"),
    "unsigned, oddly written": (f"{b64({'alg': 'nOnE', 'kid': 'r1'})}.{b64(claims())}.", "malformed"),
    "unsigned with a signature": (by_hand({"alg": "none"}, claims()), "malformed"),
    "a public key as a secret": (
        by_hand({"alg": "HS256", "kid": "r1"}, claims(), pem(RSA_KEY.get_op_key("sign")).encode()), "malformed",
    ),
    "a JWK as a secret": (by_hand({"alg": "HS256"}, claims(), json.dumps(public(RSA_KEY)).encode()), "malformed"),
    "no signature": (_without(token(), 2, ""), "unknown"),
    "a shorter signature": (_without(token(), 2, b64(bytes(255))), "unknown"),
    "ES256 by an RSA key": (by_hand({"alg": "ES256", "kid": "r1"}, claims()), "unknown"),
    "RS256 by an EC key": (by_hand({"alg": "RS256", "kid": "e1"}, claims(), _EC), "unknown"),
    "ES384 by a key of P-256": (by_hand({"alg": "ES384", "kid": "e1"}, claims(), _EC), "unknown"),
    "PS256 with padding of RS256": (by_hand({"alg": "PS256", "kid": "r1"}, claims()), "unknown"),
    "ES256 of zeros": (_without(token("ES256"), 2, b64(bytes(64))), "unknown"),
    "ES256 as DER": (_without(token("ES256"), 2, b64(_EC.sign(b"x", ec.ECDSA(hashes.SHA256())))), "unknown"),
    "an unknown key's name": (token(header={"kid": "r9"}), "unknown"),
    "another key of the same name": (token(key=OTHER_RSA, header={"kid": "r1"}), "unknown"),
    "another key without a name": (token(key=OTHER_RSA, header={"kid": None}), "unknown"),
    "a key's name that is a path": (token(header={"kid": "../../dev/null"}), "unknown"),
    "a key's name that is a number": (by_hand({"alg": "RS256", "kid": 1}, claims()), "malformed"),
    "a long name of a key": (by_hand({"alg": "RS256", "kid": "k" * 257}, claims()), "malformed"),
    "a key of 1024 bits": (by_hand(_HEAD, claims(), _SMALL), "unknown"),
    "a key in it": (by_hand({"alg": "RS256", "jwk": public(OTHER_RSA)}, claims(), OTHER_RSA.get_op_key("sign")),
                    "malformed"),
    "a place of keys": (by_hand({**_HEAD, "jku": "https://evil.example/jwks"}, claims()), "malformed"),
    "a place of a certificate": (by_hand({**_HEAD, "x5u": "https://evil.example/c"}, claims()), "malformed"),
    "a certificate": (by_hand({**_HEAD, "x5c": ["MII="]}, claims()), "malformed"),
    "critical extensions": (by_hand({**_HEAD, "crit": ["exp"], "exp": 1}, claims()), "malformed"),
    "no critical extensions": (by_hand({**_HEAD, "crit": []}, claims()), "malformed"),
    "a body that isn't encoded": (by_hand({**_HEAD, "b64": False}, claims()), "malformed"),
    "a token in a token": (by_hand({**_HEAD, "cty": "JWT"}, b64(token())), "malformed"),
    "a token of a logout": (by_hand({**_HEAD, "typ": "logout+jwt"}, claims()), "malformed"),
    "encrypted": (".".join([b64({"alg": "RSA-OAEP", "enc": "A256GCM"}), *"abcd"]), "malformed"),
    "too long by a byte": (token(pad="p" * 8192), "malformed"),
    "two parts": (token().rpartition(".")[0], "malformed"),
    "three empty parts": ("..", "malformed"),
    "no base64": (_without(token(), 1, "{}"), "malformed"),
    "padded base64": (_without(token(), 1, b64(claims(sub="apps")) + "="), "malformed"),
    "base64 of another alphabet": (_without(token(), 1, b64(claims())[:-1] + "+"), "malformed"),
    "base64 that says nothing at its end": (_turned(token()), "malformed"),
    "no JSON": (by_hand(_HEAD, b64("{")), "malformed"),
    "no UTF-8": (by_hand(_HEAD, b64(b'{"iss": "\xff"}')), "malformed"),
    "a byte order mark": (by_hand(_HEAD, b64("\ufeff" + json.dumps(claims()))), "malformed"),
    "UTF-16": (by_hand(_HEAD, b64(json.dumps(claims()).encode("utf-16"))), "malformed"),
    "a list": (by_hand(_HEAD, b64("[]")), "malformed"),
    "JSON that nests": (by_hand(_HEAD, b64("[" * 5000)), "malformed"),
    "NaN": (by_hand(_HEAD, b64(json.dumps(claims(x=float("nan"))))), "malformed"),
    "a subject twice": (by_hand(_HEAD, b64(json.dumps(claims())[:-1] + ', "sub": "root"}')), "malformed"),
    "an algorithm twice": (by_hand(b64('{"alg": "none", "alg": "RS256"}'), claims()), "malformed"),
    "a name twice, deep in it": (by_hand(_HEAD, b64(json.dumps(claims())[:-1] + ', "a": {"b": 1, "b": 2}}')),
                                 "malformed"),
    "a subject in lists": (token(sub=[["app"]]), "malformed"),
    "a subject in a list": (token(sub=["app"]), "malformed"),
    "a subject that is a number": (token(sub=7), "malformed"),
    "a subject that is null": (by_hand(_HEAD, b64(json.dumps({**claims(), "sub": None}))), "malformed"),
    "an empty subject": (token(sub=""), "malformed"),
    "no subject": (token(sub=None), "unknown"),
    "another subject": (token(sub="App"), "unknown"),
    "a subject with a space": (token(sub="app "), "unknown"),
    "a subject in Cyrillic": (token(sub="арр"), "unknown"),
    "a subject with a combining sign": (token(sub="app\u0301"), "unknown"),
    "a subject with nothing to see": (token(sub="app\u200b"), "unknown"),
    "a wide subject": (token(sub="ａｐｐ"), "unknown"),
    "half a character": (by_hand(_HEAD, b64(json.dumps(claims(sub="app")).replace("app", "app\\ud800"))), "unknown"),
    "a subject with an end": (token(sub="app\x00"), "unknown"),
}  # fmt: skip
"""Tokens that open nothing, and as what they are counted."""

"""Keys of issuers as people write them: what is taken, and what each fault is told."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from governed_api.token_keys import b64url, check_pem, given_keys
from governed_operator.local.manifest_file import findings
from support.consumer_manifests import OIDC, consumer
from unit.access.tokens import EC_KEY, KEYS, OTHER_RSA, RSA_KEY, jwks, pem, public

SMALL = rsa.generate_private_key(65537, 1024)


def rsa_jwk(**more: Any) -> dict[str, Any]:
    return public(RSA_KEY, **more)


FAULTS: dict[str, tuple[str, str]] = {
    "no JSON": ("keys", "expected a JWK set as JSON"),
    "no set": ("[]", "found no list of keys"),
    "one key alone": (json.dumps(public(RSA_KEY)), "found no list of keys"),
    "none": ('{"keys": []}', "found none"),
    "a name twice": ('{"keys": [], "keys": []}', "a name stands twice"),
    "a number": ('{"keys": [1]}', "keys[0]: expected a JWK, found no object"),
    "a private key": (json.dumps({"keys": [RSA_KEY.as_dict(private=True)]}), "keys[0]: expected a public key"),
    "a shared secret": ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', "found a secret (k)"),
    "a small key": (jwks(rsa_jwk(n="AQAB" * 40)), "expected an RSA key of 2048 to 8192 bits, found 953"),
    "a vast key": (jwks(rsa_jwk(n="AQAB" * 400)), "expected an RSA key of 2048 to 8192 bits"),
    "an even exponent": (jwks(rsa_jwk(e="AQAA")), "e: expected an odd number"),
    "an exponent of one": (jwks(rsa_jwk(e="AQ")), "e: expected an odd number"),
    "no modulus": (jwks({"kty": "RSA", "e": "AQAB"}), "n: expected base64url, found none"),
    "padding": (jwks(rsa_jwk(e="AQAB==")), "e: it is no base64url"),
    "a short coordinate": (jwks(public(EC_KEY, x="AQAB")), "x: expected 32 bytes, found 3"),
    "another's algorithm": (jwks(rsa_jwk(alg="ES256")), "alg: expected one that its kind of key makes"),
    "a kid that is no text": (jwks(rsa_jwk(kid=7)), "kid: expected a text"),
    "two of a kid": (jwks(RSA_KEY, public(OTHER_RSA, kid="r1")), "expected each kid once, found 'r1' twice"),
    "for encryption alone": (jwks(rsa_jwk(use="enc")), "expected a public key for signatures"),
    "of an unknown curve": (jwks(public(EC_KEY, crv="secp256k1")), "expected a public key for signatures"),
    "many": (jwks(*[rsa_jwk(kid=str(n)) for n in range(17)]), "expected at most 16 keys, found 17"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_set_of_keys_is_told(name: str) -> None:
    text, message = FAULTS[name]
    with pytest.raises(ValueError, match=r".") as error:
        given_keys(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_others_publish_beside_our_keys_is_left_alone() -> None:
    text = jwks(RSA_KEY, rsa_jwk(kid="enc", use="enc"), rsa_jwk(kid="odd", alg="RSA-OAEP"), public(EC_KEY, crv="P-192"))
    assert [key.name for key in given_keys(text)] == ["r1"]


@pytest.mark.parametrize("text", ["A", "AB", "AAAB=", "AA A", "AAA\n", "A+A", "é"])
def test_base64_has_one_form(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        b64url(text)


def private(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    text: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text.decode()


ONE = pem(ec.generate_private_key(ec.SECP256R1()))


def test_public_keys_as_pem_are_taken() -> None:
    check_pem("\n\n".join([ONE, pem(ed25519.Ed25519PrivateKey.generate()), pem(RSA_KEY.get_op_key("sign"))]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found something else"),
        ("ssh-ed25519 AAAA", "found something else"),
        (f"see {ONE}", "found something else"),
        (f"{ONE}-----BEGIN", "found something else"),
        (private(ed25519.Ed25519PrivateKey.generate()), "found a private key"),
        (ONE + private(SMALL), "found a private key"),
        (pem(SMALL), "2048 bits or more"),
        (pem(dsa.generate_private_key(2048)), "RSA, EC or Ed25519, found another kind"),
        (ONE.replace("PUBLIC KEY", "CERTIFICATE"), "openssl x509 -pubkey"),
        (ONE * 17, "at most 16 keys, found 17"),
    ],
)
def test_a_fault_in_a_pem_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        check_pem(text)
    assert message in str(error.value)


def test_validate_says_it_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(consumer(oidc=OIDC | {"jwks": jwks(rsa_jwk(n="AQAB"))})))
    (line,) = findings(path)
    assert "spec.oidc.jwks: Invalid value: keys[0]: n: expected an RSA key of 2048 to 8192 bits, found 17" in line
    path.write_text(yaml.safe_dump(consumer(oidc=OIDC | {"jwks": jwks(*{k.kid: k for k in KEYS.values()}.values())})))
    assert findings(path) == []

"""Tokens and keys that an attacker would try beside those of ``tokens.BAD``."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from governed_api.token_keys import check_pem, fetched_keys, given_keys, has_small_order
from governed_serving.access.credentials import credential
from governed_serving.access.refusals import Unknown
from governed_serving.access.signatures import verifiers_of

from .people import NOW
from .test_tokens import APP, reason, shown
from .tokens import EC_KEY, RSA_KEY, b64, by_hand, claims, gate_of, jwks, token

HEAD = {"alg": "RS256", "kid": "r1"}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256's group."""
WEAK = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)


def es256(r: int, s: int) -> str:
    return f"{token('ES256').rpartition('.')[0]}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def der_signed() -> str:
    signed = token("ES256").rpartition(".")[0]
    return f"{signed}.{b64(EC_KEY.get_op_key('sign').sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (by_hand(HEAD, b64(json.dumps(claims())[:-1] + ', "\\u0073ub": "root"}')), "malformed"),
        (by_hand(b64('{"alg": "RS256", "kid": "r1", "\\u006bid": "r2"}'), claims()), "malformed"),
        (by_hand(b64('{"alg": "RS256", "\\u006awk": {}}'), claims()), "malformed"),
        (by_hand({**HEAD, "jwk": None}, claims()), "malformed"),
        (by_hand({"ALG": "RS256"}, claims()), "malformed"),
        (by_hand({"alg": "rs256", "kid": "r1"}, claims()), "malformed"),
        (by_hand({"alg": ["RS256"]}, claims()), "malformed"),
        (by_hand({"alg": "RS256 "}, claims()), "malformed"),
        (by_hand({"alg": "ES256K"}, claims()), "malformed"),
        (by_hand({**HEAD, "kid": ""}, claims()), "unknown"),
        (by_hand({**HEAD, "kid": "r1\x00"}, claims()), "unknown"),
        (by_hand({**HEAD, "kid": "R1"}, claims()), "unknown"),
        (by_hand({**HEAD, "kid": "' OR 1=1 --"}, claims()), "unknown"),
        (token(exp=1 << 53), "malformed"),
        (token(exp=10**15, nbf=1 << 53), "malformed"),
        (token(exp=-0.0), "expired"),
        (token(iat=-1), "malformed"),
        (token(nbf=True), "malformed"),
        (token(exp=[NOW + 600]), "malformed"),
        (token(iss="https://idp.example/realms/st\u0430ff"), "unknown"),
        (token(iss="HTTPS://idp.example/realms/staff"), "unknown"),
        (token(iss="https://idp.example:443/realms/staff"), "unknown"),
        (token(iss="https://idp.example/realms/./staff"), "unknown"),
        (token(iss="https://idp.example/realms/staff#"), "unknown"),
        (token(iss="https://idp.example/realms/staff\n"), "unknown"),
        (token(aud="GOVERNED-MODELS"), "audience"),
        (token(aud=["governed-models "]), "audience"),
        (token(aud=None, azp="governed-models"), "audience"),
        (es256(0, 1), "unknown"),
        (es256(1, 0), "unknown"),
        (es256(ORDER, ORDER), "unknown"),
        (es256(ORDER + 1, 1), "unknown"),
        (es256((1 << 256) - 1, (1 << 256) - 1), "unknown"),
        (der_signed(), "unknown"),
        (token("ES256") + "AA", "unknown"),
        (token() + "=", "malformed"),
        (token() + "\n", "malformed"),
        (token().replace(".", "。", 1) + ".", "malformed"),
        (token("ES512") + "A", "malformed"),
        (".".join((b64(HEAD), b64(token()), b64(b"x"))), "malformed"),
    ],
)
def test_what_an_attacker_tries_opens_nothing(text: str, why: str) -> None:
    assert reason(gate_of(APP), text) == why


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")], "several"),
        ([("authorization", "Bearer a.b.c"), ("x-api-key", "k")], "several"),
        ([("authorization", "Bearer\ta.b.c")], "malformed"),
        ([("authorization", "Bearer,a.b.c")], "malformed"),
        ([("authorization", "a.b.c")], "malformed"),
        ([("authorization", "Basic YTpi")], "malformed"),
        ([("authorization", "Bearer")], "missing"),
        ([("authorization", "Bearer  ")], "missing"),
        ([("authorization", "")], "malformed"),
        ([("authorization", "Bearer " + "a" * 100_000 + ".b.c")], "malformed"),
        ([("x-api-key", "a" * 600 + ".b.c")], "malformed"),
        ([("authorization-bin", "Bearer a.b.c")], "missing"),
        ([("x-api-key-bin", "k")], "missing"),
        ([("proxy-authorization", "Bearer a.b.c")], "missing"),
        ([("cookie", "authorization=Bearer a.b.c")], "missing"),
    ],
)
def test_a_credential_is_in_one_field_and_one_form(headers: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(Unknown) as error:
        credential([(name.encode(), value.encode()) for name, value in headers])
    assert error.value.reason == why


@pytest.mark.parametrize("field", ["bearer {}", "BEARER {}", "Bearer  {} ", "Bearer {}\t"])
def test_a_scheme_is_written_in_any_case(field: str) -> None:
    text = token()
    assert credential([(b"authorization", field.format(text).encode())]) == text
    assert shown(gate_of(APP), text) == "app"


def test_nobody_signs_for_a_point_of_small_order() -> None:
    """Under such a key a signature holds for one message in a few, whoever made it."""
    good = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, 7.1
    assert not has_small_order(bytes.fromhex(good))
    for text in WEAK:
        point = bytes.fromhex(text)
        assert has_small_order(point)
        key = {"kty": "OKP", "crv": "Ed25519", "x": b64(point)}
        with pytest.raises(ValueError, match=r"keys\[0\]: x: expected a public key of Ed25519, found a point of small"):
            given_keys(json.dumps({"keys": [key]}))
        assert [one.name for one in fetched_keys(jwks(key, RSA_KEY))] == ["r1"]
        der = bytes.fromhex("302a300506032b6570032100") + point
        pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
        with pytest.raises(ValueError, match="found a point of small order"):
            check_pem(pem)
        assert verifiers_of("", pem) == []
    fine = bytes.fromhex("302a300506032b6570032100" + good)
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(fine).decode()}\n-----END PUBLIC KEY-----\n"
    check_pem(pem)
    assert len(verifiers_of("", pem)) == 1

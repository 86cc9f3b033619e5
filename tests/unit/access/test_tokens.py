"""Whose a token is: issuers, keys, subjects and claims, and all that opens nothing."""

import hashlib
import json
from typing import Any

import pytest

from governed_api.callers import CallerRole
from governed_serving.access import tokens as tokens_room
from governed_serving.access.credentials import credential
from governed_serving.access.directory import BadDocument, Directory
from governed_serving.access.gate import Gate
from governed_serving.access.jwt import LONGEST_TOKEN
from governed_serving.access.refusals import KeysAway, NotAllowed, Unknown
from governed_serving.access.signatures import Verifier
from governed_serving.access.tokens import REMEMBERED, SKEW

from .people import NOW, kept, key
from .tokens import (
    AUDIENCE,
    BAD,
    EC_KEY,
    KEYS,
    OTHER_RSA,
    RSA_KEY,
    by_hand,
    claims,
    document,
    gate_of,
    jwks,
    known_by,
    pem,
    public,
    source,
    token,
)  # fmt: skip

APP = known_by("app")


def shown(gate: Gate, text: str) -> str:
    """Who is let in by it, over all that stands before."""
    headers = [(b"authorization", f"Bearer {text}".encode())]
    return gate.admit(headers, "192.0.2.1", CallerRole.CALL).name


def reason(gate: Gate, text: str) -> str:
    with pytest.raises(Unknown) as error:
        gate.known(text)
    assert text[:20] not in str(error.value)
    return error.value.reason


@pytest.mark.parametrize("algorithm", [*KEYS])
def test_a_token_of_each_algorithm_is_its_subject_s(algorithm: str) -> None:
    gate = gate_of(APP)
    for text in (token(algorithm), token(algorithm, header={"kid": None})):
        assert shown(gate, text) == "app"
        head, body, signature = text.split(".")
        turned = "A" if signature[5] != "A" else "B"
        assert reason(gate, f"{head}.{body}.{signature[:5]}{turned}{signature[6:]}") == "unknown"


@pytest.mark.parametrize("name", BAD)
def test_a_token_with_a_fault_opens_nothing(name: str) -> None:
    text, why = BAD[name]
    gate = gate_of(APP)
    with pytest.raises(Unknown) as error:
        shown(gate, text)
    assert error.value.reason == why
    assert (gate.refused, gate.allowed) == ({why: 1}, {})


@pytest.mark.parametrize(
    "text",
    [
        token(exp=NOW - SKEW + 1), token(nbf=NOW + SKEW), token(iat=NOW + SKEW), token(iat=None), token(nbf=NOW + 0.5),
        token(aud=["other", AUDIENCE]), token(exp=NOW + 0.25), token(header={"typ": "at+jwt"}), token(jti=[{}], x=None),
        token(header={"x5t": "abc"}), token(pad="p" * 5000),
    ],
)  # fmt: skip
def test_what_is_within_its_bounds_is_taken(text: str) -> None:
    assert shown(gate_of(APP), text) == "app"


def test_the_longest_token_is_taken_and_a_longer_one_is_not() -> None:
    short = len(token(pad=""))
    texts = [token(pad="p" * ((LONGEST_TOKEN - short) * 3 // 4 + more)) for more in range(-6, 9)]
    fits = [text for text in texts if len(text) <= LONGEST_TOKEN]
    assert 0 < len(fits) < len(texts)
    gate = gate_of(APP)
    assert {shown(gate, text) for text in fits} == {"app"}
    assert {reason(gate, text) for text in texts if text not in fits} == {"malformed"}


def test_a_token_stands_in_authorization_alone() -> None:
    text = token()
    for name in (b"x-api-key", b"api-key"):
        with pytest.raises(Unknown) as error:
            credential([(name, text.encode())])
        assert error.value.reason == "malformed"
    with pytest.raises(Unknown) as error:
        credential([(b"authorization", b"Bearer " + text.encode()), (b"x-api-key", key("a").encode())])
    assert error.value.reason == "several"
    for query in (f"t={text}", "access_token=x", f"a=b&q={text.replace('.', '%2E')}", "id_token=x"):
        with pytest.raises(Unknown) as error:
            credential([(b"authorization", b"Bearer " + text.encode())], query.encode())
        assert error.value.reason == "query"


# keys


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_keys_may_be_given_as_pem(algorithm: str) -> None:
    keys = "".join(pem(one.get_op_key("sign")) for one in {one.kid: one for one in KEYS.values()}.values())
    of = source(public_keys=keys)
    gate = gate_of(known_by("app", of=of), issuers=(of,))
    assert shown(gate, token(algorithm)) == "app"
    assert reason(gate, token(key=OTHER_RSA)) == "unknown"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"jwks": jwks(public(RSA_KEY, alg="RS512"))}, "unknown"),
        ({"jwks": jwks(public(RSA_KEY, use="enc"), EC_KEY)}, "unknown"),
        ({"jwks": jwks(public(RSA_KEY, key_ops=["encrypt"]), EC_KEY)}, "unknown"),
        ({"jwks": jwks(public(OTHER_RSA, kid="r1"))}, "unknown"),
    ],
)
def test_a_key_serves_what_it_is_for(given: dict[str, str], why: str) -> None:
    of = source(**given)
    assert reason(gate_of(known_by("app", of=of), issuers=(of,)), token()) == why


@pytest.mark.parametrize(
    "given",
    [
        {"jwks": "{}"},
        {"jwks": ""},
        {"public_keys": "none"},
        {"jwks": jwks(RSA_KEY, public(OTHER_RSA, kid="r1"))},
        {"jwks": jwks(public(EC_KEY, y=public(EC_KEY)["x"]))},
    ],
)
def test_an_issuer_whose_keys_are_none_lets_nobody_in(given: dict[str, str]) -> None:
    """A newer operator's, or an edited one that somebody sealed: keys are judged where they are used, too."""
    of = source(**given)
    gate = gate_of(known_by("app", of=of), issuers=(of,))
    with pytest.raises(KeysAway):
        shown(gate, token())
    assert gate.refused == {"keys_away": 1}


def test_keys_that_are_too_old_let_nobody_in() -> None:
    past, ahead = "2027-01-15T07:59:59Z", "2027-01-15T08:00:01Z"
    with pytest.raises(KeysAway):
        shown(gate_of(APP, until=past), token())
    gate = gate_of(APP, until=ahead)
    assert shown(gate, token()) == "app"
    gate.clock = lambda: NOW + 2
    with pytest.raises(KeysAway):
        shown(gate, token())


# who


def test_two_callers_by_one_token_are_nobody() -> None:
    gate = gate_of(APP, known_by("members", claim=("groups", "staff")))
    assert shown(gate, token()) == "app"
    assert shown(gate, token(sub="other", groups=["staff"])) == "members"
    assert reason(gate, token(groups=["staff"])) == "ambiguous"
    assert reason(gate_of(APP, known_by("twin", subject="app")), token()) == "ambiguous"


@pytest.mark.parametrize(
    ("claim", "value", "known"),
    [
        ("groups", ["a", "staff"], True),
        ("groups", "staff", True),
        ("https://example.com/team", ["staff"], True),
        ("groups", ["a"], False),
        ("groups", "staff a", False),
        ("groups", [["staff"]], False),
        ("groups", ["staff", 1], False),
        ("groups", {"staff": True}, False),
        ("groups", None, False),
        ("groups", 1, False),
        ("groups", ["ｓtaff"], False),
    ],
)
def test_a_claim_is_a_text_or_has_it(claim: str, value: Any, known: bool) -> None:
    gate = gate_of(known_by("members", claim=(claim, "staff")))
    text = token(**{"sub": None, claim: value})
    assert (shown(gate, text) == "members") if known else (reason(gate, text) == "unknown")


@pytest.mark.parametrize(
    ("verified", "known"), [(True, True), (None, False), (False, False), ("true", False), (1, False)]
)
def test_an_address_that_nobody_has_verified_says_nothing(verified: Any, known: bool) -> None:
    gate = gate_of(known_by("a", claim=("email", "a@example.com")))
    text = token(email="a@example.com", email_verified=verified)
    assert (shown(gate, text) == "a") if known else (reason(gate, text) == "unknown")


def test_issuers_and_audiences_are_apart() -> None:
    other = source(issuer="https://other.example", jwks=jwks(OTHER_RSA))
    loans = source(audience="loans")
    gate = gate_of(APP, known_by("there", of=other, subject="app"), known_by("loans", of=loans, subject="app"),
                   issuers=(source(), other, loans))  # fmt: skip
    assert shown(gate, token()) == "app"
    assert shown(gate, token(aud="loans")) == "loans"
    assert shown(gate, token(key=OTHER_RSA, iss="https://other.example")) == "there"
    assert reason(gate, token(iss="https://other.example")) == "unknown"
    assert reason(gate, token(key=OTHER_RSA)) == "unknown"
    assert reason(gate, token(aud=["loans", AUDIENCE])) == "ambiguous"


def test_what_a_consumer_has_otherwise_holds_for_tokens() -> None:
    gate = gate_of(known_by("gone", suspended=True), known_by("old", expires="2027-01-15T07:59:59Z"),
                   known_by("reader", roles=["audit"]), known_by("both"))  # fmt: skip
    assert reason(gate, token(sub="gone")) == "suspended"
    assert reason(gate, token(sub="old")) == "expired"
    with pytest.raises(NotAllowed):
        shown(gate, token(sub="reader"))
    assert reason(gate, key("a")) == "unknown"


def test_a_caller_with_keys_and_tokens_is_one() -> None:
    gate = gate_of({**APP, "keys": [kept(key("a"))]})
    assert gate.known(key("a")) is gate.known(token())


# what is remembered


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    verifies = Verifier.verifies

    def counted(self: Verifier, algorithm: str, *rest: Any) -> bool:
        seen.append(algorithm)
        return verifies(self, algorithm, *rest)

    monkeypatch.setattr(Verifier, "verifies", counted)
    return seen


def test_a_token_is_verified_once_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen, text = gate_of(APP), counting(monkeypatch), token(exp=NOW + 10)
    assert [shown(gate, text) for _ in range(3)] == ["app"] * 3
    assert len(seen) == 1
    gate.clock = lambda: NOW + 10 + SKEW
    assert reason(gate, text) == "expired"


def test_what_opens_nothing_is_remembered_by_nobody_and_costs_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = gate_of(APP), counting(monkeypatch)
    for text in (token(iss="https://evil.example"), token(header={"kid": "r9"}), token(sub="other"), BAD["expired"][0]):
        for _ in range(2):
            reason(gate, text)
    assert len(seen) == 8, "whatever is wrong with it"
    assert not gate.directory._tokens._verified  # type: ignore[union-attr]


def test_what_is_remembered_is_bounded_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_room, "REMEMBERED", 4)
    seen, gate = counting(monkeypatch), gate_of(APP)
    texts = [token("ES256", jti=str(number)) for number in range(6)]
    for text in (*texts[:4], texts[0], *texts[4:]):
        shown(gate, text)
    kept_ones = gate.directory._tokens._verified  # type: ignore[union-attr]
    assert list(kept_ones) == [hashlib.sha256(text.encode()).digest() for text in (texts[3], texts[0], *texts[4:])]
    assert len(seen) == 6
    assert REMEMBERED == 4096


def test_a_new_document_holds_at_once() -> None:
    gate, text = gate_of(APP), token()
    assert shown(gate, text) == "app"
    before = gate.directory

    def taken(sequence: int, *callers: Any, of: Any = None) -> None:
        said = document(*callers, sequence=sequence, issuers=(of or source(),))
        gate.directory = Directory(said, "team-a", "credit", gate.directory)

    taken(2, {**APP, "suspended": True})
    assert reason(gate, text) == "suspended"
    taken(3, APP)
    assert shown(gate, text) == "app"
    assert gate.directory._tokens._issuers[source().id] is before._tokens._issuers[source().id]  # type: ignore[union-attr]
    rotated = source(jwks=jwks(OTHER_RSA))
    taken(4, known_by("app", of=rotated), of=rotated)
    assert reason(gate, text) == "unknown", "the key that signed it is gone"
    assert shown(gate, token(key=OTHER_RSA)) == "app"
    taken(5, of=rotated)
    assert reason(gate, token(key=OTHER_RSA)) == "unknown"


def test_a_document_whose_caller_names_no_issuer_of_it_is_none() -> None:
    with pytest.raises(BadDocument, match=r"callers\[0\].tokens: expected one of the document's issuers"):
        Directory(document(known_by("app", of=source(audience="x"))), "team-a", "credit")
    whole = json.loads(document(APP))
    whole["issuers"][0]["audience"] = ""
    with pytest.raises(BadDocument, match=r"issuers\[0\].audience"):
        Directory(json.dumps(whole).encode(), "team-a", "credit")


def test_what_an_issuer_signs_for_others_costs_no_more_than_a_few_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(source(jwks=jwks(public(EC_KEY, kid=f"k{number}"))) for number in range(40))
    gate = gate_of(known_by("app", of=many[0]), issuers=many)
    seen = counting(monkeypatch)
    text = by_hand({"alg": "ES256"}, claims(), KEYS["ES256"].get_op_key("sign"))
    assert shown(gate, text) == "app"
    assert len(seen) == tokens_room.MOST_TRIED

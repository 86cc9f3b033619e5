"""Who a key's caller is: form, secret, expiry, suspension; and documents that can't be used."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from governed_api.callers import CallerRole
from governed_serving.access import directory
from governed_serving.access.directory import BadDocument, Directory
from governed_serving.access.refusals import Unknown
from unit.access.people import NOW, caller, document, gate_of, kept, key

A, B = key("a"), key("b")


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_a_key_names_its_caller() -> None:
    limits = [{"unit": "tokens", "limit": 5, "windowSeconds": 60}]
    given = caller("team-b", B, roles=["call", "audit"], limits=limits, maxConcurrent=3, attributes={"region": "n"})
    known = gate_of(caller("team-a", A), given).known(B)
    assert (known.name, known.roles) == ("team-b", {CallerRole.CALL, CallerRole.AUDIT})
    assert (known.limits[0].limit, known.max_concurrent, known.attributes) == (5, 3, {"region": "n"})
    assert known.expires == math.inf


def test_two_keys_of_one_caller_count_while_one_replaces_the_other() -> None:
    gate = gate_of(caller("team-a", kept(A, expires=at(NOW + 60)), B))
    assert gate.known(A) is gate.known(B)


@pytest.mark.parametrize(
    ("shown", "given", "reason"),
    [
        (B, caller("x", A), "unknown"),
        (A[:-1] + "Z", caller("x", A), "unknown"),
        (A, caller("x"), "unknown"),
        ("gmk_" + "a" * 16, caller("x", A), "malformed"),
        (A.upper(), caller("x", A), "malformed"),
        (A + "\n", caller("x", A), "malformed"),
        (A + "x", caller("x", A), "malformed"),
        ("", caller("x", A), "malformed"),
        ("sk-" + "a" * 48, caller("x", A), "malformed"),
        (A, caller("x", kept(A, expires=at(NOW))), "expired"),
        (A, caller("x", A, expires=at(NOW - 1)), "expired"),
        (A, caller("x", A, suspended=True), "suspended"),
        (A[:-1] + "Z", caller("x", A, suspended=True), "unknown"),  # says nothing to who hasn't the secret
    ],
)
def test_a_key_that_does_not_count(shown: str, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unknown) as error:
        gate_of(given).known(shown)
    assert error.value.reason == reason
    assert "x" * 3 not in str(error.value)
    assert A not in str(error.value)


def test_a_secret_of_zeros_opens_nothing() -> None:
    """What stands in for a key that isn't there has a digest that no secret has, and would be refused all the same."""
    with pytest.raises(Unknown):
        gate_of().known(A)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "document of callers"),
        (b"[]", "document of callers"),
        (document(caller("x", A))[:-9], "document of callers"),
        (document(caller("x", A), model="other"), "found those of team-a/other"),
        (document(caller("x", A), namespace="other"), "found those of other/credit"),
        (document(caller("x", A), caller("y", A)), "twice"),
        (document(caller("x", A, roles=["everything"])), "callers[0].roles"),
        (document(caller("x", A, roles=[])), "callers[0].roles"),
        (document(caller("x", A, unheardOf=True)), "callers[0].unheardOf"),
        (document(caller("x", kept(A, expires="2027-01-01T00:00:00"))), "zone"),
        (json.dumps({**json.loads(document()), "more": 1}).encode(), "more"),
    ],
)
def test_a_document_that_can_not_be_used_says_where(content: bytes, words: str) -> None:
    with pytest.raises(BadDocument) as error:
        Directory(content, "team-a", "credit")
    assert words in str(error.value)


def test_callers_that_are_alike_share_what_is_alike() -> None:
    gate = gate_of(caller("x", A, attributes={"r": "n"}), caller("y", B, attributes={"r": "n"}))
    one, other = gate.known(A), gate.known(B)
    assert one.roles is other.roles
    assert one.attributes is other.attributes


def after(before: Directory, *callers: dict[str, Any]) -> Directory:
    content = json.dumps(json.loads(document(*callers, sequence=2)), separators=(",", ":")).encode()
    return Directory(content, "team-a", "credit", before)


def test_who_has_not_changed_is_taken_over_and_who_has_is_read() -> None:
    C = key("c")
    one, other = caller("one", A, kept(B, expires=at(NOW + 9))), caller("other", C)
    first = after(Directory(document(), "team-a", "credit"), one, other)
    second = after(first, one, {**other, "suspended": True})
    assert second.find(A, NOW) is second.find(B, NOW) is first.find(A, NOW)
    with pytest.raises(Unknown) as error:
        second.find(B, NOW + 9)
    assert error.value.reason == "expired"
    with pytest.raises(Unknown) as error:
        second.find(C, NOW)
    assert error.value.reason == "suspended"
    assert after(second, other).find(C, NOW).name == "other"
    with pytest.raises(Unknown):
        after(second, other).find(A, NOW)
    with pytest.raises(BadDocument, match="twice"):
        after(second, one, one)


def test_an_attribute_that_looks_like_a_key_lends_nobody_a_key() -> None:
    name = A.split("_")[1]
    sly = caller("sly", B, attributes={"id": name})
    first = after(Directory(document(), "team-a", "credit"), caller("team", A), sly)
    second = after(first, sly, caller("team", A))
    assert (second.find(A, NOW).name, second.find(B, NOW).name) == ("team", "sly")
    with pytest.raises(Unknown):
        after(first, sly).find(A, NOW)


def test_an_attribute_that_looks_like_the_callers_own_key_holds_up_no_document() -> None:
    sly = caller("sly", B, attributes={"id": B.split("_")[1], "other": A.split("_")[1]})
    first = after(Directory(document(), "team-a", "credit"), caller("team", A), sly)
    second = after(first, sly)
    assert second.find(B, NOW).name == "sly"
    with pytest.raises(Unknown):
        second.find(A, NOW)


@pytest.mark.parametrize(("many", "pauses"), [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2)])
def test_others_go_on_while_many_callers_are_read(many: int, pauses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that serves reads the document in a thread beside: it lets go of the interpreter, and never sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(directory.time, "sleep", slept.append)
    Directory(document(*(caller(f"c{n}") for n in range(many))), "team-a", "credit")
    assert slept == [0] * pauses

"""ModelConsumers: who is compiled into which document, and what each is told."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from governed_api.callers import Callers, callers_secret, open_callers, seal_callers
from governed_api.consumer import ModelConsumerStatus
from governed_api.quantities import seconds
from governed_operator.policy.callers import MOST_BYTES, compiled
from governed_operator.policy.consumer import ObservedConsumer, consumer_status
from governed_operator.watch.cache import head_of
from governed_operator.watch.consumers import Consumer, Consumers, selects
from support.consumer_manifests import KEY, OTHER, consumer, full
from unit.access.tokens import EC_KEY, OTHER_RSA, jwks, pem

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
SECRET = callers_secret(b"r" * 32, "team", "loans")


def stored(name: str = "app", *, version: int = 1, age: int = 0, namespace: str = "team", **spec: Any) -> bytes:
    """As the API server tells it; ``age``: hours. ``uid`` of the name."""
    metadata = {
        "name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": str(version), "generation": 1,
        "creationTimestamp": (NOW - timedelta(hours=age)).isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    return json.dumps(consumer(name, **spec) | {"metadata": metadata}).encode()


def heard(*observed: bytes) -> Consumers:
    book = Consumers()
    for one in observed:
        book.put("ModelConsumer", one)
    return book


def document(book: Consumers, model: str = "loans", labels: dict[str, str] | None = None) -> Callers:
    found = compiled(book.selecting("team", model, labels or {}), lambda key: book.holder("team", key))
    callers = found.document("team", model, 1)
    return Callers.model_validate_json(open_callers(seal_callers(callers, SECRET), SECRET))


def test_all_of_a_consumer_reaches_the_document() -> None:
    observed = json.loads(stored())
    observed["spec"] = full()["spec"] | {"suspend": True}
    (caller,) = document(heard(json.dumps(observed).encode())).callers
    token, account = caller.tokens
    assert caller.plain() == {
        "name": "app",
        "tokens": [
            {"issuer": token.issuer, "subject": "app"},
            {"issuer": account.issuer, "subject": "system:serviceaccount:batch:scorer"},
        ],
        "keys": [KEY | {"expires": "2027-01-31T12:00:00.500000+02:00"}, OTHER],
        "roles": ["acknowledge", "audit", "call", "explain", "label", "review", "scrape"],
        "limits": [
            {"unit": "requests", "limit": 100, "windowSeconds": 60},
            {"unit": "tokens", "limit": 1_000_000, "windowSeconds": 30 * 86400},
        ],
        "maxConcurrent": 8,
        "attributes": {"sex": "female", "é 中": "ü"},
        "expires": "2030-01-01T00:00:00Z",
        "suspended": True,
    }


@pytest.mark.parametrize(
    ("models", "labels", "chosen"),
    [
        ({"names": ["loans"]}, {}, True),
        ({"names": ["loan"]}, {}, False),
        ({"names": ["*"]}, {}, True),
        ({}, {"team": "risk"}, False),
        ({"selector": {"matchLabels": {"team": "risk"}}}, {"team": "risk", "x": "y"}, True),
        ({"selector": {"matchLabels": {"team": "risk", "tier": "1"}}}, {"team": "risk"}, False),
        ({"selector": {"matchLabels": {"team": ""}}}, {}, False),
        ({"names": ["other"], "selector": {"matchLabels": {"team": "risk"}}}, {"team": "risk"}, True),
    ],
)
def test_which_models_a_consumer_is_about(models: dict[str, Any], labels: dict[str, str], chosen: bool) -> None:
    observed = stored(models=models)
    assert selects(Consumer.of(head_of(observed), observed), "loans", labels) is chosen


def test_a_key_of_two_consumers_stays_with_the_older_one_until_that_is_gone() -> None:
    young, old = stored("a-young", age=1), stored("z-old", age=2)
    for order in ((young, old), (old, young)):
        book = heard(*order)
        assert [c.name for c in document(book).callers] == ["z-old"]
        assert book.touched(("team", "a-young"))
        book.drop("ModelConsumer", head_of(old))
        assert [c.name for c in document(book).callers] == ["a-young"]
        assert {c.name for c in book.touched(("team", "z-old"))} == {"a-young", "z-old"}


def test_of_the_same_second_the_name_decides_and_namespaces_are_apart() -> None:
    assert [c.name for c in document(heard(stored("b"), stored("a"))).callers] == ["a"]
    assert [c.name for c in document(heard(stored("b"), stored("a", namespace="other"))).callers] == ["b"]


def test_one_that_is_being_deleted_is_out_though_a_finalizer_keeps_it() -> None:
    observed = json.loads(stored())
    observed["metadata"] |= {"deletionTimestamp": "2026-11-30T12:00:00Z", "resourceVersion": "2"}
    book = heard(stored(), json.dumps(observed).encode())
    assert document(book).callers == []
    assert book.holder("team", KEY["id"]) == ""


def test_a_spec_of_another_version_lets_nobody_in() -> None:
    book = heard(stored(roles=["admin"]))
    assert document(book).callers == []
    status, again = told(book)
    assert reasons(status) == {"KeyReady": ("False", "SpecNotReadable"), "ModelsFound": ("Unknown", "SpecNotReadable")}
    assert (status.keys, again) == (0, None)


def test_a_full_document_keeps_the_older_ones_and_lets_go_at_once() -> None:
    keys = [{"id": f"a{n:015d}".replace("0", "b").translate(TO_LETTERS), "sha256": "0" * 64} for n in range(10)]
    book = heard(*(stored(f"c{n}", age=n, apiKeys=[keys[n]]) for n in range(10)))
    chosen = book.selecting("team", "loans", {})
    first = compiled(chosen, lambda key: book.holder("team", key)).callers[0]
    size = len(first.model_dump_json(by_alias=True, exclude_defaults=True)) + 1
    found = compiled(chosen, lambda key: book.holder("team", key), most=3 * size)
    assert [c.name for c in found.callers] == ["c9", "c8", "c7"]
    assert found.left_out == {f"c{n}" for n in range(7)}
    book.drop("ModelConsumer", head_of(stored("c8", age=8)))
    found = compiled(book.selecting("team", "loans", {}), lambda key: book.holder("team", key), most=3 * size)
    assert [c.name for c in found.callers] == ["c9", "c7", "c6"]


TO_LETTERS = str.maketrans("0123456789", "bcdefghijk")


def test_five_thousand_consumers_fit_a_config_map() -> None:
    def key(n: int) -> dict[str, str]:
        return {"id": f"a{n:015d}".translate(TO_LETTERS), "sha256": f"{n:064x}"}

    book = heard(*(stored(f"consumer-{n}", apiKeys=[key(n)]) for n in range(5000)))
    found = compiled(book.selecting("team", "loans", {}), lambda one: book.holder("team", one))
    sealed = seal_callers(Callers(namespace="team", model="loans", sequence=1, callers=list(found.callers)), SECRET)
    assert (len(found.callers), found.left_out) == (5000, frozenset())
    assert len(sealed) < MOST_BYTES


# tokens

JWKS = jwks(EC_KEY)
OIDC = {"issuer": "https://idp.example", "audience": "loans", "subject": "app", "jwks": JWKS}
STAFF = {"issuer": "https://idp.example", "audience": "loans", "claim": {"name": "groups", "value": "staff"}}


def test_tokens_reach_the_document_with_their_issuer_once() -> None:
    book = heard(stored("a", apiKeys=[], oidc=OIDC), stored("b", apiKeys=[], oidc=STAFF | {"jwks": JWKS}), stored("c"))
    made = document(book)
    (issuer,) = made.issuers
    said = issuer.plain()
    assert (said["issuer"], said["audience"], said["jwks"]) == ("https://idp.example", "loans", JWKS)
    assert [[token.plain() for token in caller.tokens] for caller in made.callers] == [
        [{"issuer": issuer.id, "subject": "app"}],
        [{"issuer": issuer.id, "claim": {"name": "groups", "value": "staff"}}],
        [],
    ]
    assert [len(caller.keys) for caller in made.callers] == [0, 0, 1]


@pytest.mark.parametrize("other", [{}, {"jwks": jwks(OTHER_RSA)}, {"jwks": None, "publicKeys": pem(EC_KEY.raw_value)}])
def test_a_token_of_two_consumers_stays_with_the_older_one(other: dict[str, Any]) -> None:
    """Whatever keys the younger one brings: its own issuer must not stand in for the older one's."""
    again = {name: value for name, value in (OIDC | other).items() if value}
    book = heard(stored("young", apiKeys=[], oidc=again), stored("old", age=1, oidc=OIDC))
    assert [c.name for c in document(book).callers] == ["old"]
    status, _ = told(book, "young")
    (message,) = [c.message for c in status.conditions if c.type == "KeyReady"]
    assert reasons(status)["KeyReady"] == ("False", "TokenTaken")
    assert "ModelConsumer old with the same issuer, audience and subject or claim" in message
    book.touched(("team", "old"))
    book.drop("ModelConsumer", head_of(stored("old", age=1)))
    assert [c.name for c in document(book).callers] == ["young"]
    assert {c.name for c in book.touched(("team", "old"))} == {"young", "old"}
    assert reasons(told(book, "young")[0])["KeyReady"] == ("True", "KeysAccepted")


@pytest.mark.parametrize(
    "other", [{"audience": "chat"}, {"subject": "App"}, {"issuer": "https://idp.example/"}, {"subject": None} | STAFF]
)
def test_tokens_that_differ_are_of_each(other: dict[str, Any]) -> None:
    again = {name: value for name, value in (OIDC | {"subject": None} | {"subject": "app"} | other).items() if value}
    again = {name: value for name, value in again.items() if name != "subject" or "claim" not in again}
    book = heard(stored("young", apiKeys=[], oidc=again), stored("old", age=1, apiKeys=[], oidc=OIDC))
    assert [c.name for c in document(book).callers] == ["old", "young"]


def test_a_consumer_with_tokens_alone_is_told_whose() -> None:
    status, _ = told(heard(stored(apiKeys=[], oidc=OIDC)))
    (message,) = [c.message for c in status.conditions if c.type == "KeyReady"]
    assert reasons(status)["KeyReady"] == ("True", "KeysAccepted")
    assert message == "tokens of https://idp.example are accepted"
    both, _ = told(heard(stored(oidc=OIDC)))
    assert both.conditions[0].message == "1 of 1 keys are accepted; tokens of https://idp.example are accepted"


def test_an_issuer_s_secret_key_lets_nobody_in_and_is_told() -> None:
    private = json.dumps({"keys": [EC_KEY.as_dict(private=True)]})
    book = heard(stored(oidc=OIDC | {"jwks": private}))
    assert document(book).callers == []
    status, _ = told(book)
    message = status.conditions[0].message
    assert reasons(status)["KeyReady"] == ("False", "SpecNotReadable")
    assert "spec.oidc.jwks" in message
    assert "found a secret (d)" in message
    assert EC_KEY.as_dict(private=True)["d"] not in message


def test_keys_that_cannot_be_had_are_told() -> None:
    account = {"name": "scorer", "namespace": "batch", "audience": "loans"}
    book = heard(stored(serviceAccount=account))
    status, _ = told(book, faults={"the cluster's service accounts": "its keys are being fetched"})
    assert reasons(status)["KeyReady"] == ("False", "IssuerKeysMissing")
    assert status.conditions[0].message.startswith(
        "keys of the cluster's service accounts can't be had: its keys are being fetched; until they can"
    )
    status, _ = told(book)
    assert status.conditions[0].message == (
        "1 of 1 keys are accepted; tokens of the cluster's service accounts are accepted"
    )


def test_sources_are_those_that_somebody_names() -> None:
    published = {name: value for name, value in OIDC.items() if name != "jwks"}
    book = heard(stored("a", oidc=published), stored("b", oidc=published | {"subject": "b"}))
    (one,) = book.sources()
    assert {c.name for about in book.of_source(one.place).values() for c in about} == {"a", "b"}
    book.drop("ModelConsumer", head_of(stored("a")))
    assert book.sources() == {one}
    book.put("ModelConsumer", stored("b", version=2))
    assert book.sources() == set()
    assert book.of_source(one) == {}


def test_an_issuer_takes_room_once() -> None:
    book = heard(*(stored(f"c{n}", age=9 - n, apiKeys=[], oidc=OIDC | {"subject": f"s{n}"}) for n in range(9)))
    chosen = book.selecting("team", "loans", {})
    holder = lambda one: book.holder("team", one)  # noqa: E731
    whole = compiled(chosen, holder)
    size = sum(len(c.model_dump_json(by_alias=True, exclude_defaults=True)) + 1 for c in whole.callers)
    size += len(whole.issuers[0].model_dump_json(by_alias=True, exclude_defaults=True)) + 1
    assert compiled(chosen, holder, most=size).left_out == frozenset()
    assert compiled(chosen, holder, most=size - 1).left_out == {"c8"}


# what a consumer is told


def told(
    book: Consumers, name: str = "app", models: tuple[str, ...] = ("loans",), **more: Any
) -> tuple[ModelConsumerStatus, float | None]:
    one = book.get(("team", name))
    assert one is not None
    holders = {identity: book.holder("team", identity) for identity in one.identities}
    observed = {"now": NOW, "status": ModelConsumerStatus(), "models": {m: {} for m in models}, "holders": holders}
    return consumer_status(ObservedConsumer(consumer=one, namespace="team", **(observed | more)))


def reasons(status: ModelConsumerStatus) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in status.conditions}


PAST, SOON = "2026-11-30T11:59:59Z", "2026-11-30T13:00:00+00:30"


@pytest.mark.parametrize(
    ("spec", "said", "keys", "again"),
    [
        ({}, ("True", "KeysAccepted"), 1, None),
        ({"apiKeys": []}, ("False", "NoKeys"), 0, None),
        ({"suspend": True}, ("False", "ConsumerSuspended"), 0, None),
        ({"expires": PAST}, ("False", "ConsumerExpired"), 0, None),
        ({"expires": "2026-02-30T00:00:00Z"}, ("False", "ConsumerExpired"), 0, None),
        ({"apiKeys": [KEY | {"expires": PAST}]}, ("False", "KeysExpired"), 0, None),
        ({"apiKeys": [KEY | {"expires": PAST}, OTHER]}, ("True", "KeysAccepted"), 1, None),
        ({"apiKeys": [KEY | {"expires": SOON}, OTHER]}, ("True", "KeysAccepted"), 2, 1800.0),
        ({"apiKeys": [KEY | {"expires": "2026-11-30T12:00:00Z"}]}, ("False", "KeysExpired"), 0, None),
        ({"expires": SOON, "suspend": True}, ("False", "ConsumerSuspended"), 0, 1800.0),
    ],
)
def test_how_it_stands_with_the_keys(spec: dict[str, Any], said: tuple[str, str], keys: int, again: object) -> None:
    status, again_in = told(heard(stored(**spec)))
    assert reasons(status)["KeyReady"] == said
    assert (status.keys, again_in, status.observed_generation) == (keys, again, 1)


def test_the_younger_of_two_is_told_whose_its_key_is() -> None:
    book = heard(stored("young", apiKeys=[KEY, OTHER]), stored("old", age=1))
    status, _ = told(book, "young")
    (message,) = [c.message for c in status.conditions if c.type == "KeyReady"]
    assert reasons(status)["KeyReady"] == ("False", "KeyIdTaken")
    assert f"{KEY['id']} of ModelConsumer old" in message
    assert status.keys == 1
    assert reasons(told(book, "old")[0])["KeyReady"] == ("True", "KeysAccepted")


def test_no_room_is_told() -> None:
    status, _ = told(heard(stored()), left_out_of=("loans",))
    assert reasons(status)["KeyReady"] == ("False", "TooManyCallers")


@pytest.mark.parametrize(
    ("models", "said", "number"),
    [
        ({"names": ["loans"]}, ("True", "Found"), 1),
        ({"names": ["loans", "gone"]}, ("False", "ModelNotFound"), 1),
        ({"names": ["*"]}, ("True", "Found"), 1),
        ({}, ("False", "NoModels"), 0),
        ({"selector": {"matchLabels": {"a": "b"}}}, ("False", "NoModels"), 0),
    ],
)
def test_which_models_are_there(models: dict[str, Any], said: tuple[str, str], number: int) -> None:
    status, _ = told(heard(stored(models=models)))
    assert reasons(status)["ModelsFound"] == said
    assert status.models == number


WORDS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # name: (spec, what is around it, condition, message)
    "suspended": (
        {"suspend": True}, {}, "KeyReady", "spec.suspend is true: every key and token is refused; set it to false",
    ),
    "expired": (
        {"expires": PAST}, {}, "KeyReady", f"every key and token is refused since {PAST}; set spec.expires anew",
    ),
    "no keys": (
        {"apiKeys": []}, {}, "KeyReady",
        "spec.apiKeys is empty: nobody can show a key; governed consumer rotate adds one, or set spec.oidc",
    ),
    "expired keys": (
        {"apiKeys": [KEY | {"expires": PAST}]}, {}, "KeyReady",
        "every key has expired; governed consumer rotate adds one",
    ),
    "some keys": (
        {"apiKeys": [KEY | {"expires": PAST}, OTHER]}, {}, "KeyReady", "1 of 2 keys are accepted",
    ),
    "another's keys": (
        {"apiKeys": [KEY, OTHER]}, {"holders": {KEY["id"]: "old", OTHER["id"]: "older"}}, "KeyReady",
        f"expected keys of its own, found {KEY['id']} of ModelConsumer old, {OTHER['id']} of ModelConsumer older, "
        "which is older; take it from this list, and draw another",
    ),
    "no room": (
        {}, {"left_out_of": tuple(f"m{n}" for n in range(9))}, "KeyReady",
        "there are older consumers for all the room that the callers of m0, m1, m2, m3, m4 have; name fewer models, or "
        "remove consumers that nobody needs",
    ),
    "models": ({"models": {"names": ["*"]}}, {"models": ("a", "b")}, "ModelsFound", "2 models"),
    "models that aren't there": (
        {"models": {"names": ["*", "loans", *(f"gone{n}" for n in range(5))]}}, {}, "ModelsFound",
        "there is no GovernedModel gone0, gone1, gone2, gone3, gone4 in namespace team; correct spec.models.names, or "
        "apply the model",
    ),
    "more models that aren't there than are named": (
        {"models": {"names": [f"gone{n}" for n in range(6)]}}, {}, "ModelsFound",
        "there is no GovernedModel gone0, gone1, gone2, gone3, gone4 … in namespace team; correct spec.models.names, "
        "or apply the model",
    ),
    "no models": (
        {"models": {}}, {}, "ModelsFound",
        "spec.models is empty: nothing may be called",
    ),
    "none of them": (
        {"models": {"selector": {"matchLabels": {"a": "b"}}}}, {}, "ModelsFound",
        "spec.models selects none of the models in namespace team: nothing may be called",
    ),
    "none, of all": (
        {"models": {"names": ["*"]}}, {"models": ()}, "ModelsFound",
        "spec.models selects none of the models in namespace team: nothing may be called",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_what_is_wrong_and_what_to_do_is_said_word_for_word(name: str) -> None:
    spec, around, kind, message = WORDS[name]
    status, _ = told(heard(stored(**spec)), **around)
    assert [c.message for c in status.conditions if c.type == kind] == [message]


def test_all_of_no_models_is_none() -> None:
    assert reasons(told(heard(stored(models={"names": ["*"]})), models=())[0])["ModelsFound"] == ("False", "NoModels")


def test_what_is_told_twice_is_the_same() -> None:
    book = heard(stored())
    status, _ = told(book)
    assert told(book, status=status, now=NOW + timedelta(hours=1))[0] == status


# the cache


def test_news_are_told_and_echoes_are_not() -> None:
    book = Consumers()
    assert book.put("ModelConsumer", stored(version=5)) == ("team", "app")
    assert book.put("ModelConsumer", stored(version=5)) is None
    assert book.put("ModelConsumer", stored(version=4, roles=["audit"])) is None
    revision = book.revision("team")
    assert book.put("ModelConsumer", stored(version=6)) is None
    status = json.loads(stored(version=7)) | {"status": {"keys": 3}}
    assert book.put("ModelConsumer", json.dumps(status).encode()) == ("team", "app")  # somebody wrote into it
    assert book.revision("team") == revision
    assert book.put("ModelConsumer", stored(version=8, roles=["audit"])) == ("team", "app")
    assert book.revision("team") > revision


def test_what_a_list_lacks_is_forgotten_of_its_namespace_alone() -> None:
    book = heard(stored("a", apiKeys=[KEY]), stored("b", apiKeys=[OTHER]), stored("c", namespace="other"))
    assert book.keep_only("ModelConsumer", {(("team", ""), "a")}, "team") == [("team", "b")]
    assert sorted(book.keys()) == [("other", "c"), ("team", "a")]
    assert book.holder("team", OTHER["id"]) == ""
    assert book.keep_only("ModelConsumer", set()) == [("team", "a"), ("other", "c")]


def test_an_older_object_of_that_name_is_not_dropped_twice() -> None:
    book = heard(stored())
    other = json.loads(stored())
    other["metadata"]["uid"] = "another"
    assert book.drop("ModelConsumer", head_of(json.dumps(other).encode())) is None
    assert book.get(("team", "app")) is not None


def test_the_longest_window_is_one_that_a_document_takes() -> None:
    for window in ("9999999s", "99999m", "999h", "366d"):
        (caller,) = document(heard(stored(limits=[{"tokens": 1, "window": window}]))).callers
        assert caller.limits[0].window_seconds == seconds(window)

"""The document of a model's callers: its sequence only grows, whoever starts, fails or edits in between."""

import asyncio
import base64
import copy
import json
from typing import Any

import pytest
from test_consumers import stored

from governed_api.callers import CALLERS_FILE, Callers, callers_secret, open_callers, seal_callers
from governed_api.token_identity import IssuerSource
from governed_operator.kube.cluster import ApiError
from governed_operator.loop.apply import Applier
from governed_operator.loop.callers import CallersKeeper
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.watch.cache import Cache, ModelEntry, head_of
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.https import NotFetched
from governed_operator.watch.issuer_keys import Found, IssuerKeys
from support.consumer_manifests import KEY, OTHER

ROOT = b"r" * 32
KEY_OF_MODEL = ("team", "loans")
SECRET = callers_secret(ROOT, *KEY_OF_MODEL)


def model(authentication: str = "Required", uid: str = "u", **labels: str) -> ModelEntry:
    metadata = {"name": "loans", "namespace": "team", "uid": uid, "resourceVersion": "1", "labels": labels}
    return ModelEntry.of({"metadata": metadata, "spec": {"access": {"authentication": authentication}}})


class Server:
    """One namespace's ConfigMaps and the archive's keys; counts changes as etcd does."""

    def __init__(self) -> None:
        self.changes, self.writes, self.refuses, self.loses = 100, 0, False, False
        self.config: dict[str, Any] | None = None

    async def get(self, kind: Any, namespace: str, name: str) -> Any:  # noqa: ARG002
        if kind.kind == "Secret":
            return {"data": {"root": base64.b64encode(ROOT).decode()}}
        return copy.deepcopy(self.config)

    async def pages(self, *_: Any, **__: Any) -> Any:
        yield [], str(self.changes)

    async def apply(self, kind: Any, manifest: dict[str, Any], *, force: bool) -> bytes:  # noqa: ARG002
        if self.refuses:
            raise ApiError(500, "InternalError", "etcd is away")
        self.writes += 1
        self.edit(manifest["data"][CALLERS_FILE], manifest["metadata"])
        if self.loses:
            raise ApiError(0, "Unreachable", "the answer got lost")
        return json.dumps(self.config).encode()

    def edit(self, text: str, metadata: dict[str, Any] | None = None) -> bytes:
        self.changes += 1
        labels = {f"f:{name}": {} for name in (metadata or self.config["metadata"])["labels"]}  # type: ignore[index]
        fields = {"f:data": {f"f:{CALLERS_FILE}": {}}, "f:metadata": {"f:labels": labels, "f:ownerReferences": {}}}
        managed = [{"manager": "governed-operator", "operation": "Apply", "fieldsV1": fields}]
        base = copy.deepcopy(metadata or self.config["metadata"])  # type: ignore[index]
        base |= {"uid": "c", "resourceVersion": str(self.changes), "managedFields": managed}
        self.config = {"kind": "ConfigMap", "metadata": base, "data": {CALLERS_FILE: text}}
        return json.dumps(self.config).encode()

    @property
    def document(self) -> Callers:
        assert self.config is not None
        return Callers.model_validate_json(open_callers(self.config["data"][CALLERS_FILE].encode(), SECRET))


class Process:
    """An operator's: its caches are its own."""

    jwks = ""
    """What issuers publish; none while they are away."""

    def __init__(self, server: Server, *observed: bytes) -> None:
        self.server, self.cache, self.book, self.woken = server, Cache(), Consumers(), list[Any]()
        for one in observed:
            self.book.put("ModelConsumer", one)
        if server.config is not None:
            self.cache.put("ConfigMap", json.dumps(server.config).encode())
        applier = Applier(server, self.cache, OperatorMetrics(WorkQueue()))  # type: ignore[arg-type]
        self.keys = IssuerKeys(self.fetch, self.book.sources, lambda one: self.book.of_source(one) and None)
        self.keeper = CallersKeeper(server, applier, self.book, self.keys, self.woken.append)  # type: ignore[arg-type]

    async def fetch(self, source: IssuerSource) -> Found:
        if not self.jwks:
            raise NotFetched("it is away")
        return Found(source.issuer, self.jwks)

    async def fetches(self) -> None:
        for source in self.keys._due():
            await self.keys._look(source, asyncio.Semaphore())

    async def look(self, entry: ModelEntry | None = None) -> int:
        return await self.keeper.carry_out(KEY_OF_MODEL, entry or model())


async def test_a_change_makes_the_sequence_grow_and_nothing_else_does() -> None:
    server = Server()
    process = Process(server, stored())
    assert [await process.look() for _ in range(3)] == [1, 0, 0]
    first = server.document
    assert (first.sequence, [c.name for c in first.callers]) == (100, ["app"])
    process.book.put("ModelConsumer", stored("other", apiKeys=[OTHER | {"id": "c" * 16}], models={"names": ["chat"]}))
    assert await process.look() == 0
    process.book.put("ModelConsumer", stored("second", apiKeys=[OTHER]))
    assert [await process.look() for _ in range(2)] == [1, 0]
    assert (server.document.sequence, len(server.document.callers)) == (first.sequence + 1, 2)
    process.book.drop("ModelConsumer", head_of(stored()))
    assert await process.look() == 1
    assert (server.document.sequence, [c.name for c in server.document.callers]) == (first.sequence + 2, ["second"])


async def test_another_process_goes_on_and_writes_nothing_that_is_there() -> None:
    server = Server()
    observed = stored(apiKeys=[KEY | {"expires": "2027-01-31T12:00:00.5+02:00"}], limits=[{"tokens": 5}])
    assert await Process(server, observed).look() == 1
    before = server.document
    assert await Process(server, observed).look() == 0
    assert await Process(server, stored(roles=["audit"])).look() == 1
    assert server.document.sequence > before.sequence


@pytest.mark.parametrize("put_back", ["nothing", "an edited one", "an older one", "no JSON"])
async def test_whatever_somebody_put_there_meanwhile_the_next_one_is_beyond_all_before(put_back: str) -> None:
    server = Server()
    process = Process(server, stored())
    await process.look()
    old = server.config["data"][CALLERS_FILE]  # type: ignore[index]
    for version, role in enumerate(("audit", "label", "review"), start=2):
        process.book.put("ModelConsumer", stored(version=version, roles=[role]))
        await process.look()
    last = server.document.sequence
    texts = {"an edited one": old.replace("app", "ape"), "an older one": old, "no JSON": "gone"}
    if put_back == "nothing":
        server.config = None
        server.changes += 1
    else:
        server.edit(texts[put_back])
    assert await Process(server, stored(roles=["scrape"])).look() == 1
    assert server.document.sequence > last
    assert server.document.callers[0].roles == ["scrape"]


async def test_an_edit_by_hand_is_taken_back() -> None:
    server = Server()
    process = Process(server, stored())
    await process.look()
    right, sequence = copy.deepcopy(server.config), server.document.sequence
    process.cache.put("ConfigMap", server.edit("mine"))
    assert [await process.look() for _ in range(2)] == [1, 0]
    assert server.config["data"] == right["data"]  # type: ignore[index]
    assert server.document.sequence == sequence


@pytest.mark.parametrize("fault", ["refuses", "loses"])
async def test_after_a_write_that_may_have_happened_no_sequence_says_two_things(fault: str) -> None:
    server = Server()
    process = Process(server, stored())
    await process.look()
    before = server.document.sequence
    setattr(server, fault, True)
    process.book.put("ModelConsumer", stored(version=2, roles=["audit"]))
    with pytest.raises(ApiError):
        await process.look()
    unsure = server.document
    setattr(server, fault, False)
    process.book.put("ModelConsumer", stored(version=3, roles=["label"]))
    assert await process.look() == 1
    assert server.document.callers[0].roles == ["label"]
    assert server.document.sequence > max(before, unsure.sequence)


async def test_another_model_of_that_name_gets_a_document_of_its_own() -> None:
    server = Server()
    process = Process(server, stored())
    await process.look()
    first = server.config["metadata"]["ownerReferences"][0]["uid"]  # type: ignore[index]
    process.cache.drop("ConfigMap", head_of(json.dumps(server.config).encode()))
    server.config = None
    process.keeper.forget(KEY_OF_MODEL)
    assert await process.look(model(uid="second")) == 1
    assert (first, server.config["metadata"]["ownerReferences"][0]["uid"]) == ("u", "second")  # type: ignore[index]


async def test_labels_of_the_model_decide_and_off_makes_none() -> None:
    server = Server()
    process = Process(server, stored(models={"selector": {"matchLabels": {"team": "risk"}}}))
    assert await process.look(model("Off", team="risk")) == 0
    assert server.config is None
    assert await process.look(model(team="risk")) == 1
    assert len(server.document.callers) == 1
    assert await process.look(model()) == 1
    assert server.document.callers == []


async def test_who_finds_no_room_is_woken_and_again_when_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    process = Process(server, stored("old", age=1), stored("young", apiKeys=[OTHER]))
    monkeypatch.setattr("governed_operator.policy.callers.compiled.__kwdefaults__", {"most": 150})
    await process.look()
    assert process.keeper.left_out(KEY_OF_MODEL) == {"young"}
    assert process.woken == [("team", "young")]
    process.book.drop("ModelConsumer", head_of(stored("old", age=1)))
    await process.look()
    assert process.keeper.left_out(KEY_OF_MODEL) == frozenset()
    assert process.woken == [("team", "young")] * 2
    assert [c.name for c in server.document.callers] == ["young"]


def test_a_document_is_of_one_model_and_under_its_key() -> None:
    sealed = seal_callers(Callers(namespace="team", model="loans", sequence=1), SECRET)
    assert json.loads(open_callers(sealed, SECRET)) == {"namespace": "team", "model": "loans", "sequence": 1}
    with pytest.raises(ValueError, match="sealed for this model"):
        open_callers(sealed, callers_secret(ROOT, "team", "loan"))


PUBLISHED = {"issuer": "https://idp.example", "audience": "loans", "subject": "app"}


async def test_keys_that_are_fetched_reach_the_document_and_outlast_a_restart_while_the_issuer_is_away() -> None:
    server = Server()
    process = Process(server, stored(apiKeys=[], oidc=PUBLISHED))
    assert await process.look() == 1
    (issuer,) = server.document.issuers
    assert (issuer.issuer, issuer.jwks) == ("https://idp.example", "")
    process.jwks = "{1}"
    await process.fetches()
    assert [await process.look() for _ in range(2)] == [1, 0]
    (issuer,) = server.document.issuers
    assert issuer.jwks == "{1}"
    assert issuer.until is not None
    after = Process(server, stored(apiKeys=[], oidc=PUBLISHED))
    await after.fetches()
    assert await after.look() == 0, "what the earlier process said goes on"
    after.book.put("ModelConsumer", stored(version=2, apiKeys=[], oidc=PUBLISHED, roles=["audit"]))
    assert await after.look() == 1
    assert server.document.issuers == [issuer]
    assert server.document.callers[0].roles == ["audit"]


async def test_an_account_of_the_cluster_is_its_issuers_subject() -> None:
    server = Server()
    account = {"name": "scorer", "namespace": "batch", "audience": "loans"}
    process = Process(server, stored(apiKeys=[], serviceAccount=account))

    async def fetch(source: IssuerSource) -> Found:
        assert source.cluster
        return Found("https://kubernetes.default.svc.cluster.local", "{1}")

    process.keys._fetch = fetch
    await process.fetches()
    await process.look()
    (issuer,) = server.document.issuers
    assert (issuer.issuer, issuer.audience) == ("https://kubernetes.default.svc.cluster.local", "loans")
    (caller,) = server.document.callers
    assert [token.subject for token in caller.tokens] == ["system:serviceaccount:batch:scorer"]


async def test_a_document_is_kept_right_as_long_as_an_earlier_revision_may_read_it() -> None:
    """A policy may hold the revision that no longer asks who calls: a revocation must reach the one that serves."""
    server = Server()
    process = Process(server, stored())
    await process.look()
    process.book.drop("ModelConsumer", head_of(stored()))
    assert await process.look(model("Off")) == 1
    assert server.document.callers == []
    config = json.dumps(server.config).encode()
    process.cache.drop("ConfigMap", head_of(config))
    process.book.put("ModelConsumer", stored(version=9))
    assert await process.look(model("Off")) == 0, "where there is none, none is made"

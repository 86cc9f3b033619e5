"""Watch events → cache: what is news wakes a model, what is known is not even read, what breaks the thread says so."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from governed_operator.kube.cluster import ApiError
from governed_operator.kube.kinds import DEPLOYMENT
from governed_operator.watch import reflector as reflector_module
from governed_operator.watch.cache import Cache, ModelKey
from governed_operator.watch.reflector import Reflector

FIELDS = {"f:spec": {"f:paused": {}}}


class Server:
    """Answers one list, then each watch's lines; the last one breaks for good."""

    def __init__(self, listed: list[dict[str, Any]], *watches: list[bytes]) -> None:
        self._listed, self._watches = listed, list(watches)
        self.asked: list[str] = []

    async def pages(self, *_: Any, **__: Any) -> AsyncIterator[tuple[list[bytes], str]]:
        yield [json.dumps(o).encode() for o in self._listed], "10"

    async def watch(self, _kind: Any, _selector: str, version: str, *_: Any, **__: Any) -> AsyncIterator[bytes]:
        self.asked.append(version)
        for line in self._watches.pop(0):
            yield line
        if not self._watches:
            raise KeyboardInterrupt  # ends a loop that has no end


def deployment(version: int, *, paused: bool = False, generation: int = 1, available: int = 0) -> dict[str, Any]:
    owner = {"kind": "GovernedModel", "name": "m", "uid": "o", "controller": True}
    managed = {"manager": "governed-operator", "operation": "Apply", "fieldsV1": FIELDS}
    metadata = {
        "name": "d", "namespace": "n", "uid": "u", "resourceVersion": str(version), "generation": generation,
        "ownerReferences": [owner], "managedFields": [managed],
    }  # fmt: skip
    return {"metadata": metadata, "spec": {"paused": paused}, "status": {"availableReplicas": available}}


def line(kind: str, observed: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": observed}).encode() + b"\n"


async def run(server: Server, cache: Cache) -> list[ModelKey]:
    woken: list[ModelKey] = []
    reflector = Reflector(DEPLOYMENT, server, cache, woken.append, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        await reflector.run()
    return woken


def child(cache: Cache) -> Any:
    return cache.children(("n", "m"))["Deployment", "d"]


async def test_news_wakes_and_what_is_known_does_not() -> None:
    cache = Cache()
    lines = [
        line("ADDED", deployment(5)),
        line("MODIFIED", deployment(11, available=1)),
        line("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
        line("MODIFIED", deployment(21, available=1)),
    ]
    server = Server([deployment(5)], lines)
    assert await run(server, cache) == [("n", "m"), ("n", "m")]
    assert server.asked == ["10"]
    assert child(cache).facts.available == 1


async def test_status_alone_keeps_the_fingerprint_and_a_drift_changes_it() -> None:
    cache = Cache()
    await run(Server([deployment(5)], []), cache)
    first = child(cache)
    await run(Server([deployment(5)], [line("MODIFIED", deployment(6, available=3))]), cache)
    assert child(cache).fingerprint is first.fingerprint, "not computed again"
    await run(Server([], [line("ADDED", deployment(7, paused=True, generation=2))]), cache)
    assert child(cache).fingerprint not in (None, first.fingerprint)


async def test_a_lost_field_is_drift_even_when_no_generation_counts_it() -> None:
    cache = Cache()
    await run(Server([deployment(5)], []), cache)
    before = child(cache).fingerprint
    robbed = deployment(6)
    robbed["metadata"]["managedFields"][0]["fieldsV1"] = {}
    await run(Server([deployment(5)], [line("MODIFIED", robbed)]), cache)
    assert child(cache).fingerprint != before


async def test_a_watch_that_breaks_is_counted_and_goes_on() -> None:
    breaks: list[int] = []
    server = Server([deployment(5)], [b"upstream timeout\n"], [line("MODIFIED", deployment(11, available=1))])
    cache = Cache()
    reflector = Reflector(DEPLOYMENT, server, cache, print, lambda: breaks.append(1))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        await reflector.run()
    assert breaks == [1]
    assert server.asked == ["10", "10"]
    assert child(cache).facts.available == 1


async def test_deleted_is_dropped_by_uid() -> None:
    cache = Cache()
    other = deployment(9)
    other["metadata"]["uid"] = "earlier"
    await run(Server([deployment(5)], [line("DELETED", other)]), cache)
    assert child(cache)
    assert await run(Server([deployment(5)], [line("DELETED", deployment(9))]), cache) == [("n", "m")]
    assert not cache.children(("n", "m"))


@pytest.mark.parametrize("bad", [b'{"type":"ADDED","object":{"metada', b"upstream timeout\n"])
def test_a_torn_event_breaks_the_watch(bad: bytes) -> None:
    reflector = Reflector(DEPLOYMENT, None, Cache(), print, print)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="expected a watch event, found"):
        reflector._take(bad)


def test_an_expired_version_is_told_apart() -> None:
    reflector = Reflector(DEPLOYMENT, None, Cache(), print, print)  # type: ignore[arg-type]
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    with pytest.raises(ApiError) as caught:
        reflector._take(line("ERROR", gone))
    assert caught.value.status == 410


def test_what_another_controller_made_under_our_labels_is_not_ours_to_prune() -> None:
    """KEDA's autoscaler bears the ScaledObject's labels; a pod belongs to its ReplicaSet, and is looked at all the
    same."""
    made = deployment(11)
    made["metadata"] |= {
        "labels": {"governedmodels.io/model": "m"},
        "ownerReferences": [{"kind": "ScaledObject", "name": "m", "uid": "s", "controller": True}],
    }
    cache = Cache()
    assert cache.put("HorizontalPodAutoscaler", json.dumps(made).encode()) is None
    assert cache.children(("n", "m")) == {}
    made |= {"spec": {"containers": []}}
    assert cache.put("Pod", json.dumps(made).encode()) == ("n", "m")


class Namespaces(Server):
    """Lists by namespace; some may not be read until they have been asked for ``refusals`` times."""

    def __init__(self, namespace: str, refusals: int) -> None:
        super().__init__([deployment(5)], [])
        self.namespace, self.refusals = namespace, refusals

    async def pages(self, *_: Any, namespace: str | None = None, **__: Any) -> AsyncIterator[tuple[list[bytes], str]]:
        assert namespace == self.namespace
        self.refusals -= 1
        if self.refusals >= 0:
            raise ApiError(403, "Forbidden", "may not list")
        async for page in super().pages():
            yield page


async def test_a_namespace_that_may_not_be_read_holds_nothing_up_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        assert reflector.synced.is_set(), "the others' work begins without it"
        paused.append(seconds)

    monkeypatch.setattr(reflector_module.asyncio, "sleep", pause)
    cache, breaks = Cache(), list[int]()
    other = json.dumps(deployment(4) | {"metadata": {**deployment(4)["metadata"], "namespace": "other"}}).encode()
    cache.put("Deployment", other)
    server: Any = Namespaces("n", 5)
    reflector = Reflector(DEPLOYMENT, server, cache, print, lambda: breaks.append(1), "n")
    with pytest.raises(KeyboardInterrupt):
        await reflector.run()
    assert paused == [reflector_module.NOT_ALLOWED_PAUSE] * 5
    assert (len(breaks), reflector.silent_for < 60) == (5, True)
    assert child(cache)
    assert cache.children(("other", "m")), "a list of one namespace says nothing of another's objects"

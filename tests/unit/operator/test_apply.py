"""What is written, and what is believed of it: nothing twice, drift always, another form of our values once."""

import asyncio
import copy
import json
from typing import Any

import pytest

from governed_api.reasons import Reason
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE
from governed_operator.kube.cluster import ApiError
from governed_operator.kube.kinds import BY_NAME, Kind
from governed_operator.loop.apply import Applier, Expected
from governed_operator.loop.failures import Failure, NameTaken
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.watch.cache import Cache

KEY = ("n", "m")
MANIFEST: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "q", "namespace": "n", "labels": {"governedmodels.io/model": "m"}},
    "spec": {"hard": {"cpu": "1000m"}},
}
FIELDS = {"f:metadata": {"f:labels": {"f:governedmodels.io/model": {}}}, "f:spec": {"f:hard": {"f:cpu": {}}}}


class Server:
    """Stores what is applied, as its ``form`` has it; a second apply of the same is no change."""

    def __init__(self, form: str = "1000m") -> None:
        self.form, self.version, self.writes = form, 1, 0
        self.cpu = ""

    def stored(self) -> bytes:
        managed = {"manager": "governed-operator", "operation": "Apply", "fieldsV1": FIELDS}
        observed = copy.deepcopy(MANIFEST)
        observed["metadata"] |= {"uid": "u", "resourceVersion": str(self.version), "managedFields": [managed]}
        observed["spec"]["hard"]["cpu"] = self.cpu
        return json.dumps(observed).encode()

    def become(self, cpu: str) -> bytes:
        if cpu != self.cpu:
            self.cpu, self.version = cpu, self.version + 1
        return self.stored()

    async def apply(self, *_: Any, **__: Any) -> bytes:
        self.writes += 1
        return self.become(self.form)


async def converge(applier: Applier) -> int:
    return await applier.converge(KEY, [(MANIFEST, Expected.of(MANIFEST))], "")


def bed(server: Server) -> tuple[Cache, Applier]:
    cache = Cache()
    return cache, Applier(server, cache, OperatorMetrics(WorkQueue()))  # type: ignore[arg-type]


async def test_what_was_just_made_is_not_written_again_and_drift_is() -> None:
    server = Server()
    cache, applier = bed(server)
    assert [await converge(applier) for _ in range(2)] == [1, 0]
    assert cache.put("ResourceQuota", server.become("9")) == KEY
    assert [await converge(applier) for _ in range(2)] == [1, 0]
    assert (server.cpu, server.writes) == ("1000m", 2)


async def test_a_form_of_the_server_s_own_is_asked_about_once() -> None:
    server = Server(form="1")
    cache, applier = bed(server)
    assert await converge(applier) == 1
    server.version += 1
    cache.put("ResourceQuota", server.stored())
    assert [await converge(applier) for _ in range(3)] == [1, 0, 0]
    cache.put("ResourceQuota", server.become("9"))
    assert [await converge(applier) for _ in range(2)] == [1, 0]


async def test_a_new_process_finds_what_another_made_in_order() -> None:
    server = Server()
    server.become("1000m")
    cache, applier = bed(server)
    cache.put("ResourceQuota", server.stored())
    assert await converge(applier) == 0


async def test_pods_wait_for_what_they_need_and_autoscalers_for_what_they_scale() -> None:
    begun: list[str] = []
    ended: list[str] = []

    class Slow:
        async def apply(self, kind: Kind, *_: Any, **__: Any) -> None:
            begun.append(f"{kind.kind} after {len(ended)}")
            await asyncio.sleep(0)
            ended.append(kind.kind)

    def of(kind: str) -> tuple[dict[str, Any], Expected]:
        api = BY_NAME[kind].api_version
        manifest = {**MANIFEST, "apiVersion": api, "kind": kind}
        return manifest, Expected.of(manifest)

    applier = Applier(Slow(), Cache(), OperatorMetrics(WorkQueue()))  # type: ignore[arg-type]
    kinds = ("ScaledObject", "HorizontalPodAutoscaler", "Deployment", "Job", "Service", "Role")
    assert await applier.converge(KEY, [of(kind) for kind in kinds], "") == 6
    assert begun == ["Service after 0", "Role after 0", "Deployment after 2", "Job after 2",
                     "ScaledObject after 4", "HorizontalPodAutoscaler after 4"]  # fmt: skip


class Neighbourhood:
    """An API server in which others own an object of that name; ``forced`` are the applies that would have taken it."""

    def __init__(self) -> None:
        self.forced: list[str] = []

    async def apply(self, kind: Kind, manifest: dict[str, Any], *, force: bool) -> bytes:
        if not force:
            raise ApiError(
                409, "Conflict", 'Apply failed with 1 conflict: conflict with "kubectl" using v1: .spec.hard.cpu'
            )
        self.forced.append(kind.kind)
        return json.dumps({**manifest, "metadata": {**manifest["metadata"], "resourceVersion": "9"}}).encode()

    async def create(self, *_: Any) -> None:
        return None

    async def head(self, *_: Any) -> dict[str, Any]:
        return {"metadata": {"name": "q", "namespace": "n", "labels": {"governedmodels.io/model": "another"}}}


@pytest.mark.parametrize("once", [False, True])
async def test_what_others_own_is_never_adopted(once: bool) -> None:
    server = Neighbourhood()
    applier = Applier(server, Cache(), OperatorMetrics(WorkQueue()))  # type: ignore[arg-type]
    manifest = copy.deepcopy(MANIFEST)
    if once:
        manifest["metadata"]["annotations"] = {ANNOTATION_CREATE_ONCE: "true"}
    with pytest.raises(NameTaken) as taken:
        await applier.converge(KEY, [(manifest, Expected.of(manifest))], "")
    failure = Failure.of(taken.value)
    assert (failure.reason, failure.subject) == (Reason.NAME_TAKEN, "ResourceQuota q")
    assert "rename the model" in failure.message
    assert not server.forced


async def test_conflicts_over_our_own_objects_are_ours_to_win() -> None:
    server = Server()
    cache, applier = bed(server)
    cache.put("ResourceQuota", server.become("2"))
    neighbourhood = Neighbourhood()
    applier._cluster = neighbourhood  # type: ignore[assignment]
    assert await converge(applier) == 1
    assert neighbourhood.forced == ["ResourceQuota"]

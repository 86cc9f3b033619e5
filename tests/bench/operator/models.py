"""Models by the hundred: documents, the very objects that stand for each, and a watch that sees them become Ready."""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from operator_bed import DIGEST, model

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_operator.desired import Subject, archive_objects, model_objects
from governed_operator.desired.decision import Decision, Revision
from governed_operator.desired.key_material import draw
from governed_operator.kube.cluster import MERGE, ApiError, Cluster, WatchTimes
from governed_operator.kube.kinds import BY_NAME, MODEL, Kind
from governed_operator.settings import OperatorSettings

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, model)."""
PER_NAMESPACE = 100
PARALLEL = 32
ROOT = b"r" * 32


def keys(models: int) -> list[Key]:
    return [(f"models-{i // PER_NAMESPACE}", f"m{i}") for i in range(models)]


def document(key: Key) -> Object:
    """A model that brings its own artefact on a volume: ten children, no training."""
    out = model(key[1], {"predictor": {"model": {"storageUri": "pvc://models/m.onnx", "digest": DIGEST}}})
    out["metadata"]["namespace"] = key[0]
    return out


def objects_of(key: Key) -> list[Object]:
    """The very objects of one model, its keys filled in."""
    resolved = ResolvedModel.of(GovernedModel.model_validate(document(key)))
    found = model_objects(Subject(resolved), Decision(stable=Revision.of(resolved, DIGEST)))
    return [_filled(o) for o in found]


def shared_objects(namespace: str) -> list[Object]:
    """The archive of a namespace."""
    return [_filled(o) for o in archive_objects(namespace, OperatorSettings())]


def _filled(manifest: Object) -> Object:
    if manifest["kind"] == "Secret":
        manifest["stringData"] = {k: v.hex() for k, v in draw(manifest, ROOT).items()}
    return manifest


async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Run coroutines, PARALLEL at a time."""
    slots = asyncio.Semaphore(PARALLEL)

    async def one(coroutine: Coroutine[Any, Any, Any]) -> None:
        async with slots:
            await coroutine

    await asyncio.gather(*(one(c) for c in work))


async def applied(cluster: Cluster, manifest: Object) -> None:
    """Apply; an unreachable server is tried again, as the operator does."""
    while True:
        try:
            await cluster.apply(BY_NAME[manifest["kind"]], manifest)
        except ApiError as error:
            if error.status:
                raise
        else:
            return


async def make_namespaces(cluster: Cluster, models: list[Key]) -> None:
    """Each with the claim that its models are read from."""
    for name in sorted({namespace for namespace, _ in models}):
        await cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": "models", "namespace": name}, "spec": spec}
        await cluster.request("POST", f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class _Seen(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Seen


class Watch:
    """What one kind looks like to a user's watch, and when."""

    def __init__(self, cluster: Cluster, kind: Kind) -> None:
        self._cluster, self._kind = cluster, kind
        self._news = asyncio.Event()
        self.first: dict[Key, float] = {}
        """When an object was first seen."""
        self.ready: dict[Key, float] = {}
        """When a model was first seen Ready."""
        self.labels: dict[Key, dict[str, str]] = {}

    async def run(self) -> None:
        """Never returns; a broken watch goes on where it was."""
        decode = msgspec.json.Decoder(_Event).decode
        version = (await self._cluster.request("GET", self._kind.path(), limit="1"))["metadata"]["resourceVersion"]
        while True:
            try:
                async for line in self._cluster.watch(self._kind, "", version, WatchTimes(3600, 600, rest=0)):
                    event = decode(line)
                    version = event.object.metadata.resource_version
                    if event.type != "BOOKMARK":
                        self._take(event.object)
            except ApiError as error:
                if error.status == 410:
                    raise
                await asyncio.sleep(0.2)

    def _take(self, seen: _Seen) -> None:
        key, now = (seen.metadata.namespace, seen.metadata.name), time.perf_counter()
        self.first.setdefault(key, now)
        self.labels[key] = seen.metadata.labels
        if any(c.type == "Ready" and c.status == "True" for c in seen.status.conditions):
            self.ready.setdefault(key, now)
        self._news.set()

    async def until(self, holds: Any, patience: float) -> bool:
        """Wait until ``holds()``; false after ``patience`` seconds."""
        deadline = time.perf_counter() + patience
        while not holds():
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), max(0.0, deadline - time.perf_counter()))
            except TimeoutError:
                return bool(holds())
        return True


async def change_spec(cluster: Cluster, key: Key, request_seconds: int) -> None:
    """What rolls a model's pods."""
    patch = {"spec": {"predictor": {"timeout": request_seconds}}}
    await cluster.request("PATCH", MODEL.path(*key), patch, media=MERGE)


async def change_seconds(
    cluster: Cluster, deployments: Watch, key: Key, request_seconds: int, patience: float = 120.0
) -> float:
    """Seconds from a changed spec to the changed Deployment, as a watch sees it; infinite when it never comes."""
    place = (key[0], f"{key[1]}-predictor")
    before = deployments.labels.get(place)
    began = time.perf_counter()
    await change_spec(cluster, key, request_seconds)
    changed = await deployments.until(lambda: deployments.labels.get(place) != before, patience)
    return time.perf_counter() - began if changed else float("inf")


def sample(models: list[Key], count: int) -> list[Key]:
    return random.Random(7).sample(models, min(count, len(models)))

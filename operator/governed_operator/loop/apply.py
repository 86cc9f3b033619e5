"""The one path of writing: server-side apply of what differs, creation of what is made once, prune of what is
unwanted."""

import asyncio
import base64
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.names import GROUP
from governed_api.reasons import Reason
from governed_operator.desired.key_material import derives, draw
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, ANNOTATION_GENERATE, Manifest
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import BY_NAME, OWNED, SECRET, Kind
from governed_operator.kube.projection import desired_fingerprint
from governed_operator.loop.failures import NameTaken, Wait
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.watch.cache import Cache, Child, ChildKey, ModelKey, head_of

LATER = {
    "RoleBinding": 1,
    "Deployment": 1,
    "StatefulSet": 1,
    "Job": 1,
    "HorizontalPodAutoscaler": 2,
    "ScaledObject": 2,
}
"""Turn in which a kind is written, after all others: a binding needs its Role (404 otherwise), pods need the rest, and
what scales a workload looks it up at once (KEDA's complaint of one that isn't there yet would be the first that is
heard of a model)."""
KEPT = frozenset({"Secret"})
"""Never pruned: a key may be all that opens a ledger."""
PRUNABLE = frozenset(k.kind for k in OWNED) - KEPT


class Expected(NamedTuple):
    """A manifest, reduced to what comparing needs."""

    kind: str
    name: str
    once: bool
    """Made once; never compared."""
    fingerprint: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> "Expected":
        metadata = manifest["metadata"]
        once = ANNOTATION_CREATE_ONCE in metadata.get("annotations", {})
        return cls(manifest["kind"], metadata["name"], once, b"" if once else desired_fingerprint(manifest))

    @property
    def place(self) -> ChildKey:
        return self.kind, self.name


class Applier:
    """Writes; answers go into the cache at once, so that no decision rests on anything older than our own writes."""

    def __init__(self, cluster: Cluster, cache: Cache, metrics: OperatorMetrics, parallel: int = 24) -> None:
        self._cluster = cluster
        self._cache = cache
        self._metrics = metrics
        self._slots = asyncio.Semaphore(parallel)
        self._normalised: dict[tuple[str, str, str], tuple[bytes, bytes]] = {}
        self._roots: dict[str, bytes] = {}

    def there(self, key: ModelKey, place: ChildKey) -> bool:
        """Whether the model has such a child."""
        return place in self._cache.children(key)

    def differs(self, key: ModelKey, expected: Expected) -> bool:
        """Whether a manifest must be written, judged by the cache."""
        child = self._cache.children(key).get(expected.place)
        if child is None:
            return True
        if child.deleting or expected.once or child.fingerprint == expected.fingerprint:
            return False
        place = (expected.kind, key[0], expected.name)
        return self._normalised.get(place) != (expected.fingerprint, child.fingerprint)

    async def converge(self, key: ModelKey, wanted: list[tuple[Manifest, Expected]], uid: str) -> int:
        """Write what differs; the number of writes. Raises ApiError, Wait."""
        todo = [(m, e) for m, e in wanted if self.differs(key, e)]
        for manifest, _ in todo:
            self._refuse_strangers(key, manifest, uid)
        for turn in range(max(LATER.values()) + 1):
            now = [(m, e) for m, e in todo if LATER.get(e.kind, 0) == turn]
            await asyncio.gather(*(self._write(key, m, e) for m, e in now))
        return len(todo)

    def _refuse_strangers(self, key: ModelKey, manifest: Manifest, uid: str) -> None:
        """A child of an earlier model of this name goes by garbage collection first."""
        child = self._cache.children(key).get((manifest["kind"], manifest["metadata"]["name"]))
        if child and child.owner and uid and child.owner != uid:
            message = f"{child.kind} {child.name} of an earlier model of this name is still there"
            raise Wait(2.0, Reason.PREVIOUS_MODEL_REMAINS, message)

    async def _write(self, key: ModelKey, manifest: Manifest, expected: Expected) -> None:
        kind = BY_NAME[manifest["kind"]]
        annotations = manifest["metadata"].get("annotations", {})
        fresh = expected.place not in self._cache.children(key)
        async with self._slots:
            if ANNOTATION_GENERATE in annotations:
                manifest = await self._with_data(key[0], manifest)
            if expected.once:
                answer = await self._made(kind, manifest)
                self._metrics.wrote(kind.kind, "create")
            else:
                answer = await self._applied(kind, manifest, fresh)
                self._metrics.wrote(kind.kind, "apply")
        if answer:
            self._cache.put(kind.kind, answer, applied=expected.fingerprint if fresh else None)
            if not fresh and not expected.once:
                self._remember_normalised(key, expected, answer)

    async def _applied(self, kind: Kind, manifest: Manifest, fresh: bool) -> bytes:
        """Raises NameTaken for an object that isn't known as ours and whose fields another has set."""
        try:
            return await self._cluster.apply(kind, manifest, force=not fresh)
        except ApiError as error:
            if fresh and error.status == 409 and error.reason == "Conflict":
                raise NameTaken(kind.kind, manifest["metadata"]["name"], str(error)) from error
            raise

    async def _made(self, kind: Kind, manifest: Manifest) -> bytes | None:
        """Created, or what is there under its name."""
        answer = await self._cluster.create(kind, manifest)
        if answer:
            return answer
        metadata = manifest["metadata"]
        existing = await self._cluster.head(kind, metadata.get("namespace"), metadata["name"])
        if existing is None:
            return None
        present = existing["metadata"].get("labels") or {}
        if any(present.get(k) != v for k, v in metadata.get("labels", {}).items() if k.startswith(GROUP)):
            raise NameTaken(kind.kind, metadata["name"], "it does not bear the labels of this model")
        return msgspec.json.encode(existing)

    def _remember_normalised(self, key: ModelKey, expected: Expected, answer: bytes) -> None:
        """Where the server writes our values in another form, that form is right from now on."""
        child = self._cache.children(key).get(expected.place)
        if child is None or child.version != head_of(answer).version:
            return  # changed again meanwhile: an event tells
        place = (expected.kind, key[0], expected.name)
        if child.fingerprint is not None and child.fingerprint != expected.fingerprint:
            self._normalised[place] = (expected.fingerprint, child.fingerprint)
        else:
            self._normalised.pop(place, None)

    async def _with_data(self, namespace: str, manifest: Manifest) -> Manifest:
        root = await self.archive_root(namespace) if derives(manifest) else None
        data = {k: _base64(v) for k, v in draw(manifest, root).items()}
        return {**manifest, "data": data}

    async def archive_root(self, namespace: str) -> bytes:
        """Root that tokens of a namespace derive from. Raises Wait while there is none."""
        if namespace not in self._roots:
            secret = await self._cluster.get(SECRET, namespace, object_names.ARCHIVE_KEYS)
            if secret is None:
                raise Wait(1.0, Reason.ARCHIVE_KEYS_PENDING, f"Secret {object_names.ARCHIVE_KEYS} is not there yet")
            self._roots[namespace] = _from_base64(secret["data"][rt.ROOT_NAME])
        return self._roots[namespace]

    def forget(self, namespace: str) -> None:
        """The namespace's archive keys may be others now."""
        self._roots.pop(namespace, None)

    def unwanted(self, key: ModelKey, wanted: set[ChildKey], retained: Mapping[ChildKey, Child]) -> list[Child]:
        """Children that are neither wanted nor retained."""
        return [
            child
            for place, child in self._cache.children(key).items()
            if child.kind in PRUNABLE and place not in wanted and place not in retained and not child.deleting
        ]

    async def prune(self, key: ModelKey, wanted: set[ChildKey], retained: Mapping[ChildKey, Child]) -> int:
        """Delete what is unwanted; the number of deletions."""
        unwanted = self.unwanted(key, wanted, retained)
        for child in unwanted:
            kind = BY_NAME[child.kind]
            await self._cluster.delete(kind, key[0] if kind.namespaced else None, child.name, child.uid)
            self._metrics.wrote(child.kind, "delete")
        return len(unwanted)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text)

"""Everything that one operator process runs: watches, workers when leading, health and metrics over HTTP."""

import asyncio
import logging
import os
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from governed_api.runtime import LIVE_PATH, METRICS_PATH, OPERATOR_PORT, READY_PATH
from governed_api.token_identity import IssuerSource
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import CLUSTER_POLICY, CONSUMER, MODEL, POLICY, WATCHED, Object
from governed_operator.kube.leader import Leadership, cancelled, identity
from governed_operator.loop.consumers import ConsumerReconciler, wake_consumers, wake_models
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.observe import Observer
from governed_operator.loop.policies import PolicyTeller, models_of
from governed_operator.loop.reconcile import Reconciler, run_workers
from governed_operator.loop.recorder import EventRecorder
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch.cache import Cache, ModelKey
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.https import NotFetched
from governed_operator.watch.issuer_keys import DISCOVERY, Found, IssuerKeys, kept, published
from governed_operator.watch.policies import Policies
from governed_operator.watch.reflector import SILENCE, Reflector

logger = logging.getLogger("governed_operator")

WORKERS = 16
CAPABILITY_GROUPS = {
    "keda": "keda.sh",
    "service_monitor": "monitoring.coreos.com",
    "gateway_api": "gateway.networking.k8s.io",
}
CLUSTER_KEYS = "/openid/v1/jwks"
"""Of the cluster's service accounts."""
FIRST_LISTS = 30.0
"""Seconds that a start waits for all children to be listed."""
CHECK_EVERY = 60.0
"""Seconds between looks at whether the model watch still tells the truth."""
STALE_AFTER = 60.0
"""Seconds that a known change may be missing from the cache before the process is declared dead."""


async def discover(cluster: Cluster, settings: OperatorSettings) -> Capabilities:
    """Which neighbours' CRDs this cluster has; an operator of named namespaces has no right to what is in none."""
    groups = {g["name"] for g in (await cluster.request("GET", "/apis"))["groups"]}
    neighbours = {flag: group in groups for flag, group in CAPABILITY_GROUPS.items()}
    return Capabilities(**neighbours, cluster_scoped=not settings.namespaces)


@dataclass
class Staleness:
    """Since when the API server has known more than the model cache."""

    since: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.since is None else time.monotonic() - self.since


class OperatorProcess:
    """Started and stopped by the handlers."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, capabilities: Capabilities) -> None:
        self.cache = Cache()
        self.consumers = Consumers()
        self.queue = WorkQueue()
        self.consumer_queue = WorkQueue()
        self.metrics = OperatorMetrics(self.queue)
        self._cluster = cluster
        self.namespaces = settings.namespaces
        everywhere: tuple[str | None, ...] = settings.namespaces or (None,)
        self._everywhere = everywhere
        kinds = [k for k in WATCHED if not k.capability or getattr(capabilities, k.capability)]
        self._reflectors = [
            Reflector(k, cluster, self.cache, self._child_changed, self.metrics.watch_breaks.labels(k.kind).inc, place)
            for k in kinds
            for place in everywhere
        ]
        broke = self.metrics.watch_breaks.labels(CONSUMER.kind).inc
        self._reflectors += [
            Reflector(CONSUMER, cluster, self.consumers, self._consumer_changed, broke, place, selector="")
            for place in everywhere
        ]
        self._keys = IssuerKeys(self._published, self.consumers.sources, self._keys_changed)
        self.policies = Policies(settings.namespaces)
        self._reflectors += self._policy_reflectors(cluster)
        self._teller = PolicyTeller(self.policies, EventRecorder(cluster))
        observer = Observer(cluster, self.cache, settings, capabilities, policies=self.policies)
        self._reconciler = Reconciler(
            cluster, self.cache, self.queue, observer, self.metrics, settings,
            consumers=self.consumers, keys=self._keys, wake_consumer=self.consumer_queue.wake,
        )  # fmt: skip
        self._consumer_reconciler = ConsumerReconciler(
            cluster, self.cache, self.consumers, self._reconciler.callers, self.consumer_queue,
            self.metrics, keys=self._keys,
        )  # fmt: skip
        namespace = os.environ.get("POD_NAMESPACE", "default")
        self.leadership = Leadership(cluster, namespace, identity(os.environ.get("POD_NAME", f"local-{os.getpid()}")))
        self._stale = Staleness()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._working = False

    def _policy_reflectors(self, cluster: Cluster) -> list[Reflector]:
        """What may not be read of them holds the models that it may be about, and nothing else."""
        places = [(CLUSTER_POLICY, None), *((POLICY, place) for place in self._everywhere)]
        return [
            Reflector(
                kind, cluster, self.policies, self._policy_changed, self.metrics.watch_breaks.labels(kind.kind).inc,
                place, selector="", refused=partial(self._policies_refused, kind.kind, place),
            )
            for kind, place in places
        ]  # fmt: skip

    @classmethod
    async def create(cls) -> "OperatorProcess":
        cluster, settings = await Cluster.connect(), OperatorSettings.from_environment()
        return cls(cluster, settings, await discover(cluster, settings))

    def _child_changed(self, key: ModelKey) -> None:
        """A shared child (no model) wakes its namespace's archive. Before the start of work, all are looked at
        anyway."""
        if key[0] and self._working:
            self.queue.wake(key)

    def _consumer_changed(self, key: ModelKey) -> None:
        """Its status may be another now, and that of those that list one of its keys; and who may call their models."""
        about = self.consumers.touched(key)
        if not self._working:
            return
        for name in {key[1], *(consumer.name for consumer in about)}:
            self.consumer_queue.wake((key[0], name))
        wake_models(self.cache, self.queue, key[0], about)

    def _policy_changed(self, key: ModelKey) -> None:
        """Models that it was or is about stand otherwise now. A namespace of "" is the cluster."""
        about = self.policies.touched(key)
        if not self._working:
            return
        self._teller.queue.wake(key)
        self.queue.wake_low_priority(models_of(self.cache, key[0], about))

    def _policies_refused(self, kind: str, place: str | None, error: ApiError) -> None:
        if key := self.policies.refused(kind, place, error):
            self._policy_changed(key)

    async def _published(self, source: IssuerSource) -> Found:
        """Raises NotFetched."""
        if not source.cluster:
            return await published(source)
        try:
            said = await self._cluster.request("GET", DISCOVERY)
            keys = await self._cluster.raw("GET", CLUSTER_KEYS, accept="application/jwk-set+json, application/json")
        except ApiError as error:
            raise NotFetched(
                f"the API server doesn't tell them ({error}): it needs the role system:service-account-issuer-discovery"
            ) from error
        issuer = said.get("issuer")
        if not isinstance(issuer, str) or not 0 < len(issuer) <= 512:
            raise NotFetched("the API server doesn't say who issues its tokens")
        return Found(issuer, kept(keys))

    def _keys_changed(self, source: IssuerSource) -> None:
        """Documents with that issuer are others now."""
        for namespace, about in self.consumers.of_source(source).items():
            for consumer in about:
                self.consumer_queue.wake((namespace, consumer.name))
            wake_models(self.cache, self.queue, namespace, about)

    def model_event(self, kind: str | None, observed: Object) -> None:
        """From kopf: a model was listed, changed or deleted. Ten thousand new ones must keep neither those in hand nor
        a change waiting."""
        key = (observed["metadata"]["namespace"], observed["metadata"]["name"])
        before = self.cache.models.get(key)
        if kind == "DELETED":
            self.cache.drop_model(key, observed["metadata"]["uid"])
            self.queue.wake(key)
        elif self.cache.put_model(observed) and self._working:
            if before or kind == "MODIFIED":
                self.queue.add(key, 0.0)
            else:
                self.queue.enqueue_low_priority([key])
        if self._working:
            wake_consumers(self.consumers, self.consumer_queue, key, before, self.cache.models.get(key))

    async def start(self) -> None:
        """Watches and HTTP at once; workers once leading and all caches are complete."""
        for reflector in self._reflectors:
            self._spawn(reflector.run())
        self._spawn(self._watch_the_watch())
        self._spawn(self.leadership.run(self._lead, self._lost))
        port = int(os.environ.get("GOVERNED_OPERATOR_HTTP_PORT", OPERATOR_PORT))
        app = web.Application()
        app.add_routes(
            [
                web.get(LIVE_PATH, self._live),
                web.get(READY_PATH, self._ready),
                web.get(METRICS_PATH, self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", port).start()

    async def listed(self, patience: float = FIRST_LISTS) -> None:
        """Until all children are known, ``patience`` seconds at most: kopf's own first list, an event for every model,
        comes after that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for reflector in self._reflectors:
                    await reflector.synced.wait()

    def _spawn(self, work: Coroutine[object, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    @staticmethod
    def _ended(task: asyncio.Task[None]) -> None:
        """None of the tasks may end by itself; liveness says so as well."""
        if not task.cancelled():
            logger.critical("a task of the operator has ended", exc_info=task.exception())

    async def stop(self) -> None:
        """Work in hand ends where it stands: every step may be repeated; then the Lease is given up."""
        for task in self._tasks:
            await cancelled(task)
        await self.leadership.release()
        if self._runner:
            await self._runner.cleanup()
        await self._cluster.close()

    async def _lead(self) -> None:
        await self._list_models()
        for reflector in self._reflectors:
            await reflector.synced.wait()
        self._working = True
        for key in [k for k, m in self.cache.models.items() if not m.answered]:
            self.queue.wake(key)
        self.queue.enqueue_low_priority(self.cache.keys())
        self.consumer_queue.enqueue_low_priority(self.consumers.keys())
        self._teller.queue.enqueue_low_priority(self.policies.unreadable())
        async with asyncio.TaskGroup() as group:
            group.create_task(run_workers(self._reconciler, WORKERS))
            group.create_task(self._consumer_reconciler.work())
            group.create_task(self._teller.work())
            group.create_task(self._keys.run())

    async def _list_models(self) -> None:
        """kopf doesn't say when its first list is complete; a model missing from the cache must mean that it is
        gone."""
        for place in self._everywhere:
            try:
                async for items, _ in self._cluster.pages(MODEL, "", namespace=place):
                    for item in items:
                        self.cache.put_model(msgspec.json.decode(item))
            except ApiError as error:
                if place is None or error.status != 403:
                    raise
                logger.warning("models in namespace %s can't be listed: %s", place, error)

    @staticmethod
    def _lost() -> None:
        """Two leaders must never write: the process ends, and comes back as a standby."""
        logger.error("ending: another process may be leading")
        os._exit(1)

    async def _watch_the_watch(self) -> None:
        """A watch that ended silently looks like a quiet cluster: compare with a cheap list now and then."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                behind = await self._behind()
            except ApiError:
                continue  # an unreachable API server makes nothing stale
            self._stale.since = (self._stale.since or time.monotonic()) if behind else None

    async def _behind(self) -> bool:
        """Whether the API server has a model in a newer version than the cache, twice within a few seconds."""
        before = {key: entry.version for key, entry in self.cache.models.items()}
        listed = await self._known_to_the_server()
        newer = [(key, version) for key, version in listed.items() if before.get(key, 0) < version]
        if not newer:
            return False
        await asyncio.sleep(10)
        missing = [k for k, v in newer if k in self.cache.models and self.cache.models[k].version < v]
        unknown = [k for k, _ in newer if k not in self.cache.models and k not in before]
        return bool(missing or unknown)

    async def _known_to_the_server(self) -> dict[ModelKey, int]:
        """Models and their versions, wherever they may be read. Raises ApiError."""
        listed: dict[ModelKey, int] = {}
        for place in self._everywhere:
            try:
                listed |= await self._cluster.versions(MODEL, place)
            except ApiError as error:
                if place is None or error.status != 403:
                    raise
        return listed

    def _dead(self) -> str | None:
        """Why this process should be restarted."""
        silent = max(self._reflectors, key=lambda r: r.silent_for)
        if silent.silent_for > 2 * SILENCE:
            return f"nothing heard of {silent.what} for {silent.silent_for:.0f} s"
        if self._stale.seconds > STALE_AFTER:
            return f"the watch of models has missed changes for {self._stale.seconds:.0f} s"
        ended = [t for t in self._tasks if t.done()]
        return "a task has ended" if ended else None

    async def _live(self, _: web.Request) -> web.Response:
        why = self._dead()
        return web.json_response({"error": why}, status=503) if why else web.json_response({})

    async def _ready(self, _: web.Request) -> web.Response:
        waiting = [r.what for r in self._reflectors if not r.synced.is_set()]
        if waiting:
            return web.json_response({"error": f"not listed yet: {', '.join(waiting)}"}, status=503)
        return web.json_response({"leading": self.leadership.leading})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

"""One level-triggered reconcile per model: observe → policy → desired → apply → status. May run at any time, twice, or
after a crash anywhere."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from governed_api import object_names
from governed_api.model import GovernedModelStatus
from governed_api.names import ARCHIVE
from governed_api.reasons import Reason
from governed_operator.desired import archive_objects, model_objects
from governed_operator.desired.callers import callers_place
from governed_operator.desired.decision import Decision
from governed_operator.desired.inference import COMPONENT
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import MODEL, REPORT
from governed_operator.loop.apply import Applier, Expected
from governed_operator.loop.callers import CallersKeeper
from governed_operator.loop.failures import Failure, Wait
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.observe import ArchiveStanding, Observer, recorded_words
from governed_operator.loop.recorder import EventRecorder
from governed_operator.loop.report_failure import FailureReporter, StatusWriter
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.policy.decide import decide
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import stale_report_entries
from governed_operator.policy.status import significant, status_of
from governed_operator.settings import OperatorSettings
from governed_operator.watch.cache import Cache, Child, ChildKey, ModelEntry, ModelKey
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.facts import JobFacts
from governed_operator.watch.issuer_keys import IssuerKeys

logger = logging.getLogger("governed_operator.loop.reconcile")

AFTER_WRITES = 0.5
"""Seconds after which our own writes are looked at again, when no event comes sooner."""
FIGURES_EVERY = 300.0
"""Seconds between writes that only refresh figures."""
Token = tuple[object, ...]
REVISION_FIELDS = ("stable", "canary", "rejected")


class Reconciler:
    """Workers over the queue."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue,
        observer: Observer,
        metrics: OperatorMetrics,
        settings: OperatorSettings,
        *,
        consumers: Consumers,
        keys: IssuerKeys,
        wake_consumer: Callable[[ModelKey], None],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._observer = observer
        self._metrics = metrics
        self._settings = settings
        self._applier = Applier(cluster, cache, metrics)
        self.callers = CallersKeeper(cluster, self._applier, consumers, keys, wake_consumer)
        self._recorder = EventRecorder(cluster)
        self._status = StatusWriter(cluster, cache, metrics)
        self._failures = FailureReporter(self._status, cache, queue, self._recorder, metrics)
        self._archives: dict[str, ArchiveStanding] = {}
        self._judged: dict[str, Mapping[str, object]] = {}
        self._figures: dict[ModelKey, float] = {}
        self._settled: dict[ModelKey, tuple[Token, tuple[Expected, ...]]] = {}

    async def work(self) -> None:
        """Never returns."""
        while True:
            key = await self._queue.take()
            began = time.perf_counter()
            result = await self._guarded(key)
            self._metrics.reconciles.labels(result).observe(time.perf_counter() - began)
            await asyncio.sleep(
                0
            )  # a model in order waits for nothing: after a start, thousands would keep probes and Lease waiting

    async def _guarded(self, key: ModelKey) -> str:
        """The edge: one model's trouble must not stop the others, and none of it may stay untold."""
        try:
            again = await (self.reconcile(key) if key[1] else self.reconcile_archive(key[0]))
        except Exception as error:
            return await self._not_done(key, error)
        self._failures.passed(key)
        self._queue.done(key, again)
        return "done"

    async def _not_done(self, key: ModelKey, error: Exception) -> str:
        if isinstance(error, ApiError) and error.namespace_ends:
            self._failures.passed(key)
            self._queue.done(key)
            return "namespace ends"
        failure = Failure.of(error)
        if failure.reason is Reason.UNEXPECTED_ERROR:
            logger.error("%s/%s: reconcile failed", *key, exc_info=error)
        try:
            await self._failures.failed(key, failure)
        except Exception:
            logger.exception("%s/%s: failed to report a failure", *key)
        if isinstance(error, Wait):
            self._queue.done(key, error.seconds)
            return "waits"
        self._metrics.errors.labels(failure.reason).inc()
        delay = self._queue.failed(key)
        logger.warning("%s/%s: %s: %s; again in %.0f s", *key, failure.reason, failure.message, delay)
        return "failed"

    async def reconcile(self, key: ModelKey) -> float | None:
        """Seconds until it must be looked at again without an event. Raises ApiError, Wait."""
        entry = self._cache.models.get(key)
        if entry is None or entry.deleting:
            await self._clean_up(key, entry)
            return None
        self._want_archive(key[0])
        await self.callers.carry_out(key, entry)
        obs = await self._observer.observe(key, entry, self._failures.archive_failure(key[0]))
        decision = decide(obs)
        status = status_of(obs, decision)
        if self._revisions_move(obs, status):
            await self._write_status(key, entry, obs, status)
        if await self._carry_out(key, obs, decision):
            return AFTER_WRITES
        await self._write_status(key, entry, obs, status)
        waits = (decision.again_in, await self._prune_report(key, obs))
        return min((w for w in waits if w is not None), default=None)

    async def _prune_report(self, key: ModelKey, obs: Observed) -> float | None:
        """Pods add their entries and can't take them back when they die. Seconds until there may be more to remove."""
        patch, again_in = stale_report_entries(obs)
        if patch:
            answer = await self._cluster.patch_status(REPORT, key[0], key[1], {"revisions": patch})
            self._metrics.wrote(REPORT.kind, "status")
            self._cache.put(REPORT.kind, answer)
        return again_in

    async def _carry_out(self, key: ModelKey, obs: Observed, decision: Decision) -> int:
        """Apply what is desired; returns the number of writes. Objects in order are not rendered again until the
        desired state changes."""
        token, keep = _token(obs, decision), retained_children(obs, decision)
        known_token, expected = self._settled.get(key, ((), ()))
        if known_token == token and self._in_order(key, expected, keep):
            return 0
        wanted = [(m, Expected.of(m)) for m in model_objects(obs.subject, decision)]
        writes = await self._applier.converge(key, wanted, obs.subject.uid)
        writes += await self._applier.prune(key, {e.place for _, e in wanted}, keep)
        self._settled[key] = (token, tuple(e for _, e in wanted))
        return writes

    def _in_order(self, key: ModelKey, expected: tuple[Expected, ...], keep: dict[ChildKey, Child]) -> bool:
        if any(self._applier.differs(key, e) for e in expected):
            return False
        return not self._applier.unwanted(key, {e.place for e in expected}, keep)

    @staticmethod
    def _revisions_move(obs: Observed, status: GovernedModelStatus) -> bool:
        """A change of revisions is on record before it is carried out: a crash in between must not forget it."""
        before = obs.status
        return before.stable is not None and any(getattr(before, f) != getattr(status, f) for f in REVISION_FIELDS)

    async def _write_status(self, key: ModelKey, entry: ModelEntry, obs: Observed, status: GovernedModelStatus) -> None:
        stored, new = obs.stored, status.plain()
        self._metrics.note(key, {c.type: c.status for c in status.conditions})
        if new == stored:
            return
        if significant(new) == significant(stored) and not self._figures_due(key):
            return
        self._figures[key] = time.monotonic()
        await self._status.write(key, stored, new)
        await self._recorder.transitions(key, entry.uid, obs.status, status)

    def _figures_due(self, key: ModelKey) -> bool:
        last = self._figures.setdefault(key, time.monotonic())
        return time.monotonic() - last >= FIGURES_EVERY

    async def _clean_up(self, key: ModelKey, entry: ModelEntry | None) -> None:
        """Cluster-scoped children have no owner that could take them along."""
        self._metrics.note(key, None)
        self._figures.pop(key, None)
        self._settled.pop(key, None)
        self.callers.forget(key)
        left = [c for c in self._cache.children(key).values() if c.kind == "PriorityClass"]
        if left and (entry or await self._cluster.get(MODEL, *key) is None):
            keep = {place: c for place, c in self._cache.children(key).items() if c.kind != "PriorityClass"}
            await self._applier.prune(key, set(), keep)

    def _want_archive(self, namespace: str) -> None:
        if ("StatefulSet", ARCHIVE) not in self._cache.children((namespace, "")):
            self._queue.wake((namespace, ""))

    async def reconcile_archive(self, namespace: str) -> None:
        """The namespace's archive: made with the first model, left when the last one goes."""
        key = (namespace, "")
        models = [k for k, m in self._cache.models_of(namespace).items() if not m.deleting]
        if not models:
            self._archives.pop(namespace, None)
            self._judged.pop(namespace, None)
            self._applier.forget(namespace)
            return
        wanted = [(m, Expected.of(m)) for m in archive_objects(namespace, self._settings)]
        await self._applier.converge(key, wanted, "")
        report = self._cache.report(namespace, ARCHIVE)
        standing, words = ArchiveStanding.of(self._cache.children(key), report), recorded_words(report)
        stood, judged = self._archives.get(namespace), self._judged.get(namespace, {})
        self._archives[namespace], self._judged[namespace] = standing, words
        for model in models:
            if stood != standing or judged.get(model[1]) != words.get(model[1]):
                self._queue.wake(model)


def _token(obs: Observed, decision: Decision) -> Token:
    """All that the builders' output depends on: equal tokens, equal objects."""
    revisions = tuple(r and (r.name, r.percent) for r in (decision.stable, decision.canary))
    flags = (
        decision.train, decision.held, decision.stopped, decision.key_lost, decision.canary_serves,
        decision.stable_gone, decision.withheld,
    )  # fmt: skip
    subject = obs.subject
    return (subject.uid, obs.generation, subject.priority, subject.labels, revisions, flags)


def retained_children(obs: Observed, decision: Decision) -> dict[ChildKey, Child]:
    """What isn't wanted anew, and must stay all the same: a held Deployment, who may call, and ConfigMaps that running
    pods may still mount; a trainer's too, which an operator before this one made with rows in it, until its Job is
    over."""
    workload = obs.workload()
    settled = workload is not None and workload.observed and workload.updated >= workload.replicas
    training_config = ("ConfigMap", object_names.training_config(obs.subject.name, obs.model.training_hash()))
    callers = callers_place(obs.subject.name) if obs.model.spec.authenticates else None
    out = {}
    for place, child in obs.children.items():
        serving_config = child.kind == "ConfigMap" and child.component == COMPONENT
        held = decision.held and (serving_config or place == ("Deployment", object_names.deployment(obs.subject.name)))
        rolling = serving_config and not settled and not decision.stopped
        if held or rolling or place == callers or (place == training_config and _trains(obs)):
            out[place] = child
    return out


def _trains(obs: Observed) -> bool:
    """Whether the Job of the model's present training is there and not over."""
    name = object_names.training_job(obs.subject.name, obs.model.training_hash())
    job = obs.children.get(("Job", name))
    facts = job.facts if job is not None else None
    return isinstance(facts, JobFacts) and not facts.succeeded and facts.failure is None


async def run_workers(reconciler: Reconciler, number: int) -> None:
    """Reconcile with ``number`` workers until cancelled."""
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(reconciler.work())

"""Tells people of failed reconciles: a condition, an Event once, a metric. Clears itself when a reconcile passes."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from governed_api.reasons import Reason
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import MODEL
from governed_operator.loop.failures import Failure, FailureLog
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.observe import stored_status
from governed_operator.loop.recorder import EventRecorder, Regarding
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.policy.observed import Refusal
from governed_operator.policy.status import status_of_failure
from governed_operator.watch.cache import Cache, ModelEntry, ModelKey

logger = logging.getLogger("governed_operator.loop.report_failure")


class StatusWriter:
    """Writes a model's status, and believes the answer at once."""

    def __init__(self, cluster: Cluster, cache: Cache, metrics: OperatorMetrics) -> None:
        self._cluster = cluster
        self._cache = cache
        self._metrics = metrics

    async def write(self, key: ModelKey, stored: Mapping[str, object], new: dict[str, object]) -> None:
        """``known``: the status as it is stored. Raises ApiError."""
        patch = new | {k: None for k in stored if k not in new}
        answer = await self._cluster.patch_status(MODEL, key[0], key[1], patch)
        self._metrics.wrote(MODEL.kind, "status")
        self._cache.put_model(msgspec.json.decode(answer))


class FailureReporter:
    """Knows which failures are running, and which of them people have been told of."""

    def __init__(
        self, status: StatusWriter, cache: Cache, queue: WorkQueue, recorder: EventRecorder, metrics: OperatorMetrics
    ) -> None:
        self._status = status
        self._cache = cache
        self._queue = queue
        self._recorder = recorder
        self._metrics = metrics
        self._log = FailureLog()
        self._archives: dict[str, Refusal] = {}

    def archive_failure(self, namespace: str) -> Refusal | None:
        """Why a namespace's archive can't be made as it should be, as far as it is to be told."""
        return self._archives.get(namespace)

    async def failed(self, key: ModelKey, failure: Failure) -> None:
        """A reconcile failed, or waits for something. Raises nothing that the API server may answer."""
        due = self._log.failed(key, failure)
        if not key[1]:
            if due:
                self._archive_changed(key[0], failure.refusal("the namespace's archive"))
            return
        archive = self._archives.get(key[0])
        if failure.reason is Reason.ARCHIVE_KEYS_PENDING and archive:
            due, failure = True, Failure(archive.reason, archive.message, archive.subject)
        entry = self._cache.models.get(key)
        if due and entry:
            await self._tell(key, entry, failure)

    def passed(self, key: ModelKey) -> None:
        """A reconcile came to its end: its status says what is."""
        self._log.passed(key)
        if not key[1]:
            self._archive_changed(key[0], None)

    def _archive_changed(self, namespace: str, refusal: Refusal | None) -> None:
        """Its models tell of it, each in its own status. A message alone may differ each time: it would wake all of
        them for nothing."""
        previous = self._archives.get(namespace)
        if (previous and (previous.reason, previous.subject)) == (refusal and (refusal.reason, refusal.subject)):
            return
        if refusal:
            self._archives[namespace] = refusal
        else:
            del self._archives[namespace]
        for model in self._cache.models_of(namespace):
            self._queue.wake(model)

    async def _tell(self, key: ModelKey, entry: ModelEntry, failure: Failure) -> None:
        """In the status, and once as an event: whoever waits for this generation must not wait for ever."""
        try:
            changed = await self._write(key, entry, failure)
        except ApiError as error:
            if error.status == 404:
                return  # the model itself has gone meanwhile
            logger.warning("%s/%s: failed to update status: %s", *key, error)
            changed = True
        if self._log.news(key, entry.generation, failure) and changed:
            regarding = Regarding.model(key, entry.uid)
            await self._recorder.warn(regarding, Reason.RECONCILE_FAILED, failure.message)

    async def _write(self, key: ModelKey, entry: ModelEntry, failure: Failure) -> bool:
        """Whether the status didn't say so already. Raises ApiError."""
        previous = stored_status(entry)
        status = status_of_failure(
            previous,
            generation=entry.generation,
            now=datetime.now(UTC).replace(microsecond=0),
            reason=failure.reason,
            message=failure.message,
            stalled=failure.treatment.stalled,
        )
        self._metrics.note(key, {c.type: c.status for c in status.conditions})
        if status == previous:
            return False
        await self._status.write(key, msgspec.json.decode(entry.content)["status"], status.plain())
        return True

"""How it stands with each ModelConsumer, told in its status; written when it changes."""

import logging
from datetime import UTC, datetime

from pydantic import ValidationError

from governed_api.consumer import ModelConsumerStatus
from governed_operator.desired.callers import callers_place
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import CONSUMER, Object
from governed_operator.loop.callers import CallersKeeper
from governed_operator.loop.failures import Failure
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.policy.consumer import ObservedConsumer, consumer_status
from governed_operator.watch.cache import Cache, ModelEntry, ModelKey
from governed_operator.watch.consumers import Consumer, Consumers, selects
from governed_operator.watch.issuer_keys import IssuerKeys

__all__ = ["ConsumerReconciler", "wake_consumers", "wake_models"]

logger = logging.getLogger("governed_operator.loop.consumers")

SETTLE = 0.1
"""Seconds in which further changes are taken together."""
LONGEST_WAIT = 86_400.0
"""Seconds after which an expiry that is further off is thought of again."""


class ConsumerReconciler:
    """A worker over the consumers' own queue."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        consumers: Consumers,
        keeper: CallersKeeper,
        queue: WorkQueue,
        metrics: OperatorMetrics,
        *,
        keys: IssuerKeys,
    ) -> None:
        self.queue = queue
        self._cluster, self._cache, self._consumers, self._keeper = cluster, cache, consumers, keeper
        self._keys, self._metrics = keys, metrics

    async def work(self) -> None:
        """Never returns."""
        while True:
            key = await self.queue.take()
            try:
                again = await self.reconcile(key)
            except Exception as error:
                self._not_done(key, error)
            else:
                self.queue.done(key, again)

    def _not_done(self, key: ModelKey, error: Exception) -> None:
        if isinstance(error, ApiError) and (error.status == 404 or error.namespace_ends):
            self.queue.done(key)  # it is gone
            return
        failure = Failure.of(error)
        self._metrics.errors.labels(failure.reason).inc()
        delay = self.queue.failed(key)
        logger.warning(
            "ModelConsumer %s/%s: %s: %s; again in %.0f s", *key, failure.reason, failure.message, delay,
            exc_info=None if isinstance(error, ApiError) else error,
        )  # fmt: skip

    async def reconcile(self, key: ModelKey) -> float | None:
        """Seconds until it must be looked at again without a change. Raises ApiError."""
        consumer = self._consumers.get(key)
        if consumer is None or consumer.deleting:
            return None
        stored = consumer.stored
        status, again_in = consumer_status(self._observed(key, consumer, stored))
        new = status.plain()
        if new != stored:
            patch = new | {name: None for name in stored if name not in new}
            answer = await self._cluster.patch_status(CONSUMER, key[0], key[1], patch)
            self._metrics.wrote(CONSUMER.kind, "status")
            self._consumers.put(CONSUMER.kind, answer)
        return None if again_in is None else min(again_in + SETTLE, LONGEST_WAIT)

    def _observed(self, key: ModelKey, consumer: Consumer, stored: Object) -> ObservedConsumer:
        namespace = key[0]
        models = {k[1]: dict(m.labels) for k, m in self._cache.models_of(namespace).items() if not m.deleting}
        return ObservedConsumer(
            consumer=consumer,
            namespace=namespace,
            now=datetime.now(UTC),
            status=_status(stored),
            models=models,
            holders={listed: self._consumers.holder(namespace, listed) for listed in consumer.identities},
            faults={t.source.named: why for t in consumer.tokens if (why := self._keys.fault(t.source))},
            left_out_of=tuple(m for m in sorted(models) if consumer.name in self._keeper.left_out((namespace, m))),
        )


def _status(stored: Object) -> ModelConsumerStatus:
    try:
        return ModelConsumerStatus.model_validate(stored)
    except ValidationError:
        return ModelConsumerStatus()  # another version's: what is said there is found out anew


def wake_models(cache: Cache, models: WorkQueue, namespace: str, about: list[Consumer]) -> None:
    """Whose callers may be others now; whatever failed there before, a revocation doesn't wait for its turn."""
    for key, entry in cache.models_of(namespace).items():
        labels = dict(entry.labels)
        asks = entry.authenticates or callers_place(key[1]) in cache.children(key)
        if asks and any(selects(consumer, key[1], labels) for consumer in about):
            models.add(key, SETTLE)


def wake_consumers(
    consumers: Consumers, queue: WorkQueue, key: ModelKey, before: ModelEntry | None, after: ModelEntry | None
) -> None:
    """Those that a model's coming, going or new labels matter to."""
    if before is not None and after is not None and (before.labels, before.deleting) == (after.labels, after.deleting):
        return
    states = [dict(entry.labels) for entry in (before, after) if entry is not None]
    for consumer in consumers.of_namespace(key[0]):
        if any(selects(consumer, key[1], labels) for labels in states):
            queue.wake((key[0], consumer.name))

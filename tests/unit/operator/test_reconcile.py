"""The workers: what is in order costs nobody else's time."""

import asyncio
import itertools
import json
from typing import Any

import pytest

from governed_api.names import ARCHIVE, FIELD_MANAGER, LABEL_COMPONENT, REPORT_KIND
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.reconcile import Reconciler, run_workers
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.settings import OperatorSettings
from governed_operator.watch.cache import Cache, ModelKey
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.issuer_keys import IssuerKeys, published


class InOrder(Reconciler):
    """Every model is as it should be: nothing to wait for."""

    async def reconcile(self, key: ModelKey) -> None:  # noqa: ARG002  nothing of it is looked at
        return None


async def test_a_crowd_of_models_in_order_keeps_nothing_else_waiting() -> None:
    """Probes and the Lease go on while a restarted operator looks at every model."""
    workers, models, turns = 4, 400, 0
    queue, nobody = WorkQueue(), Any
    reconciler = InOrder(
        nobody, Cache(), queue, nobody, OperatorMetrics(queue), nobody,  # type: ignore[arg-type]
        consumers=Consumers(), keys=IssuerKeys(published, set, lambda _: None), wake_consumer=queue.wake,
    )  # fmt: skip
    queue.enqueue_low_priority(("n", f"m{number}") for number in range(models))
    work = asyncio.create_task(run_workers(reconciler, workers))
    while len(queue):
        await asyncio.sleep(0)
        turns += 1
    work.cancel()
    assert turns >= models / workers


class Applied:
    """Everything of the archive is as it should be."""

    async def converge(self, *_: object) -> int:
        return 0


NEWER = itertools.count(1)
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no volume"}


def seen(cache: Cache, kind: str, name: str, **content: object) -> None:
    labels = {"app.kubernetes.io/managed-by": FIELD_MANAGER, LABEL_COMPONENT: "archive"}
    metadata = {"namespace": "n", "name": name, "uid": name, "labels": labels, "resourceVersion": str(next(NEWER))}
    cache.put(kind, json.dumps({"metadata": metadata, "spec": {"containers": []}, **content}).encode())


def stateful(cache: Cache, *, available: int) -> None:
    seen(cache, "StatefulSet", ARCHIVE, status={"availableReplicas": available})


def pod(cache: Cache, *conditions: object) -> None:
    seen(cache, "Pod", f"{ARCHIVE}-0", status={"conditions": conditions})


def reported(cache: Cache, **said: object) -> None:
    seen(cache, REPORT_KIND, ARCHIVE, status={"archive": said})


class Namespace:
    """Two models, and the archive that they share; who is woken each time that the archive is looked at."""

    def __init__(self) -> None:
        self.cache, self._queue, nobody = Cache(), WorkQueue(settle=0.0), Any
        for name in ("a", "b"):
            metadata = {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1"}
            self.cache.put_model({"metadata": metadata, "spec": {}})
        self._reconciler = Reconciler(
            nobody, self.cache, self._queue, nobody, OperatorMetrics(self._queue), OperatorSettings(),  # type: ignore[arg-type]
            consumers=Consumers(), keys=IssuerKeys(published, set, lambda _: None), wake_consumer=self._queue.wake,
        )  # fmt: skip
        self._reconciler._applier = Applied()  # type: ignore[assignment]

    async def woken(self) -> set[str]:
        await self._reconciler.reconcile_archive("n")
        names = set()
        while len(self._queue):
            key = await self._queue.take()
            names.add(key[1])
            self._queue.done(key)
        return names


@pytest.fixture
async def here() -> Namespace:
    """The archive serves, and everybody knows."""
    namespace = Namespace()
    stateful(namespace.cache, available=1)
    pod(namespace.cache)
    reported(namespace.cache, size=1, verdicts=[])
    assert await namespace.woken() == {"a", "b"}
    assert await namespace.woken() == set()
    return namespace


async def test_a_pod_that_is_heard_of_after_its_statefulset_wakes_the_models_again(here: Namespace) -> None:
    """Two watches have no order between them: else the models would tell of what ended long ago, for ever."""
    stateful(here.cache, available=0)
    pod(here.cache, UNSCHEDULABLE)
    assert await here.woken() == {"a", "b"}
    stateful(here.cache, available=1)
    assert await here.woken() == {"a", "b"}
    pod(here.cache)
    assert await here.woken() == {"a", "b"}


@pytest.mark.parametrize("field", ["message", "lagging", "contradiction", "unstored", "whatANewerArchiveSays"])
async def test_what_the_archive_says_of_itself_wakes_its_models(here: Namespace, field: str) -> None:
    reported(here.cache, size=1, verdicts=[], **{field: "something"})
    assert await here.woken() == {"a", "b"}
    reported(here.cache, size=1, verdicts=[])
    assert await here.woken() == {"a", "b"}


async def test_entries_wake_nobody_and_a_verdict_its_model_alone(here: Namespace) -> None:
    reported(here.cache, size=2, checkpoint="c", rootHash="r", cosigned=2, verdictsLeftOut=1, observedAt="t")
    assert await here.woken() == set()
    reported(here.cache, size=3, verdicts=[{"model": "b", "revision": "r", "verdict": "Fail", "inForce": "Block"}])
    assert await here.woken() == {"b"}

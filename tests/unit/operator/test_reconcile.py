"""The workers: what is in order costs nobody else's time."""

import asyncio
from typing import Any

from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.reconcile import Reconciler, run_workers
from governed_operator.loop.workqueue import WorkQueue
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

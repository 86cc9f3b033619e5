"""The work queue: no key twice, none lost, back-off of one key alone."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from governed_operator.kube.cluster import Cluster
from governed_operator.loop.operator_process import OperatorProcess
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch.cache import Cache

A, B = ("n", "a"), ("n", "b")


async def soon(queue: WorkQueue) -> tuple[str, str]:
    return await asyncio.wait_for(queue.take(), 60)


async def test_many_wakes_are_one_turn() -> None:
    queue = WorkQueue(settle=0.01)
    for _ in range(5):
        queue.wake(A)
    assert await soon(queue) == A
    queue.done(A)
    assert len(queue) == 0


async def test_a_wake_while_busy_comes_after() -> None:
    queue = WorkQueue(settle=0.0)
    queue.wake(A)
    assert await soon(queue) == A
    queue.wake(A)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    queue.done(A)
    assert await soon(queue) == A


async def test_failure_delays_one_key_and_a_success_forgets_it() -> None:
    queue = WorkQueue(settle=0.0)
    queue.wake(A)
    await soon(queue)
    assert [queue.failed(A), queue._delay(A)] == [1.0, 1.0]
    queue.wake(B)
    assert await soon(queue) == B
    queue.done(B)
    assert await soon(queue) == A
    assert queue.failed(A) == 2.0
    queue.add(A, 0.0)
    assert await soon(queue) == A
    queue.done(A)
    assert queue._failures == {}


async def test_what_is_due_goes_before_what_may_wait() -> None:
    queue = WorkQueue(settle=0.0)
    crowd = [("n", str(i)) for i in range(3)]
    queue.enqueue_low_priority(crowd)
    queue.wake(A)
    queue.wake(crowd[2])
    assert len(queue) == 5
    turns = [await soon(queue) for _ in range(4)]
    assert turns == [A, crowd[2], crowd[0], crowd[1]]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)


@pytest.mark.parametrize("told", ["MODIFIED", None], ids=["by an event", "by kopf's first list"])
async def test_new_models_keep_neither_a_change_nor_what_is_in_hand_waiting(told: str | None) -> None:
    """With thousands at once, each is brought to its end before the next is begun, and their archive comes before them
    all."""
    process = OperatorProcess(cast(Cluster, SimpleNamespace()), OperatorSettings(), Capabilities())
    process._working = True
    new, changed = [("n", f"new{i}") for i in range(3)], ("n", "old")
    for key in (*new, changed):
        process.model_event("ADDED", _model(key, 1))
    first = await soon(process.queue)
    process.queue.wake(("n", ""))  # what it finds missing
    process.queue.done(first, 0.0)
    process.model_event(told, _model(changed, 2))
    await asyncio.sleep(0.15)
    turns = [await soon(process.queue) for _ in range(5)]
    assert set(turns[:3]) == {first, changed, ("n", "")}
    assert turns[3:] == new[1:]


def _model(key: tuple[str, str], version: int) -> dict[str, Any]:
    metadata = {"namespace": key[0], "name": key[1], "uid": key[1], "resourceVersion": str(version)}
    return {"metadata": {**metadata, "generation": version}, "spec": {}}


def _object(version: int, **status: object) -> bytes:
    labels = {"governedmodels.io/model": "m"}
    metadata = {"name": "o", "namespace": "n", "uid": "u", "resourceVersion": str(version), "labels": labels}
    return json.dumps({"metadata": metadata, "spec": {}, "status": status}).encode()


def test_the_cache_never_goes_back_and_wakes_only_for_news() -> None:
    cache = Cache()
    assert cache.put("Deployment", _object(5, availableReplicas=1)) == ("n", "m")
    assert cache.put("Deployment", _object(4, availableReplicas=0)) is None
    assert cache.children(("n", "m"))["Deployment", "o"].facts.available == 1
    assert cache.put("Deployment", _object(6, availableReplicas=1)) is None
    assert cache.put("Deployment", _object(7, availableReplicas=0)) == ("n", "m")
    assert cache.keep_only("Deployment", set()) == [("n", "m")]
    assert not cache.children(("n", "m"))

"""Every failure is told: a condition, an Event and a bounded label, whatever fails; and it clears itself."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from builders import IMPORTED

from governed_operator.kube.cluster import ApiError, _json, _refused
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.reconcile import Reconciler
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.watch.cache import Cache, ModelKey
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.issuer_keys import IssuerKeys, published

KEY = ("n", "m")
ARCHIVE_KEY = ("n", "")
READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": ""}
READY |= {"lastTransitionTime": "2026-11-23T12:00:00Z", "observedGeneration": 1}


class ApiServer:
    """Stores the status of one model, and Events; refuses status writes with ``denial``."""

    def __init__(self) -> None:
        self.version = 2
        self.generation = 2
        self.status: dict[str, Any] = {"observedGeneration": 1, "conditions": [READY]}
        self.events: list[dict[str, Any]] = []
        self.writes = 0
        self.denial: ApiError | None = None

    def model(self) -> dict[str, Any]:
        metadata = {"namespace": "n", "name": "m", "uid": "u", "resourceVersion": str(self.version)}
        return {"metadata": metadata | {"generation": self.generation}, "spec": IMPORTED, "status": self.status}

    async def patch_status(self, _: Any, namespace: str, name: str, status: dict[str, Any]) -> bytes:
        assert (namespace, name) == KEY
        if self.denial:
            raise self.denial
        self.writes += 1
        self.version += 1
        self.status = {k: v for k, v in {**self.status, **status}.items() if v is not None}
        return json.dumps(self.model()).encode()

    async def create(self, _: Any, manifest: dict[str, Any]) -> bytes:
        self.events.append(manifest)
        return b"{}"

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next((c for c in self.status["conditions"] if c["type"] == kind), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")


class Failing(Reconciler):
    """Fails as it is told to."""

    error: Callable[[], BaseException] | None = None

    async def reconcile(self, key: ModelKey) -> float | None:
        if self.error:
            raise self.error()
        return await super().reconcile(key)

    async def reconcile_archive(self, namespace: str) -> None:  # noqa: ARG002
        if self.error:
            raise self.error()


def bed() -> tuple[ApiServer, Failing]:
    server, cache, queue = ApiServer(), Cache(), WorkQueue()
    cache.put_model(server.model())
    nobody: Any = None
    reconciler = Failing(
        server,  # type: ignore[arg-type]
        cache,
        queue,
        nobody,
        OperatorMetrics(queue),
        nobody,
        consumers=Consumers(),
        keys=IssuerKeys(published, set, lambda _: None),
        wake_consumer=queue.wake,
    )
    return server, reconciler


async def fail(reconciler: Failing, error: Callable[[], BaseException], times: int = 3, key: ModelKey = KEY) -> str:
    reconciler.error = error
    return [await reconciler._guarded(key) for _ in range(times)][-1]


def refusal(status: int, reason: Any = "", message: Any = "no") -> Callable[[], ApiError]:
    """As an API server's answer is read."""
    body = json.dumps({"kind": "Status", "reason": reason, "message": message, "code": status}).encode()
    return lambda: _refused(status, _json(body))


def label_values(reconciler: Reconciler) -> set[str]:
    samples = next(iter(reconciler._metrics.errors.collect())).samples
    return {s.labels["reason"] for s in samples}


WEBHOOK = 'admission webhook "deny.example.com" denied the request: no'
FAILURES: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    # name: (what is raised, reason, part of the message)
    "a webhook denies": (refusal(400, "", WEBHOOK), "BadRequest", WEBHOOK),
    "a webhook denies with a reason of its own": (refusal(400, "Not by Friday!", WEBHOOK), "BadRequest", WEBHOOK),
    "a webhook denies without a word": (refusal(400, None, None), "BadRequest", "400"),
    "a webhook's reason is no text": (refusal(403, {"why": 1}, ["x"]), "Forbidden", "403"),
    "a webhook is down": (refusal(500, "InternalError", "failed calling webhook"), "InternalError", "failed calling"),
    "RBAC": (refusal(403, "Forbidden", "cannot patch"), "Forbidden", "cannot patch"),
    "an invalid object": (refusal(422, "Invalid", "spec.x"), "Invalid", "spec.x"),
    "an object that is too large": (refusal(413, "RequestEntityTooLarge"), "RequestEntityTooLarge", "413"),
    "a kind that is gone": (refusal(404, "NotFound", "the server could not find"), "NotFound", "could not find"),
    "a token that ran out": (refusal(401, "Unauthorized"), "Unauthorized", "401"),
    "a proxy's page": (lambda: _refused(502, _json(b"<html>bad gateway")), "ServiceUnavailable", "<html>bad gateway"),
    "an answer that is JSON and no Status": (lambda: _refused(503, _json(b'["x"]')), "ServiceUnavailable", '["x"]'),
    "a status that nobody knows": (refusal(418, "Teapot"), "Other", "418"),
    "no answer in time": (lambda: ApiError(0, "Timeout", "no answer within 30 s"), "Timeout", "no answer within 30 s"),
    "a fault of ours": (lambda: TypeError("'NoneType' object"), "UnexpectedError", "TypeError: 'NoneType' object"),
    "a fault without words": (lambda: AssertionError(), "UnexpectedError", "AssertionError"),
    "a fault of the machine": (lambda: OSError(24, "Too many open files"), "UnexpectedError", "Too many open files"),
    "a timeout of ours": (lambda: TimeoutError(), "UnexpectedError", "TimeoutError"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_whatever_fails_three_times_running_is_a_condition_an_event_and_a_label(name: str) -> None:
    error, reason, part = FAILURES[name]
    server, reconciler = bed()
    assert await fail(reconciler, error) == "failed"
    for kind, status in (("Ready", "False"), ("Degraded", "True")):
        found = server.condition(kind)
        assert found[:2] == (status, reason)
        assert part in found[2]
        assert "; to do: " in found[2], "what to do next"
    assert server.status["observedGeneration"] == 2, "whoever waits for this generation hears of it"
    assert [(e["reason"], e["type"]) for e in server.events] == [("ReconcileFailed", "Warning")]
    assert part in server.events[0]["note"]
    assert label_values(reconciler) == {reason}
    assert await fail(reconciler, error) == "failed"
    assert (server.writes, len(server.events)) == (1, 1), "told once"


async def test_what_passes_within_three_tries_is_not_told() -> None:
    server, reconciler = bed()
    error = refusal(500, "InternalError")
    await fail(reconciler, error, times=2)
    reconciler._failures.passed(KEY)
    await fail(reconciler, error, times=2)
    assert (server.writes, server.events) == (0, [])


@pytest.mark.parametrize(("status", "reason"), [(409, "Conflict"), (429, "TooManyRequests"), (0, "Unreachable")])
async def test_what_passes_by_itself_is_told_only_when_it_does_not(status: int, reason: str) -> None:
    server, reconciler = bed()
    await fail(reconciler, refusal(status, reason), times=5)
    assert (server.writes, server.events) == (0, [])
    await fail(reconciler, refusal(status, reason), times=3)
    assert server.condition("Degraded")[:2] == ("True", reason)
    assert len(server.events) == 1


async def test_the_end_of_a_namespace_or_of_the_model_itself_is_no_failure() -> None:
    server, reconciler = bed()
    ends = refusal(403, "Forbidden", "namespaces n: because it is being terminated")
    assert await fail(reconciler, ends, times=9) == "namespace ends"
    server.denial = ApiError(404, "NotFound", "")
    await fail(reconciler, refusal(404, "NotFound"), times=9)
    assert (server.writes, server.events) == (0, [])


async def test_a_status_that_can_not_be_written_leaves_an_event() -> None:
    server, reconciler = bed()
    server.denial = ApiError(400, "", WEBHOOK)
    await fail(reconciler, lambda: ApiError(400, "", WEBHOOK), times=9)
    assert [e["reason"] for e in server.events] == ["ReconcileFailed"]


async def test_a_message_that_differs_each_time_is_no_stream_of_events() -> None:
    server, reconciler = bed()
    numbers = iter(range(100))
    await fail(reconciler, lambda: ApiError(500, "InternalError", f"trace {next(numbers)}"), times=9)
    assert len(server.events) == 1


async def test_another_object_s_refusal_is_another_event() -> None:
    server, reconciler = bed()
    for subject in ("Deployment m-predictor", "Service m"):
        await fail(reconciler, lambda subject=subject: ApiError(400, "", "no", subject))  # type: ignore[misc]
    assert [e["note"].split(":")[0] for e in server.events] == ["Deployment m-predictor", "Service m"]


async def test_words_of_any_length_leave_room_for_what_to_do() -> None:
    server, reconciler = bed()
    await fail(reconciler, refusal(400, "BadRequest", "x" * 50_000))
    assert "to do: " in server.condition("Degraded")[2]
    assert len(server.condition("Degraded")[2]) <= 1000


async def test_what_the_archive_meets_is_told_by_each_of_its_models() -> None:
    server, reconciler = bed()
    await fail(reconciler, refusal(400, "", WEBHOOK), key=ARCHIVE_KEY)
    found = reconciler._failures.archive_failure("n")
    assert found is not None
    assert (found.reason, found.stalled) == ("BadRequest", True)
    assert WEBHOOK in found.message
    assert await asyncio.wait_for(reconciler._queue.take(), 60) == KEY, "its models are woken"
    reconciler.error = None
    await reconciler._guarded(ARCHIVE_KEY)
    assert reconciler._failures.archive_failure("n") is None
    assert server.events == []


async def test_a_model_that_waits_for_an_archive_that_is_refused_says_so() -> None:
    from governed_api.reasons import Reason
    from governed_operator.loop.failures import Wait

    server, reconciler = bed()
    await fail(reconciler, refusal(400, "", WEBHOOK), key=ARCHIVE_KEY)
    assert await fail(reconciler, lambda: Wait(1.0, Reason.ARCHIVE_KEYS_PENDING, "not yet"), times=1) == "waits"
    assert server.condition("Ready")[:2] == ("False", "BadRequest")
    assert WEBHOOK in server.condition("Ready")[2]


async def test_a_wait_is_told_when_it_lasts() -> None:
    from governed_api.reasons import Reason
    from governed_operator.loop.failures import Failure, FailureLog, Wait

    now = 0.0
    log = FailureLog(lambda: now)
    failure = Failure.of(Wait(2.0, Reason.PREVIOUS_MODEL_REMAINS, "Deployment m-predictor of an earlier model"))
    assert [log.failed(KEY, failure) for _ in range(50)] == [False] * 50, "events wake it as often as they like"
    now = 31.0
    assert log.failed(KEY, failure)
    log.passed(KEY)
    assert not log.failed(KEY, failure)


async def test_no_word_of_others_becomes_a_label() -> None:
    from governed_operator.loop.failures import TREATMENTS

    _, reconciler = bed()
    for number in range(50):
        await fail(reconciler, refusal(400 + number, f"Reason{number}"), times=1)
        await fail(reconciler, lambda number=number: type(f"Fault{number}", (Exception,), {})(), times=1)  # type: ignore[misc]
    assert label_values(reconciler) <= set(TREATMENTS)

"""Who gets in: every refusal with its words, what is counted, and windows and quotas to the exact request."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from limits.aio.storage import MemoryStorage
from limits.errors import ConfigurationError

from governed_api.governance import Quota
from governed_serving.server import quota as quota_module
from governed_serving.server.admission import MAX_OPEN, Admission
from governed_serving.server.errors import QuotaExceeded, TooManyTokens, Unavailable
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.quota import LocalQuota, SharedQuota, quota_gate
from governed_serving.server.window_storage import WindowStorage

NOW = 1_000_040.0
"""A third of a minute into its window."""


class Clock:
    """Both clocks of the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.monotonic = NOW, 500.0
        monkeypatch.setattr(time, "time", lambda: self.now)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def quota(**limits: Any) -> Quota:
    return Quota.model_validate(limits)


def admission(why: Callable[[], str] = lambda: "", limits: Quota | None = None, **more: Any) -> Admission:
    gate = LocalQuota(limits, "ns/m") if limits else None
    return Admission(why, ServerMetrics("ns", "m"), quota=more.pop("quota", gate), **more)


# Admission


def test_a_model_that_is_not_ready_admits_nobody() -> None:
    why = ["it is loading"]
    gate = admission(lambda: why[0])
    words = r"^the model is not ready: it is loading; retry in a moment$"
    with pytest.raises(Unavailable, match=words):
        gate.enter(3)
    with pytest.raises(Unavailable, match=words):
        asyncio.run(gate.enter_shared(3))
    assert (gate.open, gate.metrics.count["tokens"], dict(gate.metrics.refusals)) == (0, 0, {})
    why[0] = ""
    gate.enter(3)
    asyncio.run(gate.enter_shared(4))
    assert (gate.open, gate.metrics.count["tokens"]) == (2, 7)
    assert gate.metrics.gauges["requests_in_flight"][1]() == 2.0
    gate.leave()
    assert gate.metrics.gauges["requests_in_flight"] == (
        "Admitted and not answered.",
        gate.metrics.gauges["requests_in_flight"][1],
    )
    assert gate.metrics.gauges["requests_in_flight"][1]() == 1.0


@pytest.mark.parametrize("shared", [False, True])
def test_so_many_requests_are_in_flight_and_no_more(shared: bool) -> None:
    gate = admission(max_concurrent=2)

    def enter() -> None:
        asyncio.run(gate.enter_shared(1)) if shared else gate.enter(1)

    enter()
    enter()
    words = r"^quota.maxConcurrent: expected at most 2 requests in flight, found one more; retry in 1 s$"
    with pytest.raises(QuotaExceeded, match=words) as caught:
        enter()
    assert (caught.value.quota, caught.value.retry_after, caught.value.headers) == ("concurrency", 1, ())
    assert dict(gate.metrics.refusals) == {"concurrency": 1}
    gate.leave()
    enter()
    assert (gate.open, gate.metrics.count["tokens"]) == (2, 3)


def test_without_a_bound_in_the_spec_there_is_one_all_the_same() -> None:
    gate = admission()
    gate.open = 8191
    gate.enter(0)
    assert gate.open == MAX_OPEN == 8192
    with pytest.raises(
        Unavailable, match=r"^server: expected fewer than 8192 requests in flight, found as many; it is"
    ):
        gate.enter(0)
    assert dict(gate.metrics.refusals) == {}


def test_what_a_quota_refuses_is_counted_by_its_name() -> None:
    gate = admission(limits=quota(requests=[{"limit": 2, "window": "1h"}], tokens=[{"limit": 9, "window": "1h"}]))
    assert (gate.immediate, gate.counts_tokens) == (True, True)
    gate.enter(9)
    for kind, tokens in (("tokens", 1), ("requests", 0)):
        if kind == "requests":
            gate.enter(0)
        for _ in range(2):
            with pytest.raises(QuotaExceeded):
                gate.enter(tokens)
        assert gate.metrics.refusals[kind] == 2
    assert (gate.open, gate.metrics.count["tokens"]) == (2, 9)
    with pytest.raises(TooManyTokens):
        gate.enter(10)
    assert dict(gate.metrics.refusals) == {"tokens": 2, "requests": 2}


async def test_a_shared_quota_is_asked_while_the_bound_holds() -> None:
    """What waits for the store is in flight already."""
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStorage):
        async def acquire_sliding_window_entry(self, *given: Any, **named: Any) -> bool:
            asked.set()
            await answer.wait()
            return await super().acquire_sliding_window_entry(*given, **named)

    store = SharedQuota(quota(requests=[{"limit": 1, "window": "1h"}]), "ns/m", Slow())
    gate = admission(quota=store, max_concurrent=1)
    assert (gate.immediate, gate.counts_tokens) == (False, False)
    first = asyncio.create_task(gate.enter_shared(5))
    await asyncio.wait_for(asked.wait(), 60)
    assert (gate.open, gate.metrics.count["tokens"]) == (1, 0)
    with pytest.raises(QuotaExceeded, match="maxConcurrent"):
        await gate.enter_shared(1)
    answer.set()
    await asyncio.wait_for(first, 60)
    assert (gate.open, gate.metrics.count["tokens"]) == (1, 5)
    gate.leave()
    with pytest.raises(QuotaExceeded, match=r"quota\.requests"):
        await gate.enter_shared(5)
    assert (gate.open, gate.metrics.count["tokens"]) == (0, 5)
    assert dict(gate.metrics.refusals) == {"concurrency": 1, "requests": 1}


async def test_a_caller_that_goes_while_the_store_is_asked_leaves_its_place() -> None:
    class Never(MemoryStorage):
        async def acquire_sliding_window_entry(self, *_: Any, **__: Any) -> bool:
            await asyncio.Event().wait()
            return True

    gate = admission(quota=SharedQuota(quota(requests=[{"limit": 1, "window": "1h"}]), "ns/m", Never()))
    task = asyncio.create_task(gate.enter_shared(1))
    await asyncio.sleep(0)
    assert gate.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (gate.open, dict(gate.metrics.refusals)) == (0, {})


async def test_settling_counts_what_was_used_and_what_ran_over() -> None:
    gate = admission(limits=quota(tokens=[{"limit": 10, "window": "1h"}]))
    gate.enter(8)
    await gate.settle(8, 5)
    assert (gate.metrics.count["tokens"], gate.metrics.count["tokens_overrun"]) == (5, 0)
    gate.enter(5)
    await gate.settle(5, 9)
    assert (gate.metrics.count["tokens"], gate.metrics.count["tokens_overrun"]) == (14, 4)
    for free in (admission(), admission(limits=quota(requests=[{"limit": 1, "window": "1h"}]))):
        free.enter(3)
        await free.settle(3, 7)
        assert (free.metrics.count["tokens"], free.metrics.count["tokens_overrun"]) == (7, 0)
        assert free.immediate
        assert not free.counts_tokens


def test_without_a_quota_answers_tell_of_none() -> None:
    assert admission().limits() == ()
    told = admission(limits=quota(requests=[{"limit": 4, "window": "1m"}])).limits()
    assert told[0] == (b"ratelimit-policy", b'"requests-1m";q=4;w=60')


# Windows


def test_a_refusal_says_when_to_come_again(clock: Clock) -> None:
    storage = WindowStorage(clock)
    gate = LocalQuota(quota(requests=[{"limit": 2, "window": "1m"}]), "ns/m", storage)
    gate.try_take(0)
    gate.try_take(0)
    with pytest.raises(QuotaExceeded) as caught:
        gate.try_take(0)
    wait = caught.value.retry_after
    assert str(caught.value) == f"quota.requests: expected at most 2 requests in 1m, found one more; retry in {wait} s"
    assert caught.value.headers == (
        (b"ratelimit-policy", b'"requests-1m";q=2;w=60'),
        (b"ratelimit", b'"requests-1m";r=0;t=%d' % (wait or 0)),
    )
    assert wait is not None
    clock.now += wait + 0.001  # at the very moment all of the last window still counts
    gate.try_take(0)


def test_a_refusal_of_tokens_names_how_many(clock: Clock) -> None:
    gate = LocalQuota(quota(tokens=[{"limit": 10, "window": "1h"}]), "ns/m", WindowStorage(clock))
    gate.try_take(7)
    with pytest.raises(
        QuotaExceeded, match=r"^quota.tokens: expected at most 10 tokens in 1h, found 4 more; retry in "
    ) as caught:
        gate.try_take(4)
    assert caught.value.headers[0] == (b"ratelimit-policy", b'"tokens-1h";q=10;w=3600;qu="tokens"')
    gate.try_take(3)
    words = (
        "^quota.tokens: expected at most 10 tokens in 1h, found 11 in one request; the request alone is larger than the"
    )
    with pytest.raises(TooManyTokens, match=words):
        gate.try_take(11)


def test_every_window_that_was_asked_before_the_one_that_refuses_gets_its_part_back(clock: Clock) -> None:
    storage = WindowStorage(clock)
    limits = quota(
        requests=[{"limit": 9, "window": "1m"}, {"limit": 8, "window": "1h"}],
        tokens=[{"limit": 90, "window": "1m"}, {"limit": 80, "window": "1h"}, {"limit": 5, "window": "1d"}],
    )
    gate = LocalQuota(limits, "ns/m", storage)

    def left() -> list[str]:
        clock.monotonic += 1
        gate._told_until = 0.0
        return [part.split(b";")[1].decode() for part in gate.headers()[1][1].split(b", ")]

    gate.try_take(5)
    assert left() == ["r=8", "r=7", "r=85", "r=75", "r=0"]
    with pytest.raises(QuotaExceeded, match="at most 5 tokens in 1d, found 1 more"):
        gate.try_take(1)
    assert left() == ["r=8", "r=7", "r=85", "r=75", "r=0"]


async def test_what_ran_over_is_what_the_fullest_window_did_not_hold(clock: Clock) -> None:
    limits = quota(tokens=[{"limit": 10, "window": "1m"}, {"limit": 7, "window": "1h"}, {"limit": 9, "window": "1d"}])
    gate = LocalQuota(limits, "ns/m", WindowStorage(clock))
    gate.try_take(5)
    assert await gate.settle(5, 5) == 0
    assert await gate.settle(5, 11) == 4
    assert [part.split(b";")[1] for part in gate.headers()[1][1].split(b", ")] == [b"r=0", b"r=0", b"r=0"]
    assert await gate.settle(11, 12) == 1


def test_what_is_told_of_the_windows_may_be_ten_milliseconds_old(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = LocalQuota(quota(requests=[{"limit": 9, "window": "1m"}]), "ns/m", WindowStorage(clock))
    monkeypatch.setattr(quota_module.time, "monotonic", lambda: clock.monotonic)

    def told() -> bytes:
        gate.try_take(0)
        return gate.headers()[1][1].split(b";")[1]

    clock.monotonic = 0.0
    assert (told(), told()) == (b"r=8", b"r=8")
    clock.monotonic = 0.0099
    assert told() == b"r=8"
    clock.monotonic = 0.01
    assert told() == b"r=5"


def test_a_shared_quota_tells_its_rules_and_can_not_be_taken_without_waiting() -> None:
    gate = SharedQuota(quota(requests=[{"limit": 9, "window": "1m"}]), "ns/m", MemoryStorage())
    assert gate.headers() == ((b"ratelimit-policy", b'"requests-1m";q=9;w=60'),)
    with pytest.raises(RuntimeError, match=r"await take\(3\)"):
        gate.try_take(3)


async def test_a_store_that_does_not_answer_in_time_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    real = asyncio.timeout

    def at_once(seconds: float) -> asyncio.Timeout:
        given.append(seconds)
        return real(0)

    class Silent(MemoryStorage):
        async def acquire_sliding_window_entry(self, *_: Any, **__: Any) -> bool:
            await asyncio.Event().wait()
            return True

    monkeypatch.setattr(quota_module.asyncio, "timeout", at_once)
    gate = SharedQuota(quota(requests=[{"limit": 9, "window": "1m"}]), "ns/m", Silent())
    words = r"^quota\.store: expected an answer from the shared quota store, found TimeoutError; retry later$"
    with pytest.raises(Unavailable, match=words):
        await gate.take(0)
    assert given == [2.0]


async def test_an_error_of_our_own_passes_the_store_as_it_is() -> None:
    class Closing(MemoryStorage):
        async def acquire_sliding_window_entry(self, *_: Any, **__: Any) -> bool:
            raise Unavailable("draining")

    gate = SharedQuota(quota(requests=[{"limit": 9, "window": "1m"}]), "ns/m", Closing())
    with pytest.raises(Unavailable, match=r"^draining$"):
        await gate.take(0)


class Store(MemoryStorage):
    """Notes what it was made with."""

    made: tuple[str, dict[str, Any]] = ("", {})

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__()
        type(self).made = (uri, options)


class Sentinel(Store):
    pass


@pytest.mark.parametrize(
    ("store", "kind", "uri"),
    [
        ("redis://cache:6379", Store, "async+redis://cache:6379"),
        ("async+redis://cache:6379", Store, "async+redis://cache:6379"),
        ("rediss://cache:6379", Store, "async+rediss://cache:6379"),
        ("redis+sentinel://a:1,b:2/main", Sentinel, "async+redis+sentinel://a:1,b:2/main"),
    ],
)
def test_a_store_is_opened_by_its_address(
    monkeypatch: pytest.MonkeyPatch, store: str, kind: type[Store], uri: str
) -> None:
    monkeypatch.setattr("limits.aio.storage.RedisStorage", Store)
    monkeypatch.setattr("limits.aio.storage.RedisSentinelStorage", Sentinel)
    limits = Quota.model_construct(requests=quota(requests=[{"limit": 9}]).requests, tokens=[], store=store)
    kind.made = ("", {})
    assert isinstance(quota_gate(limits, "ns/m"), SharedQuota)
    assert kind.made == (uri, {"implementation": "redispy", "wrap_exceptions": True})


def test_a_store_without_its_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise ConfigurationError("no module redis")

    monkeypatch.setattr("limits.aio.storage.RedisStorage", missing)
    limits = Quota.model_construct(requests=quota(requests=[{"limit": 9}]).requests, tokens=[], store="redis://cache")
    words = r"^quota\.store: expected the redis driver, found none \(no module redis\); install redis or leave"
    with pytest.raises(ValueError, match=words):
        quota_gate(limits, "ns/m")


def test_tokens_alone_make_a_gate() -> None:
    gate = quota_gate(quota(tokens=[{"limit": 9}]), "ns/m")
    assert isinstance(gate, LocalQuota)
    assert gate.limits_tokens


# The storage


def test_the_last_window_counts_by_the_share_of_it_that_is_not_over(clock: Clock) -> None:
    storage = WindowStorage(clock)
    clock.now = 1_000.0
    assert storage.acquire_sliding_window_entry("k", 10, 10, 8)
    assert storage.get_sliding_window("k", 10) == (0, 0.0, 8, 20.0)
    clock.now = 1_012.5
    assert storage.get_sliding_window("k", 10) == (8, 7.5, 0, 17.5)
    assert storage.acquire_sliding_window_entry("k", 10, 10, 4)  # three quarters of 8 are 6
    assert not storage.acquire_sliding_window_entry("k", 10, 10)
    assert storage.get_sliding_window("k", 10) == (8, 7.5, 4, 17.5)
    assert storage.acquire_sliding_window_entry("k", 10, 10, -4)
    assert storage.acquire_sliding_window_entry("k", 10, 10, 4)
    clock.now = 1_030.0
    assert storage.get_sliding_window("k", 10) == (0, 0.0, 0, 20.0), "two windows ago"
    assert storage.acquire_sliding_window_entry("k", 1, 10)
    assert not storage.acquire_sliding_window_entry("k", 1, 10)


def test_what_was_given_back_in_a_later_window_takes_nothing_from_it(clock: Clock) -> None:
    storage = WindowStorage(clock)
    clock.now = 1_000.0
    assert storage.acquire_sliding_window_entry("k", 10, 10, -6)
    assert storage.get_sliding_window("k", 10) == (0, 0.0, 0, 20.0)
    clock.now = 1_010.0
    assert storage.get_sliding_window("k", 10) == (0, 0.0, 0, 20.0)
    assert not storage.acquire_sliding_window_entry("k", 10, 10, 11)


def test_windows_are_counted_by_key_and_forgotten_when_asked(clock: Clock) -> None:
    storage = WindowStorage(clock)
    assert (storage.incr("a", 60), storage.incr("a", 60), storage.incr("b", 60, 5)) == (1, 2, 5)
    assert (storage.get("a"), storage.get("b"), storage.get("c")) == (2, 5, 0)
    assert storage.get_expiry("a") == NOW
    assert storage.check() is True
    assert storage.base_exceptions is ValueError
    storage.clear("a")
    storage.clear_sliding_window("b", 60)
    storage.clear("a")
    storage.clear_sliding_window("b", 60)
    assert (storage.get("a"), storage.get("b")) == (0, 0)
    storage.incr("a", 60)
    storage.incr("b", 60)
    assert storage.reset() == 2
    assert (storage.get("a"), storage.reset()) == (0, 0)
    assert WindowStorage.STORAGE_SCHEME == ["governed-window"]

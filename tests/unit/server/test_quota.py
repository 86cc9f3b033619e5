"""Quotas by the limits library: never more than the limit, reservations given back, a store that is away refuses."""

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage

from governed_api.governance import Limit, Quota
from governed_serving.server.errors import QuotaExceeded, TooManyTokens, Unavailable
from governed_serving.server.quota import LocalQuota, SharedQuota, quota_gate
from governed_serving.server.window_storage import WindowStorage


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4)), max_size=120))
@settings(max_examples=80, deadline=None)
def test_never_more_than_the_limit_in_a_window(limit: int, steps: list[tuple[float, int]]) -> None:
    """The library's approximation weighs the previous window; within one aligned window it is exact."""
    clock = Clock()
    storage = WindowStorage(clock)
    taken: dict[int, int] = {}
    for wait, amount in steps:
        clock.now += wait
        if storage.acquire_sliding_window_entry("k", limit, 10, amount):
            taken[int(clock.now // 10)] = taken.get(int(clock.now // 10), 0) + amount
    assert all(count <= limit for count in taken.values())


def test_a_window_slides() -> None:
    clock = Clock()
    storage = WindowStorage(clock)
    assert storage.acquire_sliding_window_entry("k", 10, 10, 10)
    clock.now += 10
    assert not storage.acquire_sliding_window_entry("k", 10, 10, 1)  # all of the last window still counts
    clock.now += 5
    assert storage.acquire_sliding_window_entry("k", 10, 10, 5)  # half of it
    assert not storage.acquire_sliding_window_entry("k", 10, 10, 1)
    clock.now += 25
    assert storage.acquire_sliding_window_entry("k", 10, 10, 10)


@pytest.mark.parametrize("back", [0.5, 3.0, 10.0, 25.0, 1e6])
def test_a_clock_that_is_set_back_gives_nothing_back_and_locks_nobody_out(back: float) -> None:
    clock = Clock()
    storage = WindowStorage(clock)
    assert storage.acquire_sliding_window_entry("k", 10, 10, 10)
    clock.now -= back
    assert not storage.acquire_sliding_window_entry("k", 10, 10, 1)
    clock.now += 20
    assert storage.acquire_sliding_window_entry("k", 10, 10, 10)


WINDOWS: dict[str, tuple[list[tuple[float, int]], float, tuple[int, float, int, float]]] = {
    # name: (seconds that pass and what is then taken, seconds until it is asked, what is told)
    "nothing was taken": ([], 0.0, (0, 0.0, 0, 20.0)),
    "in this window": ([(0.0, 3)], 4.0, (0, 0.0, 3, 16.0)),
    "in the window before": ([(0.0, 3)], 12.0, (3, 8.0, 0, 18.0)),
    "in both": ([(0.0, 3), (10.0, 2)], 2.5, (3, 7.5, 2, 17.5)),
    "two windows ago": ([(0.0, 3)], 20.0, (0, 0.0, 0, 20.0)),
    "more was given back than taken": ([(0.0, 3), (0.0, -5)], 1.0, (0, 0.0, 0, 19.0)),
    "more was given back in the window before": ([(0.0, 3), (0.0, -5)], 10.0, (0, 0.0, 0, 20.0)),
    "all was given back in the window before": ([(0.0, 3), (0.0, -3)], 10.0, (0, 0.0, 0, 20.0)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_what_a_window_has_and_when_it_counts_nothing(name: str) -> None:
    steps, wait, told = WINDOWS[name]
    clock = Clock()
    storage = WindowStorage(clock)
    for passed, amount in steps:
        clock.now += passed
        assert storage.acquire_sliding_window_entry("k", 10, 10, amount)
    clock.now += wait
    assert storage.get_sliding_window("k", 10) == pytest.approx(told)
    assert storage.acquire_sliding_window_entry("k", 10 + told[0], 10, 10 - told[2]), "there is that much room"
    storage.clear_sliding_window("k", 10)
    storage.clear_sliding_window("k", 10)
    assert storage.get_sliding_window("k", 10)[:3] == (0, 0.0, 0)


def spec(**more: Any) -> Quota:
    return Quota.model_validate(more)


def gates(quota: Quota) -> list[Any]:
    return [LocalQuota(quota, "k"), SharedQuota(quota, "k", MemoryStorage())]


@pytest.mark.parametrize("which", [0, 1])
async def test_requests_and_tokens_are_taken_together_or_not_at_all(which: int) -> None:
    gate = gates(spec(requests=[{"limit": 3, "window": "1h"}], tokens=[{"limit": 10, "window": "1h"}]))[which]
    await gate.take(8)
    with pytest.raises(QuotaExceeded, match=r"quota\.tokens: expected at most 10 tokens in 1h") as caught:
        await gate.take(5)
    assert caught.value.quota == "tokens"
    await gate.take(1)
    await gate.take(1)  # the refused one took no request
    with pytest.raises(QuotaExceeded, match=r"quota\.requests: expected at most 3 requests in 1h"):
        await gate.take(0)


@pytest.mark.parametrize("which", [0, 1])
async def test_several_windows_hold_at_once(which: int) -> None:
    gate = gates(spec(requests=[{"limit": 5, "window": "1h"}, {"limit": 2, "window": "1d"}]))[which]
    await gate.take(0)
    await gate.take(0)
    for _ in range(5):  # what the second window refuses doesn't use up the first
        with pytest.raises(QuotaExceeded, match="at most 2 requests in 1d"):
            await gate.take(0)


@pytest.mark.parametrize("which", [0, 1])
async def test_settling_gives_back_and_adds(which: int) -> None:
    gate = gates(spec(tokens=[{"limit": 100, "window": "1h"}]))[which]
    await gate.take(90)
    assert await gate.settle(90, 30) == 0
    await gate.take(60)
    assert await gate.settle(60, 75) == 5  # 30 + 75 = 105: five more than there were
    with pytest.raises(QuotaExceeded):
        await gate.take(1)


async def test_a_request_larger_than_the_window_is_told_so() -> None:
    gate = LocalQuota(spec(tokens=[{"limit": 10, "window": "1m"}]), "k")
    with pytest.raises(TooManyTokens, match="the request alone is larger") as caught:
        await gate.take(11)
    assert (caught.value.status, caught.value.retry_after) == (413, None), "no wait helps"
    await gate.take(10)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_request_that_no_window_holds_takes_nothing_of_any(shared: bool) -> None:
    rules = spec(requests=[{"limit": 1, "window": "1h"}], tokens=[{"limit": 50}, {"limit": 10, "window": "1h"}])
    gate: Any = SharedQuota(rules, "k", MemoryStorage()) if shared else LocalQuota(rules, "k")
    with pytest.raises(TooManyTokens, match="at most 10 tokens in 1h, found 11"):
        await gate.take(11)
    await gate.take(10)


async def test_answers_tell_what_the_windows_still_hold() -> None:
    gate = LocalQuota(spec(requests=[{"limit": 3, "window": "1m"}], tokens=[{"limit": 100, "window": "1h"}]), "k")
    await gate.take(30)
    told = {name.decode(): value.decode() for name, value in gate.headers()}
    assert told["ratelimit-policy"] == '"requests-1m";q=3;w=60, "tokens-1h";q=100;w=3600;qu="tokens"'
    found = re.fullmatch(r'"requests-1m";r=2;t=(\d+), "tokens-1h";r=70;t=(\d+)', told["ratelimit"])
    assert found is not None, told
    assert int(found[1]) <= 120
    await gate.take(30)
    await gate.take(30)
    with pytest.raises(QuotaExceeded) as caught:
        await gate.take(1)
    refused = {name.decode(): value.decode() for name, value in caught.value.headers}
    assert refused["ratelimit-policy"] == told["ratelimit-policy"]
    assert refused["ratelimit"] == f'"requests-1m";r=0;t={caught.value.retry_after}'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of quota, library and storage."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


def the_reset(gate: LocalQuota) -> int:
    """``t`` of the RateLimit header: seconds until the window has let go of all that it holds."""
    told = dict(gate.headers())[b"ratelimit"].decode()
    found = re.fullmatch(r'"requests-10s";r=\d+;t=(\d+)', told)
    assert found is not None, told
    return int(found[1])


def test_a_refusal_says_to_the_second_when_the_window_has_let_go(clock: Clock) -> None:
    """The clock stands at the start of a window of 10 s."""
    gate = LocalQuota(spec(requests=[{"limit": 2, "window": "10s"}]), "k", WindowStorage(clock))
    clock.now += 3.25
    gate.try_take(0)
    gate.try_take(0)
    with pytest.raises(QuotaExceeded, match=r"retry in 7 s") as caught:
        gate.try_take(0)
    assert caught.value.retry_after == 7  # the window ends after 6.75 s, and then the first of the two fades
    clock.now += 6.75
    with pytest.raises(QuotaExceeded) as caught:  # on the very edge
        gate.try_take(0)
    assert caught.value.retry_after == 1, "a client that waits 0 s asks again at once"
    clock.now += 0.25
    gate.try_take(0)


def test_the_reset_that_is_told_is_never_in_the_past(clock: Clock) -> None:
    gate = LocalQuota(spec(requests=[{"limit": 2, "window": "10s"}]), "k", WindowStorage(clock))
    assert the_reset(gate) == 0
    gate = LocalQuota(spec(requests=[{"limit": 2, "window": "10s"}]), "k", WindowStorage(clock))
    clock.now += 4
    gate.try_take(0)
    assert the_reset(gate) == 6


def test_a_store_that_stalls_tells_no_reset_before_now(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = LocalQuota(spec(requests=[{"limit": 2, "window": "10s"}]), "k", WindowStorage(clock))
    gate.try_take(0)
    look = gate._limiter.get_window_stats

    def stalled(*given: Any) -> Any:
        stats = look(*given)
        clock.now += 60
        return stats

    monkeypatch.setattr(gate._limiter, "get_window_stats", stalled)
    assert the_reset(gate) == 0


def test_what_counts_is_filed_under_our_name_and_the_model(clock: Clock) -> None:
    """Replicas of another version, and others who use the same store, depend on it."""
    storage = WindowStorage(clock)
    LocalQuota(spec(requests=[{"limit": 2, "window": "10s"}]), "team/loans", storage).try_take(0)
    (key,) = storage._windows
    assert key == "governed/team/loans/requests/2/10/second"


async def test_a_store_that_is_away_refuses() -> None:
    class Away(MemoryStorage):
        async def acquire_sliding_window_entry(self, *_: Any, **__: Any) -> bool:
            raise ConnectionError("refused")

    gate = SharedQuota(spec(requests=[{"limit": 3, "window": "1h"}]), "k", Away())
    with pytest.raises(Unavailable, match=r"quota\.store: .* found ConnectionError"):
        await gate.take(0)


def test_no_limits_no_gate() -> None:
    assert quota_gate(Quota(), "k") is None
    gate = quota_gate(Quota(requests=[Limit(limit=1)]), "k")
    assert gate is not None
    assert gate.immediate

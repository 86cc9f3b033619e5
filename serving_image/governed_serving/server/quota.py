"""spec.quota by the `limits` library: sliding windows, in this process or shared through a Redis-protocol server.

Tokens are reserved before the work and settled after it, so that concurrent requests can't overrun a limit together.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from limits import RateLimitItem, RateLimitItemPerSecond

from governed_api.governance import Limit, Quota
from governed_api.quantities import seconds
from governed_serving.server.errors import QuotaExceeded, ServerError, Unavailable
from governed_serving.server.window_storage import WindowStorage

__all__ = ["LocalQuota", "QuotaGate", "SharedQuota", "quota_gate"]


STORE_SECONDS = 2.0
"""A shared store that takes longer is away."""


class QuotaGate(Protocol):
    """Admission by quota. ``immediate`` says that :meth:`try_take` works without waiting."""

    immediate: bool
    limits_tokens: bool

    def try_take(self, tokens: int) -> None:
        """Take one request and ``tokens``. Raises QuotaExceeded, and then nothing is taken."""

    async def take(self, tokens: int) -> None:
        """As :meth:`try_take`, over the network where needed. Raises Unavailable too."""

    async def settle(self, reserved: int, used: int) -> int:
        """Give back or add the difference; returns tokens used beyond what the windows still held."""


class _Rules:
    """The limits of one kind, as items of the library."""

    def __init__(self, kind: str, limits: Sequence[Limit], key: str) -> None:
        self.kind = kind
        self.items: list[tuple[RateLimitItem, str]] = [
            (RateLimitItemPerSecond(limit.limit, seconds(limit.window), "governed"), f"{key}/{kind}")
            for limit in limits
        ]
        self.texts = [f"{limit.limit} {kind} in {limit.window}" for limit in limits]

    def exceeded(self, position: int, cost: int, reset: float) -> QuotaExceeded:
        item, _ = self.items[position]
        if cost > item.amount:
            wait, advice = int(item.get_expiry()), "the request alone is larger: send less at once"
        else:
            wait = max(1, math.ceil(reset - time.time()))
            advice = f"retry in {wait} s"
        found = f"{cost} more" if self.kind == "tokens" else "one more"
        return QuotaExceeded(
            f"quota.{self.kind}: expected at most {self.texts[position]}, found {found}; {advice}",
            quota=self.kind,
            retry_after=wait,
        )


class LocalQuota:
    """Windows of this replica alone. Call from one thread: the event loop's."""

    immediate = True

    def __init__(self, quota: Quota, key: str, storage: WindowStorage | None = None) -> None:
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._limiter = SlidingWindowCounterRateLimiter(storage or WindowStorage())
        self._requests, self._tokens = _Rules("requests", quota.requests, key), _Rules("tokens", quota.tokens, key)
        self.limits_tokens = bool(quota.tokens)
        hit = self._limiter.hit
        self._hit = hit

    def try_take(self, tokens: int) -> None:
        if self._requests.items:
            self._take(self._requests, 1)
        if self._tokens.items and tokens:
            try:
                self._take(self._tokens, tokens)
            except QuotaExceeded:
                for item, key in self._requests.items:
                    self._hit(item, key, cost=-1)
                raise

    def _take(self, rules: _Rules, cost: int) -> None:
        for position, (item, key) in enumerate(rules.items):
            if self._hit(item, key, cost=cost):
                continue
            for earlier, earlier_key in rules.items[:position]:
                self._hit(earlier, earlier_key, cost=-cost)
            raise rules.exceeded(position, cost, self._limiter.get_window_stats(item, key).reset_time)

    async def take(self, tokens: int) -> None:
        self.try_take(tokens)

    async def settle(self, reserved: int, used: int) -> int:
        overrun = 0
        for item, key in self._tokens.items:
            missing = used - reserved
            if missing and not self._hit(item, key, cost=missing):
                left = int(self._limiter.get_window_stats(item, key).remaining)
                if left:
                    self._hit(item, key, cost=left)
                overrun = max(overrun, missing - left)
        return overrun


class SharedQuota:
    """Windows that replicas share. A store that is away refuses requests (fails closed)."""

    immediate = False

    def __init__(self, quota: Quota, key: str, storage: Any) -> None:
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._requests, self._tokens = _Rules("requests", quota.requests, key), _Rules("tokens", quota.tokens, key)
        self.limits_tokens = bool(quota.tokens)

    def try_take(self, tokens: int) -> None:
        raise RuntimeError(f"a shared quota needs the network: await take({tokens})")

    async def take(self, tokens: int) -> None:
        await self._take(self._requests, 1)
        if not tokens:
            return
        try:
            await self._take(self._tokens, tokens)
        except QuotaExceeded:
            for item, key in self._requests.items:
                await self._ask(self._limiter.hit(item, key, cost=-1))
            raise

    async def _take(self, rules: _Rules, cost: int) -> None:
        for position, (item, key) in enumerate(rules.items):
            if await self._ask(self._limiter.hit(item, key, cost=cost)):
                continue
            for earlier, earlier_key in rules.items[:position]:
                await self._ask(self._limiter.hit(earlier, earlier_key, cost=-cost))
            stats = await self._ask(self._limiter.get_window_stats(item, key))
            raise rules.exceeded(position, cost, stats.reset_time)

    async def settle(self, reserved: int, used: int) -> int:
        overrun = 0
        for item, key in self._tokens.items:
            missing = used - reserved
            if missing and not await self._ask(self._limiter.hit(item, key, cost=missing)):
                left = int((await self._ask(self._limiter.get_window_stats(item, key))).remaining)
                if left:
                    await self._ask(self._limiter.hit(item, key, cost=left))
                overrun = max(overrun, missing - left)
        return overrun

    @staticmethod
    async def _ask(call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await call
        except ServerError:
            raise
        except Exception as error:  # the library passes on whatever its driver raises
            raise Unavailable(
                f"quota.store: expected an answer from the shared quota store, found {type(error).__name__}; retry later"
            ) from error


def quota_gate(quota: Quota, key: str) -> QuotaGate | None:
    """The gate that the spec asks for, None without limits. ``key`` is namespace/name. Raises ValueError for a store without its driver."""
    if not quota.requests and not quota.tokens:
        return None
    if not quota.store:
        return LocalQuota(quota, key)
    from limits.aio.storage import RedisSentinelStorage, RedisStorage
    from limits.errors import ConfigurationError

    kind = RedisSentinelStorage if quota.store.startswith("redis+sentinel") else RedisStorage
    uri = quota.store if quota.store.startswith("async+") else f"async+{quota.store}"
    try:
        return SharedQuota(quota, key, kind(uri, implementation="redispy", wrap_exceptions=True))
    except ConfigurationError as error:
        raise ValueError(
            f"quota.store: expected the redis driver, found none ({error}); install redis or leave quota.store out"
        ) from error

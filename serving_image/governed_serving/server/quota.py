"""spec.quota by the `limits` library: sliding windows, in this process or shared through a Redis-protocol server.

Tokens are reserved before the work and settled after it, so that concurrent requests can't overrun a limit together.
"""

import asyncio
import math
import time
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from limits import RateLimitItem, RateLimitItemPerSecond

from governed_api.governance import Limit, Quota
from governed_api.quantities import seconds
from governed_serving.server.errors import Headers, QuotaExceeded, ServerError, TooManyTokens, Unavailable
from governed_serving.server.window_storage import WindowStorage

__all__ = ["LocalQuota", "QuotaGate", "SharedQuota", "quota_gate", "quota_storage"]


_T = TypeVar("_T")

TOLD_SECONDS = 0.01
"""What answers tell of a quota may be so old: it changes with each of thousands of requests a second."""
STORE_SECONDS = 2.0
"""A shared store that takes longer is away."""


class QuotaGate(Protocol):
    """Admission by quota. ``immediate`` says that :meth:`try_take` works without waiting."""

    immediate: bool
    limits_tokens: bool

    def try_take(self, tokens: int) -> None:
        """Take one request and ``tokens``. Raises QuotaExceeded, TooManyTokens, and then nothing is taken."""

    async def take(self, tokens: int) -> None:
        """As :meth:`try_take`, over the network where needed. Raises Unavailable too."""

    async def settle(self, reserved: int, used: int) -> int:
        """Give back or add the difference; returns tokens used beyond what the windows still held."""

    def try_give_back(self, tokens: int) -> None:
        """Undo a :meth:`try_take`."""

    async def give_back(self, tokens: int) -> None:
        """Undo a :meth:`take`."""

    def headers(self) -> Headers:
        """What an answer tells of the limits, as far as that is known without waiting."""


class _Rules:
    """The limits of one kind, as items of the library. ``of``: whose they are, for messages."""

    def __init__(self, kind: str, limits: Sequence[Limit], key: str, of: str) -> None:
        self.kind, self._of = kind, of
        self.items: list[tuple[RateLimitItem, str]] = [
            (RateLimitItemPerSecond(limit.limit, seconds(limit.window), "governed"), f"{key}/{kind}")
            for limit in limits
        ]
        self.texts = [f"{limit.limit} {kind} in {limit.window}" for limit in limits]
        self.names = [b'"%b-%b"' % (kind.encode(), limit.window.encode()) for limit in limits]
        unit = b"" if kind == "requests" else b';qu="%b"' % kind.encode()
        self.policy: Headers = ()
        """Of all kinds, as a header."""
        self.policies = [
            name + b";q=%d;w=%d%b" % (item.amount, item.get_expiry(), unit)
            for name, (item, _) in zip(self.names, self.items, strict=True)
        ]

    def exceeded(self, position: int, cost: int, reset: float) -> QuotaExceeded:
        wait = max(1, math.ceil(reset - time.time()))
        asked = f"{cost} more" if self.kind == "tokens" else "one more"
        return QuotaExceeded(
            f"{self._of}.{self.kind}: expected at most {self.texts[position]}, found {asked}; retry in {wait} s",
            quota=self.kind,
            retry_after=wait,
            headers=(*self.policy, (b"ratelimit", self.names[position] + b";r=0;t=%d" % wait)),
        )

    def check(self, cost: int) -> None:
        """Raises TooManyTokens for a cost that no window holds, however long one waits."""
        for text, (item, _) in zip(self.texts, self.items, strict=True):
            if cost > item.amount:
                raise TooManyTokens(
                    f"{self._of}.{self.kind}: expected at most {text}, found {cost} in one request; the request alone "
                    "is larger than the window: send less at once"
                )


class _Hit(NamedTuple):
    """Count ``cost`` in a window (negative gives back); the answer: whether it still held that."""

    item: RateLimitItem
    key: str
    cost: int


class _Look(NamedTuple):
    """What is in a window; the answer: a ``WindowStats`` of the library."""

    item: RateLimitItem
    key: str


_Steps = Generator[_Hit | _Look, Any, _T]
"""What to ask of a storage, one step after the other, each sent its answer: the rules are the same for every
storage."""


class _Windows:
    """Request and token windows of one model, without a storage."""

    def __init__(self, quota: Quota, key: str, of: str) -> None:
        self._requests = _Rules("requests", quota.requests, key, of)
        self._tokens = _Rules("tokens", quota.tokens, key, of)
        self.limits_tokens = bool(quota.tokens)
        policies = b", ".join([*self._requests.policies, *self._tokens.policies])
        self.policy: Headers = ((b"ratelimit-policy", policies),)
        self._requests.policy = self._tokens.policy = self.policy

    def left(self) -> _Steps[Headers]:
        """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11): what the windows still hold."""
        keys: list[bytes] = []
        for rules in (self._requests, self._tokens):
            for name, (item, key) in zip(rules.names, rules.items, strict=True):
                stats = yield _Look(item, key)
                wait = max(0, math.ceil(stats.reset_time - time.time()))
                keys.append(name + b";r=%d;t=%d" % (int(stats.remaining), wait))
        return (*self.policy, (b"ratelimit", b", ".join(keys)))

    def only(self) -> tuple[str, int, int] | None:
        """(Key, limit, seconds) of the window, where there is one of requests and no other: what it holds is all that
        decides."""
        if len(self._requests.items) != 1 or self._tokens.items:
            return None
        item, key = self._requests.items[0]
        return item.key_for(key), item.amount, item.get_expiry()

    def taking(self, tokens: int) -> _Steps[None]:
        """One request and ``tokens`` of every window, or, with QuotaExceeded, of none."""
        self._tokens.check(tokens)
        yield from self._all_of(self._requests, 1)
        if not tokens:
            return
        try:
            yield from self._all_of(self._tokens, tokens)
        except QuotaExceeded:
            for item, key in self._requests.items:
                yield _Hit(item, key, -1)
            raise

    def returning(self, tokens: int) -> _Steps[None]:
        """What :meth:`taking` took."""
        for item, key in self._requests.items:
            yield _Hit(item, key, -1)
        for item, key in self._tokens.items if tokens else ():
            yield _Hit(item, key, -tokens)

    @staticmethod
    def _all_of(rules: _Rules, cost: int) -> _Steps[None]:
        for position, (item, key) in enumerate(rules.items):
            if (yield _Hit(item, key, cost)):
                continue
            for earlier, earlier_key in rules.items[:position]:
                yield _Hit(earlier, earlier_key, -cost)
            raise rules.exceeded(position, cost, (yield _Look(item, key)).reset_time)

    def settling(self, reserved: int, used: int) -> _Steps[int]:
        """Tokens used beyond what the windows still held."""
        overrun, missing = 0, used - reserved
        for item, key in self._tokens.items if missing else ():
            if (yield _Hit(item, key, missing)):
                continue
            left = int((yield _Look(item, key)).remaining)
            if left:
                yield _Hit(item, key, left)
            overrun = max(overrun, missing - left)
        return overrun


class LocalQuota:
    """Windows of this replica alone. Call from one thread: the event loop's."""

    immediate = True

    def __init__(self, quota: Quota, key: str, storage: WindowStorage | None = None, *, of: str = "quota") -> None:
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._storage = storage or WindowStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._windows = _Windows(quota, key, of)
        self.limits_tokens = self._windows.limits_tokens
        self._only = self._windows.only()
        self._told: Headers = ()
        self._told_until = -math.inf

    def try_take(self, tokens: int) -> None:
        if self._only is not None and self._storage.acquire_sliding_window_entry(*self._only):
            return
        self._walk(self._windows.taking(tokens))

    async def take(self, tokens: int) -> None:
        self.try_take(tokens)

    async def settle(self, reserved: int, used: int) -> int:
        return self._walk(self._windows.settling(reserved, used))

    def try_give_back(self, tokens: int) -> None:
        self._walk(self._windows.returning(tokens))

    async def give_back(self, tokens: int) -> None:
        self.try_give_back(tokens)

    def headers(self) -> Headers:
        now = time.monotonic()
        if now >= self._told_until:
            self._told, self._told_until = self._walk(self._windows.left()), now + TOLD_SECONDS
        return self._told

    def _walk(self, steps: _Steps[_T]) -> _T:
        limiter = self._limiter
        try:
            step = next(steps)
            while True:
                if isinstance(step, _Hit):
                    answer: Any = limiter.hit(step.item, step.key, cost=step.cost)
                else:
                    answer = limiter.get_window_stats(step.item, step.key)
                step = steps.send(answer)
        except StopIteration as end:
            result: _T = end.value
            return result


class SharedQuota:
    """Windows that replicas share. A store that is away refuses requests (fails closed)."""

    immediate = False

    def __init__(self, quota: Quota, key: str, storage: Any, *, of: str = "quota") -> None:
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._windows = _Windows(quota, key, of)
        self.limits_tokens = self._windows.limits_tokens

    def try_take(self, tokens: int) -> None:
        raise RuntimeError(f"a shared quota needs the network: await take({tokens})")

    def try_give_back(self, tokens: int) -> None:
        raise RuntimeError(f"a shared quota needs the network: await give_back({tokens})")

    async def take(self, tokens: int) -> None:
        await self._walk(self._windows.taking(tokens))

    async def settle(self, reserved: int, used: int) -> int:
        return await self._walk(self._windows.settling(reserved, used))

    async def give_back(self, tokens: int) -> None:
        await self._walk(self._windows.returning(tokens))

    def headers(self) -> Headers:
        return self._windows.policy

    async def _walk(self, steps: _Steps[_T]) -> _T:
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._ask(step))
        except StopIteration as end:
            result: _T = end.value
            return result

    async def _ask(self, step: _Hit | _Look) -> Any:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                if isinstance(step, _Hit):
                    return await self._limiter.hit(step.item, step.key, cost=step.cost)
                return await self._limiter.get_window_stats(step.item, step.key)
        except ServerError:
            raise
        except Exception as error:  # the library passes on whatever its driver raises
            raise Unavailable(
                f"quota.store: expected an answer from the shared quota store, found {type(error).__name__}; "
                "retry later"
            ) from error


def quota_gate(quota: Quota, key: str, *, of: str = "quota", storage: Any = None) -> QuotaGate | None:
    """The gate that the spec asks for, None without limits. ``key`` is namespace/name, ``of`` whose quota it is,
    ``storage`` that of the store. Raises ValueError for a store without its driver."""
    if not quota.requests and not quota.tokens:
        return None
    if not quota.store:
        return LocalQuota(quota, key, of=of)
    return SharedQuota(quota, key, quota_storage(quota.store) if storage is None else storage, of=of)


def quota_storage(store: str) -> Any:
    """The store at an address of spec.quota.store. Raises ValueError without its driver."""
    from limits.aio.storage import RedisSentinelStorage, RedisStorage
    from limits.errors import ConfigurationError

    kind = RedisSentinelStorage if store.startswith("redis+sentinel") else RedisStorage
    uri = store if store.startswith("async+") else f"async+{store}"
    try:
        return kind(uri, implementation="redispy", wrap_exceptions=True)
    except ConfigurationError as error:
        raise ValueError(
            f"quota.store: expected the redis driver, found none ({error}); install redis or leave quota.store out"
        ) from error

"""Admission control: readiness, concurrency, quotas. The cheapest refusal first."""

from collections.abc import Callable

from governed_serving.server.errors import Headers, QuotaExceeded, Unavailable
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.quota import QuotaGate

__all__ = ["Admission"]

MAX_OPEN = 8192
"""Requests admitted and not answered, where the spec bounds them no lower: every queue is bounded."""


class Admission:
    """Counts requests in flight. ``not_ready`` answers "" when the model can serve, else why not."""

    def __init__(
        self,
        not_ready: Callable[[], str],
        metrics: ServerMetrics,
        *,
        quota: QuotaGate | None = None,
        max_concurrent: int | None = None,
    ) -> None:
        self._not_ready, self.metrics, self.quota = not_ready, metrics, quota
        self._max = max_concurrent
        self.open = 0
        metrics.gauges["requests_in_flight"] = ("Admitted and not answered.", lambda: float(self.open))
        self.immediate = quota is None or quota.immediate
        self.counts_tokens = quota is not None and quota.limits_tokens

    def enter(self, tokens: int) -> None:
        """Admit one request that uses ``tokens``. Raises Unavailable, QuotaExceeded; then :meth:`leave` must not be
        called."""
        self._room()
        if self.quota is not None:
            try:
                self.quota.try_take(tokens)
            except QuotaExceeded as error:
                self.metrics.refusals[error.quota] += 1
                raise
        self.metrics.count["tokens"] += tokens
        self.open += 1

    async def enter_shared(self, tokens: int) -> None:
        """As :meth:`enter`, where the quota lives elsewhere."""
        self._room()
        self.open += 1  # while the store is asked, so that the bound holds
        try:
            if self.quota is not None:
                await self.quota.take(tokens)
        except BaseException as error:
            self.open -= 1
            if isinstance(error, QuotaExceeded):
                self.metrics.refusals[error.quota] += 1
            raise
        self.metrics.count["tokens"] += tokens

    def _room(self) -> None:
        if why := self._not_ready():
            raise Unavailable(f"the model is not ready: {why}; retry in a moment")
        if self._max is not None and self.open >= self._max:
            self.metrics.refusals["concurrency"] += 1
            raise QuotaExceeded(
                f"quota.maxConcurrent: expected at most {self._max} requests in flight, found one more; retry in 1 s",
                quota="concurrency",
                retry_after=1,
            )
        if self.open >= MAX_OPEN:
            raise Unavailable(
                f"server: expected fewer than {MAX_OPEN} requests in flight, found as many; it is overloaded, "
                "retry in a moment"
            )

    async def settle(self, reserved: int, used: int) -> None:
        """One admitted request used ``used`` tokens where ``reserved`` were taken. Raises Unavailable, where the quota
        lives elsewhere."""
        self.metrics.count["tokens"] += used - reserved
        if self.quota is not None and self.counts_tokens:
            self.metrics.count["tokens_overrun"] += await self.quota.settle(reserved, used)

    def limits(self) -> Headers:
        """What answers tell of the quota."""
        return () if self.quota is None else self.quota.headers()

    def leave(self) -> None:
        """One admitted request was answered."""
        self.open -= 1

"""What each caller has used of their own limits, and how records call them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from governed_api.governance import Limit, Quota
from governed_serving.access.directory import Known
from governed_serving.server.errors import Headers, QuotaExceeded
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.quota import QuotaGate, quota_gate, quota_storage

__all__ = ["Account", "Accounts"]

MOST = 200_000
"""Accounts that are kept, twice what a document has callers: the one that was used longest ago is forgotten first."""
_LIMITS = "consumer.limits"


class Account:
    """Of one caller, as the document has them now."""

    __slots__ = ("known", "open", "pseudonym", "quota")

    def __init__(self, known: Known, pseudonym: str, quota: QuotaGate | None) -> None:
        self.known, self.pseudonym, self.quota = known, pseudonym, quota
        self.open = 0
        """Requests in flight in this replica."""

    @property
    def counts_tokens(self) -> bool:
        """One of the limits is of tokens."""
        return self.quota is not None and self.quota.limits_tokens

    def room(self) -> None:
        """Raises QuotaExceeded."""
        most = self.known.max_concurrent
        if most is not None and self.open >= most:
            raise QuotaExceeded(
                f"consumer.maxConcurrent: expected at most {most} requests in flight, found one more; retry in 1 s",
                quota="concurrency",
                retry_after=1,
            )

    def headers(self) -> Headers | None:
        """What answers tell of the caller's limits; None: there are none."""
        return None if self.quota is None else self.quota.headers()


class Accounts:
    """All callers who came. ``store`` shares what they used between replicas, as spec.quota.store does. Lives on one
    event loop."""

    def __init__(
        self, key: str, pseudonym: Callable[[Known], str], metrics: ServerMetrics, store: str | None = None
    ) -> None:
        self._key, self._pseudonym, self._metrics = key, pseudonym, metrics
        self.immediate = not store
        self._store = store
        self._storage: Any = quota_storage(store) if store else None
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def of(self, caller: Known) -> Account:
        """The account of ``caller``; one whose limits have changed goes on with what is open."""
        account = self._accounts.get(caller.name)
        if account is None:
            pseudonym = self._pseudonym(caller)
            account = Account(caller, pseudonym, self._quota(caller, pseudonym))
            self._accounts[caller.name] = account
            if len(self._accounts) > MOST:
                self._forget()
            return account
        self._accounts.move_to_end(caller.name)
        if account.known is not caller:
            if account.known.limits != caller.limits:
                account.quota = self._quota(caller, account.pseudonym)
            account.known = caller
        return account

    def _forget(self) -> None:
        idle = next((name for name, account in self._accounts.items() if not account.open), None)
        if idle is not None:
            del self._accounts[idle]

    def _quota(self, caller: Known, pseudonym: str) -> QuotaGate | None:
        limits: dict[str, list[Limit]] = {"requests": [], "tokens": []}
        for limit in caller.limits:
            limits[limit.unit].append(Limit(limit=limit.limit, window=f"{limit.window_seconds}s"))
        quota = Quota(requests=limits["requests"], tokens=limits["tokens"], store=self._store)
        return quota_gate(quota, f"{self._key}/callers/{pseudonym}", of=_LIMITS, storage=self._storage)

    def enter(self, account: Account, tokens: int) -> None:
        """Take a request and ``tokens`` of the account. Raises QuotaExceeded, TooManyTokens; then nothing is taken."""
        try:
            account.room()
            if account.quota is not None:
                account.quota.try_take(tokens)
        except QuotaExceeded as error:
            self._refused(error)
            raise
        account.open += 1

    async def enter_shared(self, account: Account, tokens: int) -> None:
        """As :meth:`enter`, wherever the counts are. Raises Unavailable too."""
        try:
            account.room()
            account.open += 1  # while the store is asked, so that the bound holds
            try:
                if account.quota is not None:
                    await account.quota.take(tokens)
            except BaseException:
                account.open -= 1
                raise
        except QuotaExceeded as error:
            self._refused(error)
            raise

    def _refused(self, error: QuotaExceeded) -> None:
        self._metrics.refusals[f"caller_{error.quota}"] += 1

    def turn_back(self, account: Account, tokens: int) -> None:
        """It was admitted here, and refused elsewhere: it has used nothing."""
        account.open -= 1
        if account.quota is not None:
            account.quota.try_give_back(tokens)

    async def turn_back_shared(self, account: Account, tokens: int) -> None:
        """As :meth:`turn_back`, wherever the counts are."""
        account.open -= 1
        if account.quota is not None:
            await account.quota.give_back(tokens)

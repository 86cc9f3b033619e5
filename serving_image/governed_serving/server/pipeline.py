"""The governed path, the same for every payload: admit → mask → compute → journal → settle → leave.

Columns (dataplane.py) and conversations (chat/gateway.py) decode a request, compute it, and build its frames and its
answer. What the spec rules about any request is here, once: identifiers, admission, the deadline, concurrency, masking,
the journal and its failure policy, settlement, request metrics, explanations, drain. A stage that both payloads need
(callers, budgets, masking of answers, labels) is a method of :class:`Pipeline`, and what it must remember of a request
is a field of :class:`Exchange`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

from governed_serving.access.directory import Known
from governed_serving.hosting.logs import log
from governed_serving.journal.errors import JournalError
from governed_serving.privacy import Covered
from governed_serving.records import PredictionFrame, SubjectFrame
from governed_serving.server.accounts import Account, Accounts
from governed_serving.server.admission import Admission
from governed_serving.server.backlog import Backlog
from governed_serving.server.errors import (
    DeadlineExceeded,
    Headers,
    JournalUnavailable,
    NotFound,
    Overloaded,
    PromiseUnavailable,
    ServerError,
)
from governed_serving.server.explanation import Explainer
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.identity import Identity
from governed_serving.server.masking import Masking
from governed_serving.server.promises import NO_PROMISES, Promised
from governed_serving.server.recording import Journal

__all__ = ["NOT_RECORDED", "Counted", "Exchange", "PathRules", "Pipeline", "Recorded", "Stages"]

SWEEP_SECONDS = 0.1
"""How often requests past their deadline are looked for."""
WAIT = 0.5
"""Share of the timeout that may be spent on waiting for a turn: the rest is for computing, and for turns that take
longer than those before."""


@dataclass(frozen=True, kw_only=True)
class PathRules:
    """What the spec asks of every request. ``timeout`` in seconds; ``concurrency`` is what is computed at a time, 0 for
    no bound."""

    journal_policy: Literal["Closed", "Open"] = "Closed"
    timeout: float = 60.0
    concurrency: int = 0


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the spec switched on: without ``masking`` nothing is masked, without ``journal`` recorded, without
    ``explainer`` explained, without ``promises`` promised, without ``accounts`` nobody is asked who they are."""

    masking: Masking | None = None
    journal: Journal | None = None
    explainer: Explainer | None = None
    promises: Promised | None = None
    accounts: Accounts | None = None


class Exchange:
    """One request on its way to its answer. A payload adds what it needs, and says what to reserve; admission fills in
    the rest."""

    __slots__ = ("account", "caller", "deciding", "over", "reserved", "since", "slot")

    caller: Known | None
    """Whose request it is, where that is asked."""
    account: Account | None
    """Theirs, once it is admitted."""
    reserved: int
    """Tokens that it is admitted with."""
    since: float
    """Reading of the pipeline's clock when it was admitted."""
    slot: bool
    """It holds one of the slots of :meth:`Pipeline.take_slot`."""
    over: bool
    """It has left."""
    deciding: bool
    """Its record is on the way to the journal: whatever the time, its answer is what becomes of that. A record that
    was followed by a 504 would be a decision of which nobody was told."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a record. ``ledger``: how the answers' field reads: pending when the journal has them, "" when
    nothing is journalled, or nothing could be (failurePolicy Open); ``promises``: by id of the request."""

    ledger: str = ""
    promises: Mapping[str, str] = field(default_factory=dict)

    def promise(self, id: str) -> str:
        """To a request that asked. Raises PromiseUnavailable."""
        if not (given := self.promises.get(id, "")):
            raise PromiseUnavailable(
                "X-Governed-Promise: expected a record in the journal and a key in its time, found one missing; the "
                "answer is withheld; retry, or ask without a promise"
            )
        return given


NOT_RECORDED = Recorded()
_PENDING = Recorded("pending")


@dataclass(slots=True)
class Counted:
    """Under which code an answer is counted."""

    status: int = 200


class Pipeline:
    """Governs one model's requests. Lives on one event loop."""

    def __init__(
        self,
        identity: Identity,
        admission: Admission,
        rules: PathRules,
        stages: Stages = Stages(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity, self.admission, self.metrics = identity, admission, admission.metrics
        self.rules, self.clock = rules, clock
        self.masking, self.explainer, self._journal = stages.masking, stages.explainer, stages.journal
        self.accounts = stages.accounts
        self.immediate = admission.immediate and (stages.accounts is None or stages.accounts.immediate)
        self.journalled = stages.journal is not None
        self._promises = stages.promises if stages.journal is not None else None
        self.new_id = Identifiers()
        self.idle = asyncio.Event()
        """Set while no request is open."""
        self.idle.set()
        self._slots = asyncio.Semaphore(rules.concurrency) if rules.concurrency else None
        self.backlog = Backlog(lambda: self.clock(), rules.timeout)
        self._open: dict[Exchange, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._expire: Callable[[Any, ServerError], None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._masking_failures = 0

    # admit

    def account_of(self, caller: Known | None) -> Account | None:
        """None where nobody is asked who they are."""
        return None if caller is None or self.accounts is None else self.accounts.of(caller)

    def counts_tokens(self, caller: Known | None) -> bool:
        """Tokens are limited, for all or for ``caller``."""
        if caller is None or self.admission.counts_tokens:
            return self.admission.counts_tokens
        account = self.account_of(caller)
        return account is not None and account.counts_tokens

    def limits(self, caller: Known | None) -> Headers:
        """What answers tell of limits: the caller's own, else the model's."""
        if caller is None:
            return self.admission.limits()
        account = self.account_of(caller)
        own = None if account is None else account.headers()
        return self.admission.limits() if own is None else own

    def check_wait(self) -> None:
        """Before anything is taken of a quota. Raises Overloaded where its turn would come too late."""
        most, wait = WAIT * self.rules.timeout, self.backlog.seconds()
        if wait > most:
            raise Overloaded(
                f"server: expected a turn within {most:g} s (half of spec.predictor.timeout), found what waits to take "
                f"about {wait:.0f} s; it is overloaded, retry later",
                math.ceil(wait - most),
            )

    def admit(self, exchange: Exchange) -> None:
        """Where ``immediate``. Raises Unavailable, QuotaExceeded, TooManyTokens; then there is nothing to leave."""
        if exchange.caller is None or self.accounts is None:
            exchange.account = None
            self.admission.enter(exchange.reserved)
        else:
            account = exchange.account = self.accounts.of(exchange.caller)
            self.accounts.enter(account, exchange.reserved)
            try:
                self.admission.enter(exchange.reserved)
            except BaseException:
                self.accounts.turn_back(account, exchange.reserved)
                raise
        self._enter(exchange)

    async def admit_shared(self, exchange: Exchange) -> None:
        """As :meth:`admit`, wherever the quotas live."""
        account = exchange.account = self.account_of(exchange.caller)
        if account is None or self.accounts is None:
            await self.admission.enter_shared(exchange.reserved)
        else:
            await self.accounts.enter_shared(account, exchange.reserved)
            try:
                await self.admission.enter_shared(exchange.reserved)
            except BaseException:
                self.spawn(self.accounts.turn_back_shared(account, exchange.reserved))
                raise
        self._enter(exchange)

    def _enter(self, exchange: Exchange) -> None:
        exchange.since = self.clock()
        exchange.over = exchange.slot = exchange.deciding = False
        if not self._open:
            self.idle.clear()
        self._open[exchange] = None
        if self._sweeper is None and self._expire is not None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    # deadline and concurrency

    def watch_deadline(self, expire: Callable[[Any, ServerError], None]) -> None:
        """From now on ``expire`` is called with each exchange that is open for longer than the timeout, and its
        error."""
        self._expire = expire

    def late(self) -> DeadlineExceeded:
        """The error of a request whose time is over."""
        return DeadlineExceeded.after(self.rules.timeout)

    def _sweep(self) -> None:
        """Requests are in order of arrival: only those at the head can be late; those being recorded stay."""
        self._sweeper = None
        assert self._expire is not None, "only a deadline that is watched is swept"
        limit = self.clock() - self.rules.timeout
        for exchange in list(takewhile(lambda open_: open_.since <= limit, self._open)):
            if not exchange.deciding:
                self._expire(exchange, self.late())
        if self._open:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    async def take_slot(self, exchange: Exchange) -> None:
        """Wait for one of spec.predictor.containerConcurrency slots, where no batch bounds them. Raises
        DeadlineExceeded."""
        if self._slots is None:
            return
        self.backlog.put(1)
        try:
            async with asyncio.timeout(self.rules.timeout):
                await self._slots.acquire()
        except TimeoutError as error:
            raise self.late() from error
        finally:
            self.backlog.take(1)
        exchange.slot = True

    def free_slot(self, exchange: Exchange) -> None:
        """It is computed, or won't be."""
        if exchange.slot and self._slots is not None:
            exchange.slot = False
            self._slots.release()
            self.backlog.finished(1)
            self.backlog.next()

    # mask

    @property
    def masks_requests(self) -> bool:
        """The model sees masked texts."""
        return self.masking is not None and self.masking.requests

    @property
    def masks_answers(self) -> bool:
        """The client sees masked texts."""
        return self.masking is not None and self.masking.answers

    async def mask(self, texts: list[str], together: Sequence[int] = ()) -> list[Covered]:
        """Masked texts of a request and what was found in them, in order, off the event loop; ``together``: places of
        those that are read one after another. Raises MaskingFailed (failurePolicy Closed)."""
        assert self.masking is not None, "asked where requests are masked"
        try:
            return await asyncio.to_thread(self.masking.covered_all, texts, together)
        finally:
            self.count_masking_failures()

    def count_masking_failures(self) -> None:
        """Carry them over to the metrics."""
        if self.masking is not None and (failures := self.masking.failures) != self._masking_failures:
            self.metrics.count["masking_failures"] += failures - self._masking_failures
            self._masking_failures = failures

    # journal

    def check_promise(self) -> None:
        """For a request that asks for a promise, before anything is computed. Raises InvalidRequest,
        PromiseUnavailable."""
        if self._promises is None:
            raise NO_PROMISES
        self._promises.check()

    async def record(
        self,
        frame: PredictionFrame | SubjectFrame,
        requests: int = 1,
        promised: Collection[str] = (),
        *,
        final: bool = True,
    ) -> Recorded:
        """``promised``: ids of the requests that ask for a promise; ``final``: the answer goes out behind this record.
        Raises JournalUnavailable (failurePolicy Closed)."""
        if self._journal is None:
            return NOT_RECORDED
        try:
            kept = await self._journal.append(frame)
        except JournalError as error:
            if self.rules.journal_policy == "Closed":
                raise JournalUnavailable(
                    f"journal: expected room for a record, found: {error}; the request is not answered "
                    "(failurePolicy Closed)"
                ) from error
            self.metrics.count["journal_lost_records"] += requests
            return NOT_RECORDED
        self.metrics.count["journal_records"] += requests
        if self._promises is None or not final or not (promised or self._promises.always):
            return _PENDING
        given = await self._promises.give(frame, kept, frame.ids if self._promises.always else promised)
        self.metrics.count["promises"] += len(given)
        return Recorded(_PENDING.ledger, given)

    # settle and leave

    async def settle(self, exchange: Exchange, used: int) -> None:
        """It used ``used`` tokens: give back, or take, what differs from those reserved. Once. Raises Unavailable."""
        account = exchange.account
        if account is not None and account.quota is not None and account.quota.limits_tokens:
            overrun = await account.quota.settle(exchange.reserved, used)
            self.metrics.count["tokens_overrun"] += overrun
        await self.admission.settle(exchange.reserved, used)

    def leave(self, exchange: Exchange) -> bool:
        """Its answer goes out, or nobody waits for it. False when it had left before."""
        if exchange.over:
            return False
        exchange.over = True
        if exchange.slot:
            self.free_slot(exchange)
        del self._open[exchange]
        if exchange.account is not None:
            exchange.account.open -= 1
        self.admission.leave()
        if not self._open:
            self.idle.set()
        return True

    # request metrics

    @contextmanager
    def counting(self, verb: str) -> Iterator[Counted]:
        """Count the request that is answered within, once: by its error's status, else as what is yielded says. Raises
        Overloaded where its turn would come too late, before it is decoded or costs anything else."""
        counted = Counted()
        try:
            self.check_wait()
            yield counted
        except ServerError as error:
            self.metrics.counted(verb, error.status, client_made=error.client_made)
            raise
        self.metrics.counted(verb, counted.status)

    # explanations

    def explaining(self) -> Explainer:
        """Raises NotFound for a model without explainer."""
        if self.explainer is None:
            raise NotFound(
                f"model {self.identity.model!r}: expected spec.explainer, found none; add it to have explanations"
            )
        return self.explainer

    # drain

    def spawn(self, call: Coroutine[object, None, None]) -> None:
        """Run ``call`` whether or not the client still waits; :meth:`drain` waits for it."""
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log("error", "a request's task failed unexpectedly", exception=error)

    async def drain(self) -> None:
        """Wait until every admitted request is answered and recorded."""
        while self._open or self._tasks:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await self.idle.wait()

    async def close(self) -> None:
        """Answer what is open, then drop the explainer's connections."""
        await self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.explainer is not None:
            await self.explainer.close()

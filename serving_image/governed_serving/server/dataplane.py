"""The data plane: admit → mask → predict → journal → reply, whatever the transport.

One predictor call serves every request that was waiting; one journal record holds them; each gets its answer only after that.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from governed_serving.hosting.logs import log
from governed_serving.journal.errors import JournalError
from governed_serving.server.admission import Admission
from governed_serving.server.batch import Batch, BatchPlan, PendingRequest
from governed_serving.server.errors import DeadlineExceeded, JournalUnavailable, NotFound, PredictionFailed, ServerError
from governed_serving.server.explanation import ExplainerProxy, Proxied
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.lane import ComputeLane
from governed_serving.server.messages import ExplainRequest, InferRequest, InferResponse
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.predictors import Predictor
from governed_serving.server.recording import Journal

__all__ = ["DataPlane", "Identity"]

MAX_BATCH_ROWS = 1024
"""Rows of requests that share one call; larger requests go alone."""
QUICK_SECONDS = 0.002
"""A batch that computes faster than a disk writes: computing the next one meanwhile would only make batches smaller."""
SWEEP_SECONDS = 0.1
"""How often requests past their deadline are looked for."""


@dataclass(frozen=True)
class Identity:
    """Who serves."""

    model: str
    namespace: str
    revision: str
    artefact: str = ""


class DataPlane:
    """Serves one model. Lives on one event loop."""

    def __init__(
        self,
        identity: Identity,
        predictor: Predictor,
        plan: BatchPlan,
        admission: Admission,
        metrics: ServerMetrics,
        *,
        journal: Journal | None,
        journal_policy: Literal["Closed", "Open"] = "Closed",
        timeout: float = 60.0,
        concurrency: int = 0,
        explainer: ExplainerProxy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity, self.predictor, self.signature = identity, predictor, predictor.signature
        self.admission, self.metrics = admission, metrics
        self.explainer = explainer
        self._plan, self._journal, self._closed_policy = plan, journal, journal_policy == "Closed"
        self._timeout, self._clock = timeout, clock
        self._new_id = Identifiers()
        slots = predictor.slots if predictor.merges or not concurrency else min(predictor.slots, concurrency)
        together = (concurrency or 256) if predictor.merges else 1
        self._lane = ComputeLane(self._compute, slots=slots, max_requests=together, max_rows=MAX_BATCH_ROWS)
        self._open: dict[PendingRequest, None] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        metrics.gauges["requests_waiting"] = ("Waiting for the predictor.", lambda: float(self._lane.waiting))

    def submit(
        self, request: InferRequest, done: Callable[[InferResponse | ServerError], None], *, keep_masked: bool = False
    ) -> None:
        """Admit ``request`` and call ``done`` once, on the event loop, with its answer or error. Raises what refuses it at once."""
        if not self.admission.immediate:
            self._spawn(self._submit_later(request, done, keep_masked))
            return
        self.admission.enter(self._plan.tokens(request) if self.admission.counts_tokens else 0)
        self._enqueue(request, done, keep_masked)

    async def _submit_later(
        self, request: InferRequest, done: Callable[[InferResponse | ServerError], None], keep_masked: bool
    ) -> None:
        try:
            await self.admission.enter_shared(self._plan.tokens(request) if self.admission.counts_tokens else 0)
        except ServerError as error:
            done(error)
        else:
            self._enqueue(request, done, keep_masked)

    def _enqueue(
        self, request: InferRequest, done: Callable[[InferResponse | ServerError], None], keep_masked: bool
    ) -> None:
        if not request.id:
            request.id = self._new_id()
        item = PendingRequest(request, done, self._clock(), keep_masked)
        self._open[item] = None
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        self._lane.put(item)

    async def infer(self, request: InferRequest, *, keep_masked: bool = False) -> InferResponse:
        """The answer to ``request``. Raises ServerError."""
        future: asyncio.Future[InferResponse] = asyncio.get_running_loop().create_future()

        def done(answer: InferResponse | ServerError) -> None:
            if future.done():  # the client left
                return
            if isinstance(answer, ServerError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.submit(request, done, keep_masked=keep_masked)
        return await future

    async def explain(self, request: ExplainRequest) -> Proxied:
        """The explainer's answer for ``request``, which is predicted and journalled first. Raises ServerError."""
        explainer = self.explaining()
        response = await self.infer(request.infer, keep_masked=True)
        return await explainer.explain(response, request.options, "explanations" if request.later else "explain")

    def explaining(self) -> ExplainerProxy:
        """Raises NotFound for a model without explainer."""
        if self.explainer is None:
            raise NotFound(
                f"model {self.identity.model!r}: expected spec.explainer, found none; add it to have explanations"
            )
        return self.explainer

    async def _compute(self, items: list[PendingRequest]) -> None:
        items = [item for item in items if not item.answered]
        if not items:
            return
        started = self._clock()
        batch = Batch(self._plan, items)
        try:
            await self.predictor.predict(batch.columns, batch.finish, batch.size)
        except Exception as error:
            await self._failed(items, error)
            return
        seconds = self._clock() - started
        self.metrics.predict_seconds.observe(seconds)
        self.metrics.batch_requests.observe(len(items))
        self._plan.count_failures(self.metrics)
        if self._journal is None:
            self._reply(batch, "")
        elif (
            seconds < QUICK_SECONDS
        ):  # what arrives while this is being written shares the next call and the next record
            await self._record(self._journal, batch)
        else:  # the next batch computes while this one is being written
            self._spawn(self._record(self._journal, batch))

    async def _failed(self, items: list[PendingRequest], error: Exception) -> None:
        """Among several requests only the guilty one fails: the others are computed alone."""
        self._plan.count_failures(self.metrics)
        if len(items) > 1:
            for item in items:
                await self._compute([item])
            return
        if not isinstance(error, ServerError):
            log("error", "prediction failed unexpectedly", exception=error)
            error = PredictionFailed(
                f"model: expected an answer, found {type(error).__name__}; the server's log has the details"
            )
        for item in items:
            self._answer(item, error)

    async def _record(self, journal: Journal, batch: Batch) -> None:
        count = len(batch.items)
        try:
            await journal.append(batch.frame())
        except JournalError as error:
            if self._closed_policy:
                refused = JournalUnavailable(
                    f"journal: expected room for a record, found: {error}; the request is not answered (failurePolicy Closed)"
                )
                for item in batch.items:
                    self._answer(item, refused)
                return
            self.metrics.count["journal_lost_records"] += count
            self._reply(batch, "")
            return
        self.metrics.count["journal_records"] += count
        self._reply(batch, "pending")

    def _reply(self, batch: Batch, ledger: str) -> None:
        for item, response in batch.responses(ledger):
            self._answer(item, response)

    def _answer(self, item: PendingRequest, answer: InferResponse | ServerError) -> None:
        if item.answered:
            return
        item.answered = True
        del self._open[item]
        if not self._open:
            self._emptied.set()
        self.admission.leave()
        self.metrics.seconds.observe(self._clock() - item.since)
        if not isinstance(answer, ServerError):
            self.metrics.count["request_rows"] += item.rows
        item.done(answer)

    def _sweep(self) -> None:
        """Requests are in order of arrival: only the head can be late."""
        self._sweeper = None
        limit = self._clock() - self._timeout
        late = []
        for item in self._open:
            if item.since > limit:
                break
            late.append(item)
        for item in late:
            self._answer(
                item,
                DeadlineExceeded(
                    f"server: expected an answer within {self._timeout:g} s (spec.predictor.timeout), found none; retry later"
                ),
            )
        if self._open:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _spawn(self, call: Any) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._emptied.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log("error", "a request's task failed unexpectedly", exception=error)

    async def warm_up(self) -> None:
        """One prediction past admission and journal. Raises PredictionFailed, UpstreamFailed."""
        await self.predictor.warm_up()

    async def drain(self) -> None:
        """Wait until every admitted request is answered."""
        while self._open or self._background:
            self._emptied.clear()
            await self._emptied.wait()

    async def close(self) -> None:
        """Answer what is open, then release the predictor."""
        await self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.explainer is not None:
            await self.explainer.close()
        await self.predictor.close()

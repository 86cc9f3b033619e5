"""Columns on the governed path: requests that wait together share one call of the predictor and one journal record.

Each gets its answer only after that record.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from governed_serving.archive.errors import ArchiveError
from governed_serving.artefact import TOKENS_READ
from governed_serving.containment import is_own_cancellation
from governed_serving.crypto import CryptoError, Subjects
from governed_serving.hosting.logs import log
from governed_serving.server.batch import Batch, BatchPlan, PendingRequest
from governed_serving.server.errors import (
    JournalUnavailable,
    PredictionFailed,
    PromiseUnavailable,
    ServerError,
    Unavailable,
)
from governed_serving.server.explanation import Accepted, Column, Explained, Question
from governed_serving.server.lane import ComputeLane
from governed_serving.server.messages import ExplainRequest, InferRequest, InferResponse
from governed_serving.server.pipeline import NOT_RECORDED, Pipeline, Recorded
from governed_serving.server.predictors import Predictor
from governed_serving.server.recording import PredictionRecorder
from governed_serving.server.request_batch import RequestBatch

__all__ = ["DataPlane"]

MAX_BATCH_ROWS = 1024
"""Rows of requests that share one call; larger requests go alone."""
MAX_BATCH_REQUESTS = 256
"""Requests that share one call, where the spec bounds them no lower."""
QUICK_SECONDS = 0.002
"""A batch that computes faster than a disk writes: computing the next one meanwhile would only make batches smaller."""


class DataPlane:
    """Serves one model. Lives on one event loop. ``masked``: inputs to mask, none for all texts. Raises ValueError for
    those that are none. ``about``: the input that says whom a request is about, and their keys; ``audited``: attributes
    by which decisions are audited, which a known caller may bring."""

    def __init__(
        self,
        pipeline: Pipeline,
        predictor: Predictor,
        *,
        masked: Sequence[str] = (),
        about: tuple[str, Subjects] | None = None,
        audited: Collection[str] = (),
    ) -> None:
        self.pipeline, self.predictor, self.signature = pipeline, predictor, predictor.signature
        self.identity, self.admission, self.metrics = pipeline.identity, pipeline.admission, pipeline.metrics
        recorder = PredictionRecorder(predictor.signature, pipeline.identity) if pipeline.journalled else None
        masking, about = pipeline.masking, about if recorder else None
        self._plan = BatchPlan(predictor.signature, masking, recorder, tuple(masked), about, audited=audited)
        concurrency = pipeline.rules.concurrency
        slots = predictor.slots if predictor.merges or not concurrency else min(predictor.slots, concurrency)
        together = (concurrency or MAX_BATCH_REQUESTS) if predictor.merges else 1
        self._lane = ComputeLane(
            self._compute, slots=slots, max_requests=together, max_rows=MAX_BATCH_ROWS, backlog=pipeline.backlog
        )
        outputs = [spec.name for spec in predictor.signature.outputs]
        self._tokens = outputs.index(TOKENS_READ) if predictor.signature.text is not None else None
        self._batch = RequestBatch if predictor.signature.whole else Batch
        self._counts_tokens = pipeline.counts_tokens(None)
        pipeline.watch_deadline(self._answer)
        self.metrics.gauges["requests_waiting"] = ("Waiting for the predictor.", lambda: float(self._lane.waiting))

    def submit(
        self, request: InferRequest, done: Callable[[InferResponse | ServerError], None], *, keep_masked: bool = False
    ) -> None:
        """Admit ``request`` and call ``done`` once, on the event loop, with its answer or error. Raises what refuses it
        at once."""
        pipeline = self.pipeline
        pipeline.check_wait()
        if request.promise:
            pipeline.check_promise()
        request.id = pipeline.new_id()
        caller, counted = request.caller, self._counts_tokens
        if caller is not None:
            counted = pipeline.counts_tokens(caller)
            if caller.attributes:
                self._plan.impose(request, caller.attributes)
        item = PendingRequest(request, done, self._plan.tokens(request) if counted else 0, keep_masked)
        if pipeline.immediate:
            pipeline.admit(item)
            self._lane.put(item)
        else:
            pipeline.spawn(self._submit_later(item))

    async def _submit_later(self, item: PendingRequest) -> None:
        try:
            await self.pipeline.admit_shared(item)
        except ServerError as error:
            item.done(error)
        except BaseException as error:  # of any kind: who waits is told
            item.done(self._unexpected(error))
            if is_own_cancellation(error):
                raise
        else:
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

    async def explain(self, request: ExplainRequest) -> Explained | Accepted:
        """The explanation of ``request``'s answer, which is predicted and journalled first. Raises ServerError."""
        explainer = self.pipeline.explaining()
        response = await self.infer(request.infer, keep_masked=True)
        columns = [
            Column(spec.name, [request.infer.rows, *spec.shape], spec.dtype, values)
            for spec, values in zip(self.signature.inputs, response.masked, strict=True)
        ]
        return await explainer.explain(Question(response.id, columns, request.options), later=request.later)

    async def _compute(self, items: list[PendingRequest]) -> None:
        """Whatever is raised on the way, each of ``items`` is answered, and the lane goes on."""
        try:
            await self._computed(items)
        except BaseException as error:
            self._abandon(items, error)
            if is_own_cancellation(error):
                raise

    async def _computed(self, items: list[PendingRequest]) -> None:
        items = [item for item in items if not item.over]
        if not items:
            return
        pipeline = self.pipeline
        started = pipeline.clock()
        batch = self._batch(self._plan, items)
        try:
            await self.predictor.predict(batch.columns, batch.finish, batch.size)
        except BaseException as error:  # a library in Rust panics, a model's code may call sys.exit
            if is_own_cancellation(error):
                raise
            await self._failed(items, error)
            return
        seconds = pipeline.clock() - started
        self.metrics.predict_seconds.observe(seconds)
        self.metrics.batch_requests.observe(len(items))
        batch.seconds = seconds
        pipeline.count_masking_failures()
        if self._tokens is not None and not await self._settled(batch, self._tokens):
            return
        if not batch.keep_open():
            return
        if not pipeline.journalled:
            self._reply(batch, NOT_RECORDED)
        elif seconds < QUICK_SECONDS:  # what arrives while this is being written shares the next call and record
            await self._record(batch)
        else:  # the next batch computes while this one is being written
            pipeline.spawn(self._record(batch))

    async def _settled(self, batch: Batch, output: int) -> bool:
        """Count the tokens that a tokenizer found, in place of the words that requests were admitted with; False where
        that can't be counted, and nobody is answered."""
        try:
            for item, tokens in batch.used(output):
                item.used = tokens
                await self.pipeline.settle(item, tokens)
        except ServerError as error:
            for item in batch.items:
                self._answer(item, error)
            return False
        return True

    async def _failed(self, items: list[PendingRequest], error: BaseException) -> None:
        """Among several requests only the guilty one fails: the others are computed alone."""
        self.pipeline.count_masking_failures()
        if len(items) > 1:
            for item in items:
                await self._compute([item])
            return
        if not isinstance(error, ServerError):
            log("error", "prediction failed unexpectedly", exception=error)
            error = PredictionFailed(
                f"model: expected an answer, found {type(error.__cause__ or error).__name__}; the server's log has the "
                "details"
            )
        for item in items:
            self._answer(item, error)

    def _unexpected(self, error: BaseException) -> Unavailable:
        log("error", "answering failed unexpectedly", exception=error)
        return Unavailable(
            f"server: expected to answer, found {type(error).__name__}; the server's log has the details; retry"
        )

    def _abandon(self, items: list[PendingRequest], error: BaseException) -> None:
        if left := [item for item in items if not item.over]:
            answer = self._unexpected(error)
            for item in left:
                self._answer(item, answer)

    async def _record(self, batch: Batch) -> None:
        try:
            await self._recorded(batch)
        except BaseException as error:
            self._abandon(batch.items, error)
            if is_own_cancellation(error):
                raise

    async def _recorded(self, batch: Batch) -> None:
        try:
            if self._plan.subjects is None:
                recorded = await self.pipeline.record(batch.frame(), len(batch.items), batch.promised())
            else:
                recorded = await self._record_sealed(batch)
        except JournalUnavailable as error:
            for item in batch.items:
                self._answer(item, error)
        else:
            self._reply(batch, recorded)

    async def _record_sealed(self, batch: Batch) -> Recorded:
        """Keys of persons who are new come from the archive: without it there is no record. Raises
        JournalUnavailable."""
        try:
            frames = await asyncio.to_thread(batch.sealed_frames)
        except (ArchiveError, CryptoError) as error:
            raise JournalUnavailable(
                f"journal: expected the key of the person whom the request is about, found: {error}; not answered"
            ) from error
        promised = batch.promised()
        all_ = await asyncio.gather(*(self.pipeline.record(*frame, promised) for frame in frames))
        ledger = all_[0].ledger if all(sealed.ledger for sealed in all_) else ""
        return Recorded(ledger, {id: given for sealed in all_ for id, given in sealed.promises.items()})

    def _reply(self, batch: Batch, recorded: Recorded) -> None:
        self.metrics.count["base_decisions"] += batch.base_decisions()
        for item, response in batch.responses(recorded.ledger):
            answer: InferResponse | ServerError = response
            if item.request.promise:
                try:
                    response.promise = recorded.promise(response.id)
                except PromiseUnavailable as error:
                    answer = error
            elif recorded.promises:
                response.promise = recorded.promises.get(response.id, "")
            self._answer(item, answer)

    def _answer(self, item: PendingRequest, answer: InferResponse | ServerError) -> None:
        pipeline = self.pipeline
        if not pipeline.leave(item):
            return
        self.metrics.seconds.observe(pipeline.clock() - item.since)
        if not isinstance(answer, ServerError):
            self.metrics.count["request_rows"] += item.rows
        item.done(answer)

    async def warm_up(self) -> None:
        """One prediction past admission and journal. Raises PredictionFailed, UpstreamFailed."""
        await self.predictor.warm_up()

    async def drain(self) -> None:
        """Wait until every admitted request is answered."""
        await self.pipeline.drain()

    async def close(self) -> None:
        """Answer what is open, then release the predictor."""
        await self.pipeline.close()
        await self.predictor.close()

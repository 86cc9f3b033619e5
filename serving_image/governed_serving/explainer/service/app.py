"""Routes of the explainer: they translate, the engine decides."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI, Request, Response

from governed_api import routes
from governed_serving.blackbox.errors import (
    BudgetExhausted,
    ExplainerError,
    ModelMisbehaved,
    NotExplainable,
    PredictorAway,
)
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.jobs import JobQueue, status
from governed_serving.explainer.service.lanes import Busy, Lane
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.overview import Overall, overview
from governed_serving.explainer.service.protocol import Answer, ExplainRequest, parse
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.explainer.service.webhooks import allowed
from governed_serving.hosting.answers import JSON, add_probes, problem
from governed_serving.hosting.bodies import BodyLimit, read_body
from governed_serving.hosting.documented import documented
from governed_serving.journal import JournalError

__all__ = ["MAX_BODY", "Explanations", "application", "status_of"]

MAX_BODY = 8 << 20
"""Bytes of one request."""


def status_of(error: Exception) -> int:
    """HTTP status of a domain error; the journal's and the disk's failures are 503: nothing unrecorded goes out."""
    table: tuple[tuple[type[Exception], int], ...] = (
        (NotExplainable, 400),
        (Busy, 503),
        (BudgetExhausted, 504),
        (PredictorAway, 503),
        (ModelMisbehaved, 502),
    )
    return next((code for kind, code in table if isinstance(error, kind)), 503)


class Explanations:
    """Transport-free: explain now, explain later, and what both leave in the journal."""

    def __init__(
        self,
        engine: Engine,
        recorder: ExplanationRecorder,
        metrics: ExplainerMetrics,
        lane: Lane,
        *,
        observe: Callable[[Answer], Awaitable[None]] | None = None,
        overall: Overall | None = None,
    ) -> None:
        self.engine, self._recorder, self.metrics, self._lane = engine, recorder, metrics, lane
        self._observe, self._overall = observe, overall
        self._once = asyncio.Lock()
        self._overview: bytes | None = None

    async def explain(self, body: bytes, fallback_id: str, lane: Lane | None = None) -> bytes:
        """The answer's bytes, which the journal holds by then. Raises ExplainerError and the journal's errors."""
        request = parse(body, self.engine.model.features, fallback_id)
        return await self.compute(request, lane)

    async def overview(self, lane: Lane) -> bytes:
        """Global explanations, computed once per process and recorded; two who ask at once get one computation."""
        async with self._once:
            if self._overview is None:
                answer = await lane.run(lambda: overview(self.engine, self._overall))
                encoded = msgspec.json.encode(answer)
                await self._recorder.record(answer["id"], encoded)
                self._overview = encoded
            return self._overview

    async def compute(self, request: ExplainRequest, lane: Lane | None = None) -> bytes:
        """As :meth:`explain`, for a request that is parsed already."""
        started = time.perf_counter()
        answer = await (lane or self._lane).run(lambda: self.engine.explain(request))
        encoded = msgspec.json.encode(answer)
        await self._recorder.record(request.id, encoded)
        self.metrics.answered(
            str(answer["parameters"]["method"]), 200, time.perf_counter() - started, answer["evaluations"]
        )
        if self._observe is not None:
            await self._observe(answer)
        return encoded


@dataclass(frozen=True)
class Dependencies:
    """What the routes ask. ``slow`` computes what may take long; ``webhooks`` are the allowed URL prefixes."""

    explanations: Explanations
    jobs: JobQueue
    not_ready: Callable[[], str]
    """Why the service isn't ready, or nothing."""
    slow: Lane
    webhooks: tuple[str, ...] = ()
    importances: Callable[[], Mapping[str, object]] = dict
    """Global importances and their drift, JSON-ready."""
    quality: Callable[[], Mapping[str, object]] = dict
    """Quality of explanations by window, JSON-ready."""
    access_metrics: Callable[[], bytes] = bytes
    """What is counted of callers, where it is asked who they are."""


def application(parts: Dependencies) -> FastAPI:
    """All routes."""
    explanations, jobs = parts.explanations, parts.jobs
    app = documented("Governed Models explainer", "1")
    _explain_routes(app, explanations, parts.slow)
    _report_routes(app, explanations, {routes.IMPORTANCES: parts.importances, routes.QUALITY: parts.quality})
    _job_routes(app, explanations, jobs, parts.webhooks)

    async def scraped(_: bool) -> bytes:
        explanations.metrics.queue.set(jobs.depth)
        return explanations.metrics.text() + parts.access_metrics()

    add_probes(app, scraped, parts.not_ready)
    return app


async def _guarded(explanations: Explanations, model: str, work: Callable[[], Awaitable[Response]]) -> Response:
    """The work's response, or the domain error's status and text."""
    try:
        served = explanations.engine.model.manifest.name
        if model != served:
            raise NotExplainable(f"expected model {served!r}, found {model!r}")
        return await work()
    except (ExplainerError, JournalError, OSError) as error:
        code = status_of(error)
        explanations.metrics.refused(code)
        return problem(code, str(error))


def _explain_routes(app: FastAPI, explanations: Explanations, slow: Lane) -> None:
    @app.post(routes.EXPLAIN)
    async def explain(model: str, request: Request) -> Response:
        async def work() -> Response:
            answer = await explanations.explain(await _body(request), _id_of(request))
            return Response(answer, media_type=JSON)

        return await _guarded(explanations, model, work)

    @app.get(routes.OVERVIEW)
    async def whole(model: str) -> Response:
        async def work() -> Response:
            return Response(await explanations.overview(slow), media_type=JSON)

        return await _guarded(explanations, model, work)


def _report_routes(
    app: FastAPI, explanations: Explanations, reports: Mapping[str, Callable[[], Mapping[str, object]]]
) -> None:
    """Global importances, and quality by window, over the explanations given; by path."""
    by_name = {path.rpartition("/")[2]: read for path, read in reports.items()}

    async def report(model: str, request: Request) -> Response:
        async def work() -> Response:
            read = by_name[request.url.path.rpartition("/")[2]]
            return Response(msgspec.json.encode(read()), media_type=JSON)

        return await _guarded(explanations, model, work)

    for path in reports:
        app.get(path)(report)


def _job_routes(app: FastAPI, explanations: Explanations, jobs: JobQueue, webhooks: tuple[str, ...]) -> None:
    @app.post(routes.EXPLANATIONS)
    async def submit(model: str, request: Request) -> Response:
        async def work() -> Response:
            body = await _body(request)
            parsed = parse(body, explanations.engine.model.features, _id_of(request))
            job = jobs.submit(parsed.id, body, allowed(parsed.parameters.webhook, webhooks))
            location = routes.EXPLANATION.format(model=model, ticket=job.id)
            answer = msgspec.json.encode({"id": job.id, "status": job.status, "location": location})
            return Response(answer, 202, {"location": location}, JSON)

        return await _guarded(explanations, model, work)

    @app.get(routes.EXPLANATION)
    async def lookup(model: str, ticket: str) -> Response:
        async def work() -> Response:
            job = jobs.get(ticket)
            if job is None:
                return problem(
                    404, f"no explanation {ticket!r} here; finished ones are kept for a while, the ledger keeps all"
                )
            return Response(status(job), media_type=JSON)

        return await _guarded(explanations, model, work)


def _id_of(request: Request) -> str:
    """The id that a body without one gets: the caller's header, else a new one."""
    return request.headers.get("x-request-id") or str(uuid.uuid4())


async def _body(request: Request) -> bytes:
    def too_long(_: int) -> NotExplainable:
        return NotExplainable(f"body: expected at most {MAX_BODY} bytes, found more; send fewer rows at a time")

    return await read_body(request.receive, BodyLimit(MAX_BODY, too_long), NotExplainable)

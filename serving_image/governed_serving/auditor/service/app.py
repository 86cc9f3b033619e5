"""Routes of the auditor: they translate, workers and journal decide."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI, Request, Response

from governed_api import routes
from governed_api.verdict import wire
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.auditor.service import reviews
from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.contests import OpenContest, read_contests
from governed_serving.auditor.service.decision_review import DecisionReview
from governed_serving.auditor.service.decisions import Decisions
from governed_serving.auditor.service.errors import (
    AuditorError,
    Contradicting,
    Decided,
    Forbidden,
    NotFound,
    Unavailable,
    Unknown,
    Unusable,
)
from governed_serving.auditor.service.label_door import parse_labels
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.persons import Persons
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.crypto import CryptoError, Subjects
from governed_serving.fairness.counts.truth import PostedLabel
from governed_serving.hosting.answers import add_probes, json_answer, problem
from governed_serving.hosting.bodies import BodyLimit, read_body
from governed_serving.hosting.documented import documented
from governed_serving.journal import Journal, JournalError
from governed_serving.records import EventRecord

__all__ = ["MAX_BODY", "Dependencies", "application"]

MAX_BODY = 4 << 20


def status_of(error: Exception) -> int:
    """HTTP status of a domain error."""
    if isinstance(error, Unusable):
        return 400
    statuses = {Unknown: 401, Forbidden: 403, NotFound: 404, Decided: 409, Contradicting: 409}
    return statuses.get(type(error), 503)


@dataclass(frozen=True)
class Dependencies:
    """What the routes ask. ``checks`` None: nothing is watched beside the verdict; ``archive`` None: no record can be
    looked up."""

    state: AuditState
    journal: Journal
    metrics: AuditorMetrics
    not_ready: Callable[[], str]
    """Why the service isn't ready, or nothing."""
    degraded: Callable[[], Mapping[str, str]]
    """Worker that fails without making the service not ready → why."""
    refresh: Callable[[], None]
    """Brings ``metrics`` up to date."""
    checks: Checks | None = None
    archive: ArchiveClient | None = None
    decision_review: DecisionReview | None = None
    persons: Persons | None = None
    """Who may decide what was contested; None: nobody."""
    contest_seconds: int = 30 * 86_400
    """Until when it is to be decided."""
    decisions: Decisions | None = None
    subjects: Subjects | None = None
    """Keys of the persons whom requests are about."""
    access_metrics: Callable[[], bytes] = bytes
    """What is counted of callers, where it is asked who they are."""


def _application() -> FastAPI:
    """Without routes; domain errors become their statuses."""
    app = documented("Governed Models auditor", "1")

    for kind in (AuditorError, JournalError, ArchiveError, CryptoError):
        app.add_exception_handler(kind, told)
    return app


def application(parts: Dependencies) -> FastAPI:
    """All routes."""
    state, journal, subject = parts.state, parts.journal, parts.state.subject
    app = _application()

    @app.get(routes.VERDICT)
    async def verdict() -> Response:
        return json_answer(wire(state.verdict))

    @app.get(routes.GROUPS)
    async def groups() -> Response:
        content = wire(state.verdict)
        return json_answer({k: content.get(k, {}) for k in ("groups", "strata", "intersections", "samples")})

    @app.get(routes.FINDINGS)
    async def findings() -> Response:
        return json_answer(parts.checks.report() if parts.checks else {})

    @app.post(routes.LABELS)
    async def labels(request: Request) -> Response:
        if state.tail is None:
            raise NotFound("this model has no spec.governance.bias: labels aren't used")
        unchecked = parse_labels(await body_of(request))
        accepted = await asyncio.to_thread(state.admit_labels, unchecked)
        now = time.time()
        try:
            await asyncio.gather(*(journal.append(_event(subject, event, now)) for event in accepted))
        except BaseException:
            await asyncio.to_thread(state.forget_labels, accepted)
            raise
        return json_answer({"accepted": len(unchecked), "repeated": len(unchecked) - len(accepted)}, 202)

    @app.post(routes.ACKNOWLEDGEMENTS)
    async def acknowledge(request: Request) -> Response:
        await journal.append(reviews.acknowledgement(state, await body_of(request), time.time()))
        return json_answer({"recorded": True}, 202)

    _add_review_routes(app, parts)

    async def scraped(stranger: bool) -> bytes:
        await asyncio.to_thread(parts.refresh)
        return parts.metrics.text(of_data=not stranger) + parts.access_metrics()

    add_probes(app, scraped, parts.not_ready, parts.degraded)
    return app


def _add_review_routes(app: FastAPI, parts: Dependencies) -> None:
    """A single decision: contested by anyone, decided by who may."""
    reviewing = reviews.Reviewing(
        parts.state.subject, parts.archive, parts.decision_review, parts.contest_seconds, parts.subjects
    )

    @app.post(routes.REVIEWS)
    async def contest(request: Request) -> Response:
        event, review = await asyncio.to_thread(reviews.contest, reviewing, await body_of(request), time.time())
        await parts.journal.append(event)
        return json_answer(review, 202)

    @app.get(routes.REVIEW)
    async def review(request_id: str) -> Response:
        return json_answer(await asyncio.to_thread(reviews.record_of, parts.archive, request_id))

    @app.get(routes.REVIEWS)
    async def contests() -> Response:
        if parts.archive is None:
            raise Unavailable("no archive is configured: which decisions are contested can't be looked up")
        contests = await asyncio.to_thread(read_contests, parts.archive, parts.contest_seconds)
        now = time.time()
        return json_answer({"open": [_shown(contest, now) for contest in contests]})

    @app.post(routes.DECISION)
    async def decide(request: Request, request_id: str) -> Response:
        body = await body_of(request)
        if parts.persons is None or parts.decisions is None:
            raise Unavailable("no archive is configured: nobody can tell who may decide")
        await asyncio.to_thread(parts.persons.check, request.headers.get("authorization", ""))
        recorded = await asyncio.to_thread(parts.decisions.decide, request_id, body, time.time())
        return json_answer({"recorded": True, **recorded}, 202)


def _shown(contest: OpenContest, now: float) -> dict[str, object]:
    times = {"time": contest.time, "deadline": contest.deadline, "overdue": contest.overdue(now)}
    return {"id": contest.id, "ledgerIndex": contest.entry, **times}


async def told(_: Request, error: Exception) -> Response:
    if isinstance(error, Contradicting):
        return json_answer({"error": str(error), "contradicting": error.requests}, status_of(error))
    if isinstance(error, Decided):
        return json_answer({"error": str(error), "decision": error.record}, status_of(error))
    return problem(status_of(error), str(error))


async def body_of(request: Request) -> bytes:
    """The body, at most MAX_BODY bytes. Raises Unusable."""

    def too_long(_: int) -> Unusable:
        return Unusable(f"body: expected at most {MAX_BODY} bytes, found more; send fewer labels at a time")

    return await read_body(request.receive, BodyLimit(MAX_BODY, too_long), Unusable)


def _event(subject: Subject, label: PostedLabel, now: float) -> EventRecord:
    summary = {"correct": True} if label.correct else {}
    body = msgspec.json.encode(label)
    return EventRecord("label", label.id or str(uuid.uuid4()), subject.model, subject.revision, now, body, summary)

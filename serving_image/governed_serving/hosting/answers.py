"""Answers that all our HTTP services give alike: JSON, an error in words, probes and metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from governed_api import routes

if TYPE_CHECKING:
    from fastapi import FastAPI  # the archive tells its errors in this form and does without FastAPI

__all__ = [
    "JSON",
    "METRICS",
    "STRANGER",
    "add_probes",
    "error_body",
    "json_answer",
    "openai_error",
    "problem",
    "shortened",
]

JSON = "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""
LONGEST_MESSAGE = 2000
"""Characters of an error that a client is told: what it quotes of a request may be of any length."""
_CODES = {404: "model_not_found", 429: "rate_limit_exceeded"}
STRANGER = "governed.stranger"
"""In an ASGI scope, true: a process of the same pod that isn't ours asks. It is told nothing of data."""


def json_answer(body: object, status: int = 200) -> Response:
    """``body`` as msgspec encodes it."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)


def shortened(message: str) -> str:
    """An error in words, as far as it is told."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[:LONGEST_MESSAGE]}… ({len(message)} characters)"


def openai_error(message: str, status: int, code: str | None = None) -> bytes:
    """OpenAI's error object; ``code``: its word for what its clients tell apart."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"message": shortened(message), "type": kind, "param": None, "code": code or _CODES.get(status)}
    return msgspec.json.encode({"error": error})


def error_body(message: str, status: int, path: str = "", code: str | None = None) -> bytes:
    """The body that tells an error to a request for ``path``: V2's and V1's form, or :func:`openai_error`."""
    if path in routes.OPENAI:
        return openai_error(message, status, code)
    return msgspec.json.encode({"error": shortened(message)})


def problem(status: int, message: str, path: str = "") -> Response:
    """An error as every route of ours tells it; 503 asks to come again in a second."""
    headers = {"retry-after": "1"} if status == 503 else {}
    return Response(error_body(message, status, path), status, headers, JSON)


def add_probes(
    app: "FastAPI",
    metrics: Callable[[bool], Awaitable[bytes]],
    not_ready: Callable[[], str],
    degraded: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Liveness, readiness and metrics.

    ``not_ready()`` says why the service isn't ready, or nothing; it may ask a disk, so it is called in a thread.
    ``degraded()`` says what fails without making it so → why. ``metrics(stranger)`` gives the text, to a stranger that
    without data.
    """

    @app.get(routes.LIVE_PATH)
    async def live() -> Response:
        return json_answer({"live": True})

    @app.get(routes.READY_PATH)
    async def readiness(request: Request) -> Response:
        stranger = request.scope.get(STRANGER, False)
        if why := await asyncio.to_thread(not_ready):
            return problem(503, "not ready; who shows this port's token is told why" if stranger else why)
        failing = {} if stranger else degraded()
        return json_answer({"ready": True, "degraded": failing} if failing else {"ready": True})

    @app.get(routes.METRICS_PATH)
    async def scrape(request: Request) -> Response:
        return Response(await metrics(request.scope.get(STRANGER, False)), media_type=METRICS)

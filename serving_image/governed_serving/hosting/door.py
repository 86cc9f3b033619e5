"""What every ASGI application of ours stands behind: bodies unpacked within bounds, and an answer whatever happens.

:class:`Door` takes gzip and deflate (RFC 9110, 8.4.1) off request bodies piece by piece, so that whoever counts bytes
counts what comes out; other codings are 415. An exception that an application lets through is a bug of ours: it is
logged once with its traceback, counted, and answered with 500 in the form of the routes' other errors.
"""

import zlib
from collections.abc import Callable
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from governed_api import routes
from governed_serving.hosting.answers import problem
from governed_serving.hosting.logs import log

__all__ = ["BadBody", "Door", "DoorGuard", "exception_handlers", "unexpected"]

PIECE = 256 * 1024
"""Bytes that are unpacked at a time."""
EMPTY = 64 * 1024
"""Bytes of a packed body that may unpack to nothing: nobody else counts them."""
CODINGS = ("gzip", "x-gzip", "deflate")


class BadBody(Exception):
    """A body that can't be read: ``status`` 400 or 415."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unexpected(error: Exception) -> str:
    """What a client is told about a bug of ours."""
    return f"server: expected to answer, found {type(error).__name__}; its log has the details"


def exception_handlers() -> dict[Any, Any]:
    """For a Starlette or FastAPI application behind a Door, which would otherwise answer with a text of its own."""

    async def bad_body(_: Request, error: Exception) -> Response:
        assert isinstance(error, BadBody)
        return problem(error.status, str(error))

    async def bug(_: Request, error: Exception) -> Response:
        return problem(500, unexpected(error))

    return {BadBody: bad_body, Exception: bug}


class DoorGuard(Protocol):
    """Judges a request by its head."""

    async def refusal(self, scope: Scope) -> Response | None:
        """The answer that turns it away; None: it may go on."""


class Door:
    """``app`` behind it. ``count`` is called once for each exception that ``app`` lets through.

    ``most`` requests are under way at a time, more are 503 but for liveness; connections without one don't count.
    ``guard`` turns away who may not ask the port, before a byte of the body is read.
    HEAD is answered like GET (RFC 9110, 9.3.2), without the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        count: Callable[[], None] = lambda: None,
        most: int | None = None,
        guard: DoorGuard | None = None,
    ) -> None:
        self._behind, self._count_bug, self._guard = app, count, guard
        self._most, self._open = most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        if self._guard is not None and (refusal := await self._guard.refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        if self._most is not None and self._open >= self._most and scope["path"] != routes.LIVE_PATH:
            busy = f"server: expected at most {self._most} requests at a time, found more; retry later"
            await problem(503, busy, scope["path"])(scope, receive, send)
            return
        self._open += 1
        try:
            await self._let_through(scope, receive, send)
        finally:
            self._open -= 1

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, head = False, scope.get("method") == "HEAD"

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            if head and "body" in message:
                message["body"] = b""
            await send(message)

        if head:
            scope = {**scope, "method": "GET"}
        try:
            scope, receive = _unpacked(scope, receive)
            await self._behind(scope, receive, noted)
        except BadBody as error:
            if started:
                raise
            await problem(error.status, str(error), scope["path"])(scope, receive, send)
        except ClientDisconnect:
            log("info", "a client left before its request had arrived")
        except Exception as error:
            log("error", "a request failed unexpectedly", exception=error, path=scope["path"])
            self._count_bug()
            if not started:
                await problem(500, unexpected(error), scope["path"])(scope, receive, send)


def _unpacked(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request without Content-Encoding. Raises BadBody for a coding that isn't taken."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    codings = [value.decode("latin-1").strip().lower() for name, value in headers if name == b"content-encoding"]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return scope, receive
    if len(codings) > 1 or codings[0] not in CODINGS:
        listed = ", ".join(codings)[:80]
        raise BadBody(415, f"Content-Encoding: expected gzip, deflate or identity, found {listed!r}; send the body so")
    kept = [(name, value) for name, value in headers if name not in (b"content-encoding", b"content-length")]
    return {**scope, "headers": kept}, _Inflating(receive, codings[0])


class _Inflating:
    """A body's messages, unpacked; never more than PIECE bytes ahead of who reads them."""

    def __init__(self, receive: Receive, coding: str) -> None:
        self._receive, self._coding = receive, coding
        self._inflater: Any = None
        self._packed, self._more, self._ended = b"", True, False
        self._came = self._made = 0

    async def __call__(self) -> Message:
        if self._ended:  # who listens for the client's leaving must wait for it
            return await self._receive()
        while self._more and not self._packed:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._packed, self._more = message.get("body", b""), message.get("more_body", False)
            self._came += len(self._packed)
        try:
            body = self._unpack()
        except zlib.error as error:
            raise BadBody(400, f"request body: expected {self._coding}, found: {error}") from error
        self._ended = not self._more and not self._packed and (self._inflater is None or self._inflater.eof)
        return {"type": "http.request", "body": body, "more_body": not self._ended}

    def _unpack(self) -> bytes:
        if self._inflater is None:
            if not self._packed:
                return b""
            zlib_header = self._packed[0] & 0x0F == 8  # some send deflate without it
            self._inflater = zlib.decompressobj(31 if "gzip" in self._coding else 15 if zlib_header else -15)
        if self._inflater.eof and not self._packed:
            return b""
        if self._inflater.eof:
            raise BadBody(400, f"request body: expected its end with that of its {self._coding}, found more bytes")
        body: bytes = self._inflater.decompress(self._packed, PIECE)
        self._packed = self._inflater.unconsumed_tail or self._inflater.unused_data
        self._made += len(body)
        if self._came - len(self._packed) - self._made > EMPTY + self._made // 64:
            raise BadBody(400, f"request body: expected {self._coding} of a body, found one larger than what it packs")
        if not body and not self._packed and not self._more and not self._inflater.eof:
            raise BadBody(400, f"request body: expected the end of its {self._coding}, found it cut")
        return body

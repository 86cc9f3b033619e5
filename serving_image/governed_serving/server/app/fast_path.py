"""The ASGI application: POST …/infer answered here, everything else by FastAPI.

The hot route costs one dictionary lookup; what it answers is the same function that FastAPI documents and calls for it.
"""

from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from governed_api import routes
from governed_api.route_roles import SERVER_ROLES
from governed_serving.access.guard import CALLER, CallerGuard
from governed_serving.hosting.bodies import CUT, read_body
from governed_serving.hosting.door import Door
from governed_serving.hosting.http_head import Head
from governed_serving.server.app.service import Gateway, HttpReply, failure
from governed_serving.server.errors import BodyTooLarge, InvalidRequest, NoRoom, ServerError
from governed_serving.server.promises import HEADER as PROMISE
from governed_serving.server.promises import wants_promise
from governed_serving.server.protocol.shapes import identity

__all__ = ["Asked", "BodyRoom", "FastPathApp", "body_header", "check_length", "too_long"]


class BodyRoom:
    """Bytes of request bodies held at a time, over all connections. ``limit`` bounds the process's memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Raises NoRoom, and then nothing is taken."""
        if self.held + size > self.limit:
            raise NoRoom(
                f"server: expected room for {size} bytes of request body, found {self.held} of {self.limit} in "
                "use; retry in a moment"
            )
        self.held += size

    def give(self, size: int) -> None:
        """The body is answered."""
        self.held -= size


class FastPathApp(Door):
    """Wraps ``rest``. ``max_body`` in bytes holds for every route; four such bodies may be held at a time, in all.
    Where ``gateway`` has a gate, it says who may call."""

    def __init__(self, gateway: Gateway, rest: ASGIApp, max_body: int) -> None:
        self.gateway, self.max_body = gateway, max_body
        self.room = BodyRoom(4 * max_body)
        self.path = routes.INFER.format(model=gateway.model)
        self.heads: dict[bytes, Head] = {}
        self._rest = rest
        guard = CallerGuard(gateway.gate, SERVER_ROLES) if gateway.gate is not None else None
        super().__init__(self._routed, self._count, guard=guard)

    def _count(self) -> None:
        if self.gateway.metrics is not None:
            self.gateway.metrics.requests["unexpected", 500] += 1

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
        elif scope["path"] == self.path and scope["method"] == "POST":
            await self._infer(scope, receive, send)
        else:
            await self._other(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Held(self)
        try:
            asked = body_header(scope["headers"])
            check_length(asked.length, self.max_body)
            service = self.gateway.serving()
            body = await read_body(receive, held.add, InvalidRequest)
            caller = scope.get(CALLER)
            reply = await service.infer(body, asked.header, asked.request_id, promise=asked.promise, caller=caller)
        except ServerError as error:
            reply = failure(error)
        finally:
            held.release()
        await respond(send, reply)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI's routes read bodies themselves: count what passes."""
        held, more = _Held(self), True

        async def counted() -> Message:
            nonlocal more
            message = await receive()
            if more and message["type"] == "http.disconnect":
                raise InvalidRequest(CUT)
            more = message.get("more_body", False)
            held.add(len(message.get("body", b"")))
            return message

        try:
            check_length(body_header(scope["headers"]).length, self.max_body)
        except ServerError as error:
            await respond(send, failure(error))
            return
        try:
            await self._rest(scope, counted, send)
        finally:
            held.release()


class _Held:
    """What one request holds of the room."""

    def __init__(self, app: FastPathApp) -> None:
        self._app, self._size = app, 0

    def add(self, size: int) -> None:
        """Raises BodyTooLarge, Unavailable."""
        check_length(self._size + size, self._app.max_body)
        self._app.room.take(size)
        self._size += size

    def release(self) -> None:
        self._app.room.give(self._size)
        self._size = 0


class Asked(NamedTuple):
    """What a request's headers say: Content-Length or 0, Inference-Header-Content-Length or None, X-Request-Id or
    "", whether X-Governed-Promise asks for one."""

    length: int
    header: int | None
    request_id: str
    promise: bool = False

    def without_promise(self) -> "Asked":
        """For routes whose answers carry none. Raises InvalidRequest."""
        if self.promise:
            raise InvalidRequest(
                "X-Governed-Promise: expected a route that predicts or completes, found one that explains, whose "
                "answers carry no promise; leave it out, or ask for the prediction by itself"
            )
        return self


def body_header(headers: list[tuple[bytes, bytes]]) -> Asked:
    """What concerns us of ``headers``. Raises InvalidRequest."""
    length, header, request_id, promise = 0, None, "", False
    for name, value in headers:
        if name == b"content-length":
            length = int(value) if value.isdigit() else 0  # the connection has judged it
        elif name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > 15:
                raise InvalidRequest(
                    f"Inference-Header-Content-Length: expected a whole number, found {value[:40].decode('latin-1')!r}"
                )
            header = int(value)
        elif name == b"x-request-id":
            if request_id:
                raise InvalidRequest("X-Request-Id: expected it once, found it more than once")
            if not value.isascii():
                raise InvalidRequest("X-Request-Id: expected ASCII characters, found others; leave them out")
            request_id = identity(value.decode(), "X-Request-Id")
        elif name == PROMISE:
            promise = wants_promise(value)
    return Asked(length, header, request_id, promise)


def check_length(length: int, limit: int) -> None:
    """Raises BodyTooLarge."""
    if length > limit:
        raise too_long(length, limit)


def too_long(length: int, limit: int) -> BodyTooLarge:
    """The error for a body of which ``length`` bytes have come, or are announced."""
    return BodyTooLarge(
        f"request body: expected at most {limit} bytes, found {length} or more; send fewer rows per request"
    )


async def respond(send: Send, reply: HttpReply) -> None:
    """Send a whole answer."""
    headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})

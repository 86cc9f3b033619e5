"""Connections before uvicorn for the one route that must be fast: whole POST …/infer requests, framed strictly,
answered without ASGI.

Anything else about a connection (another route, chunked bodies, Expect, Connection, anything irregular) hands it over
to uvicorn's protocol, within :class:`~governed_serving.hosting.connection.BoundedConnection`, with all bytes that came.
"""

import asyncio
from typing import cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from governed_api.callers import CallerRole
from governed_serving.access.directory import Known
from governed_serving.access.refusals import AccessRefused
from governed_serving.hosting.arrival import BODY_LATE, HEAD_LATE, HEAD_SECONDS, Progress, Unread
from governed_serving.hosting.connection import BoundedConnection, linger, refusal
from governed_serving.hosting.http_head import HEAD_LIMIT, BadHead, Head, parse_head
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.service import HttpReply, failure, turned_away
from governed_serving.server.errors import BodyTooLarge, ServerError

__all__ = ["FastPathConnection"]

_CACHED_HEADS = 512
_CACHED_HEAD = 4096
"""Bytes of one: a token of an issuer takes a kilobyte or two."""
_READ_AHEAD = 256 * 1024
"""Bytes beyond the request being answered that are read before the socket is left alone."""
_STATUS = {200: b"HTTP/1.1 200 OK\r\n"}


class FastPathConnection(asyncio.Protocol):
    """One connection, until it is handed over. Requests are answered one by one, in order.

    For ``uvicorn.Config(http=…)``, over a :class:`FastPathApp`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._uvicorn = (config, server_state, app_state, _loop)
        self._loop = _loop or asyncio.get_running_loop()
        self._app = cast(FastPathApp, config.app)
        self._state, self._keep_alive = server_state, config.timeout_keep_alive
        self._start = b"POST " + self._app.path.encode() + b" HTTP/1.1\r\n"
        self._heads = self._app.heads
        self._gate, self._peer = self._app.gateway.gate, ""
        self._admitted: Known | None = None
        """Whose request it is, of which the body hasn't come as a whole."""
        self._buffer = b""
        self._parts: list[bytes] = []
        """Of a request whose end hasn't come."""
        self._needed = self._have = self._held = 0
        self._busy = self._closing = self._write_paused = self._read_paused = self._cut = False
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._last = self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unread = Unread()
        self._progress = Progress(0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self._state.connections.add(self)  # type: ignore[arg-type]
        if self._gate is not None:
            self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._last = self._loop.time()
        self._timer = self._loop.call_later(min(HEAD_SECONDS, self._keep_alive), self._check_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._state.connections.discard(self)
        self._closing = True
        self._buffer = b""
        self._parts.clear()
        if not self._busy:
            self._release()
        self._unread.end()
        if self._timer is not None:
            self._timer.cancel()

    def eof_received(self) -> bool:
        return self._busy  # a client may close its side and still wait for the answer

    def pause_writing(self) -> None:
        self._write_paused = True
        self._unread.begin(self._loop, self._transport)

    def resume_writing(self) -> None:
        self._write_paused = False
        self._unread.end()
        self._read_on()
        self._next()

    def _read_on(self) -> None:
        if self._read_paused and not self._write_paused and not self._busy:
            self._read_paused = False
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """The server drains: the answer being made, or to the request on its way, is the last."""
        self._closing = True
        if not self._busy and not self._parts and not self._buffer:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._cut:  # of a request that was refused before its end
            return
        if self._parts:
            self._more_of_a_body(data)
            return
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
            self._began = self._loop.time()
        if not (self._busy or self._write_paused):
            self._next()
        elif len(self._buffer) > _READ_AHEAD and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _more_of_a_body(self, data: bytes) -> None:
        """Its room is taken as it comes: what a client only announces holds nothing."""
        self._parts.append(data)
        self._have += len(data)
        if not self._hold(min(self._have, self._needed)) or self._have < self._needed:
            return
        self._buffer = b"".join(self._parts)
        self._parts.clear()
        self._needed = 0
        self._next()

    def _next(self) -> None:
        """Answer the request at the beginning of the buffer, if it is there as a whole."""
        while self._buffer and not (self._busy or self._write_paused):
            buffer = self._buffer
            if not buffer.startswith(self._start):
                if len(buffer) < len(self._start) and self._start.startswith(buffer):
                    return
                self._hand_over()
                return
            end = buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT)
            if end < 0:
                if len(buffer) >= HEAD_LIMIT:
                    self._hand_over()
                return
            head = self._head(buffer[:end])
            if head is None:
                self._hand_over()
                return
            needed, caller = end + 4 + head.length, self._admitted
            self._admitted = None
            if self._gate is not None and caller is None:
                try:
                    caller = self._gate.admit(head.credentials, self._peer, CallerRole.CALL)
                except AccessRefused as refused:
                    self._turn_away(refused, needed)
                    continue
            if head.length > self._app.max_body:
                self._refuse(head.length)
                return
            if len(buffer) < needed:
                self._parts, self._have, self._needed, self._buffer = [buffer], len(buffer), needed, b""
                self._admitted = caller
                self._progress = Progress(self._loop.time())
                self._hold(self._have)
                return
            if not self._hold(needed):
                return
            body = buffer[end + 4 : needed]
            self._buffer = buffer[needed:]
            self._answer(body, head, caller)

    def _head(self, raw: bytes) -> Head | None:
        """None where BoundedConnection must look at it. Clients repeat themselves: a head seen before needs no
        parsing."""
        head: Head | None = self._heads.get(raw)
        if head is None:
            try:
                head = parse_head(raw)
            except BadHead:  # BoundedConnection says so
                return None
            if not head.plain:
                return None
            if len(raw) < _CACHED_HEAD:
                if len(self._heads) >= _CACHED_HEADS:
                    self._heads.clear()
                self._heads[raw] = head
        return head

    def _turn_away(self, refused: AccessRefused, needed: int) -> None:
        """Of a body that hasn't come, nothing more is read."""
        if len(self._buffer) < needed:
            self._closing = self._cut = True
        self._buffer = self._buffer[needed:]
        self._send(turned_away(refused))

    def _answer(self, body: bytes, head: Head, caller: Known | None) -> None:
        self._busy = True
        try:
            service = self._app.gateway.serving()
        except ServerError as error:
            self._send(failure(error))
        else:
            service.submit_infer(body, head.header, self._send, head.request_id, caller=caller)

    def _send(self, reply: HttpReply) -> None:
        self._busy = False
        self._release()
        self._state.total_requests += 1
        self._last = self._loop.time()
        transport = self._transport
        if transport.is_closing():
            return
        status = _STATUS.get(reply.status) or b"HTTP/1.1 %d \r\n" % reply.status
        fields = b"".join([name + b": " + value + b"\r\n" for name, value in reply.headers])
        date = self._state.default_headers
        stamp = b"date: %b\r\n" % date[0][1] if date else b""
        close = b"connection: close\r\n" if self._closing else b""
        transport.write(
            b"%b%b%bcontent-length: %d\r\n%b\r\n%b" % (status, fields, stamp, len(reply.body), close, reply.body)
        )
        if self._cut:
            linger(self._loop, transport)
            return
        if self._closing:
            transport.close()
            return
        self._read_on()
        if self._buffer:
            self._loop.call_soon(self._next)

    def _hold(self, size: int) -> bool:
        """Take room for the ``size`` bytes that came of the request."""
        try:
            self._app.room.take(size - self._held)
        except ServerError as error:  # the rest isn't read, so the connection can't go on
            self._parts.clear()
            self._closing = self._cut = True
            self._send(failure(error))
            return False
        self._held = size
        return True

    def _release(self) -> None:
        self._app.room.give(self._held)
        self._held = 0

    def _refuse(self, length: int) -> None:
        """Too large: the body isn't read, so the connection can't go on."""
        self._closing = self._cut = True
        limit = self._app.max_body
        self._send(
            failure(
                BodyTooLarge(
                    f"request body: expected at most {limit} bytes, found {length}; send fewer rows per request"
                )
            )
        )

    def _hand_over(self) -> None:
        protocol = BoundedConnection(*self._uvicorn)
        data, self._buffer = self._buffer, b""
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._read_paused:
            self._transport.resume_reading()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        if self._closing:
            protocol.leave()
        protocol.data_received(data)

    def _check_idle(self) -> None:
        """Ends the connection of an idle client, and of one whose request comes too slowly."""
        now = self._loop.time()
        if not self._busy and not self._write_paused:
            if self._parts and self._progress.late(now, self._have):
                self._late(BODY_LATE)
                return
            if self._buffer and now - self._began >= HEAD_SECONDS:
                self._late(HEAD_LATE)
                return
            if not self._parts and not self._buffer and now - self._last >= self._keep_alive:
                self._transport.close()
                return
        self._timer = self._loop.call_later(min(HEAD_SECONDS, self._keep_alive), self._check_idle)

    def _late(self, why: str) -> None:
        self._parts.clear()
        self._buffer = b""
        self._closing = self._cut = True
        self._release()
        self._transport.write(refusal(408, why))
        linger(self._loop, self._transport)

"""uvicorn's connection within limits that hold on every route of every process: size and time of a head, time of a
body, framing.

uvicorn bounds neither: a head of any length is collected header by header, and a client that sends a byte now and then
stays for ever. Heads are collected and judged here (:mod:`~governed_serving.hosting.http_head`), then given to
uvicorn's parser one request at a time: the next head waits until the answer before it is complete.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from governed_serving.hosting.arrival import BODY_LATE, HEAD_LATE, HEAD_SECONDS, Progress, Unread
from governed_serving.hosting.http_head import HEAD_LIMIT, BadHead, Head, parse_head, without_upgrade

__all__ = ["BoundedConnection", "linger", "refusal"]

LINGER_SECONDS = 2.0
"""An answer that came before its request's body had ended is given this long to be read, then the connection is
closed."""
DRAINED_BYTES = 1 << 20
"""As much of such a body is read to its end, so that the connection can go on."""
CHECK_SECONDS = 1.0
_READ_AHEAD = 256 * 1024


def linger(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    """End a connection whose client may still be sending: closed at once, a reset could overtake the answer."""
    if transport.is_closing():
        return
    if transport.can_write_eof():
        transport.write_eof()
        loop.call_later(LINGER_SECONDS, transport.close)
    else:
        transport.close()


def refusal(status: int, message: str) -> bytes:
    """A whole answer that closes the connection, in the form of the routes' errors."""
    body = msgspec.json.encode({"error": message})
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


class _AnswerTransport:
    """What uvicorn writes one answer to. Its close leaves an answer that came before its request's end time to be
    read: bytes that nobody has read, in a socket that is closed, would reset the connection under it."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class BoundedConnection(HttpToolsProtocol):
    """One connection. For ``uvicorn.Config(http=…)``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._waiting = bytearray()
        self._part: Literal["head", "body", "chunks", "end"] = "head"
        self._left = self._received = self._delivered = 0
        self._progress = Progress(0.0)
        self._unread = Unread()
        self._arrival: asyncio.TimerHandle | None = None
        self._leaving = False

    def leave(self) -> None:
        """The next answer is the connection's last."""
        self._leaving = True

    def shutdown(self) -> None:
        """The server drains: a request of which something has come is answered, as the connection's last."""
        self.leave()
        if self._answering() or self._part != "head" or not self._waiting:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.transport = _AnswerTransport(self.transport, self._answered_for_good)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def _answered_for_good(self) -> None:
        if self._part in ("body", "chunks"):
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """No more answers; what still comes is dropped, and after LINGER_SECONDS the connection."""
        self._settled()
        self._part = "end"
        self._waiting.clear()
        linger(self.loop, self.transport)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settled()
        self._unread.end()
        self._part = "end"
        self._waiting.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.begin(self.loop, self.transport)

    def resume_writing(self) -> None:
        self._unread.end()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._part == "end":
            return
        self._waiting += data
        if self._part == "head" and self._arrival is None and not self._answering():
            self._arrival = self.loop.call_later(HEAD_SECONDS, self._head_late)
        self._advance()

    def _advance(self) -> None:
        while self._waiting and self._part != "end" and not self.transport.is_closing():
            if self._part == "head":
                if self._answering():
                    if len(self._waiting) > _READ_AHEAD:
                        self.flow.pause_reading()
                    return
                if not self._take_head():
                    return
            else:
                size = len(self._waiting) if self._part == "chunks" else min(self._left, len(self._waiting))
                part = bytes(self._waiting[:size])
                del self._waiting[:size]
                self._left -= size
                self._received += size
                super().data_received(part)
                if self._part == "chunks" and self._received - self._delivered > HEAD_LIMIT + 8 * self._delivered:
                    self._refuse(431, "chunked body: expected chunks, found more framing than body")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _take_head(self) -> bool:
        """The head at the beginning of what waits to the parser, if it is there as a whole; False: nothing more can be
        done."""
        while self._waiting.startswith(b"\r\n"):  # after a body some clients send one more (RFC 9112, 2.2)
            del self._waiting[:2]
        if not self._waiting:
            self._rest()
            return False
        end = self._waiting.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._waiting)) > HEAD_LIMIT:
            self._refuse(
                431, f"request head: expected at most {HEAD_LIMIT} bytes, found more; send fewer or shorter headers"
            )
            return False
        if end < 0:
            return False
        raw = bytes(self._waiting[:end])
        del self._waiting[: end + 4]
        try:
            head = parse_head(raw)
        except BadHead as error:
            self._refuse(error.status, str(error))
            return False
        self._settled()
        self._begin_body(head)
        if head.upgrade or head.chunked:
            # a chunked body's end is the parser's to find: what follows it isn't looked at, and the connection ends
            raw = without_upgrade(raw, close=head.chunked)
        super().data_received(raw + b"\r\n\r\n")
        return True

    def _begin_body(self, head: Head) -> None:
        self._left, self._received, self._delivered = max(head.length, 0), 0, 0
        self._progress = Progress(self.loop.time())
        self._part = "chunks" if head.chunked else "body" if self._left else "head"
        if self._part != "head":
            self._arrival = self.loop.call_later(CHECK_SECONDS, self._check_body)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._received == 0:  # a trailer is no header
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._delivered += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._settled()
        self._part = "end" if self._part == "chunks" else "head"
        self._rest()

    def _rest(self) -> None:
        """Nothing is under way: the client has the keep-alive's time for its next request."""
        if self._part == "head" and not self._waiting and self.cycle is not None and self.cycle.response_complete:
            self._settled()
            if self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._part == "chunks" or (self._part == "body" and self._left > DRAINED_BYTES):  # the rest is nobody's
            self._linger()
        elif self._waiting:
            self._unset_keepalive_if_required()
            if self._arrival is None:
                self._arrival = self.loop.call_later(HEAD_SECONDS, self._head_late)
            self.loop.call_soon(self._advance)

    def _settled(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _head_late(self) -> None:
        self._arrival = None
        if self._part == "head" and self._waiting and not self._answering():
            self._refuse(408, HEAD_LATE)

    def _check_body(self) -> None:
        """A pause that our own flow control makes isn't the client's."""
        self._arrival = None
        if self._part not in ("body", "chunks") or self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._progress.excuse(CHECK_SECONDS)
        elif self._progress.late(self.loop.time(), self._received):
            self._refuse(408, BODY_LATE)
            return
        self._arrival = self.loop.call_later(CHECK_SECONDS, self._check_body)

    def _refuse(self, status: int, message: str) -> None:
        if not (self._part in ("body", "chunks") and self.cycle.response_started):
            self.transport.write(refusal(status, message))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger()

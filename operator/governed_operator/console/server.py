"""HTTP for a handful of browsers on one machine: GET and HEAD, one request a connection, every limit at the door.

h11 reads the heads: it is what httpx brings along, and refuses what isn't HTTP. Nothing is kept alive, no body is
read, so that no request can hide behind another.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import h11

__all__ = ["Answer", "Asked", "Limits", "Server", "is_loopback"]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; connect-src 'self'; script-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "connection": "close",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_TEXT = "text/plain; charset=utf-8"
_MOST_FIELDS = 16
_LINGER_BYTES = 64 << 10


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to ``host``."""
    return host in _LOOPBACK


@dataclass(frozen=True)
class Limits:
    """``head``: bytes; the others in seconds, or how many at once."""

    head: int = 16 << 10
    connections: int = 64
    arrival: float = 10.0
    """Until a head must be there."""
    answer: float = 45.0
    """Until an answer must be made."""
    sending: float = 30.0
    """Until it must be taken."""
    stream: float = 600.0
    """Life of a stream; a browser opens another one."""


@dataclass(frozen=True)
class Asked:
    """A request: path segments and query, decoded; header fields in lower case."""

    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """``stream``: pieces that follow until the client goes."""

    body: bytes
    media_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[Asked], Awaitable[Answer]]


class _Refused(Exception):
    """``status`` and what the client is told."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.headers = status, headers or {}

    def answer(self) -> Answer:
        return Answer(f"{self}\n".encode(), _TEXT, self.status, self.headers)


class Server:
    """Serves ``handler`` at ``host``; on loopback to who names it by a name of loopback alone: a page of another
    site whose name leads here must read nothing."""

    def __init__(self, handler: Handler, host: str, limits: Limits | None = None):
        self._handler, self._host, self._limits = handler, host, limits or Limits()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """The port; ``port`` 0: a free one. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, self._host, port, limit=self._limits.head)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Ends what is open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were aborted close in the loop's next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writer.transport.set_write_buffer_limits(0)  # drained: all of it has left
        many = len(self._open)
        self._open.add(task)
        try:
            if many >= self._limits.connections:
                if many < 2 * self._limits.connections:
                    busy = _Refused(503, "too many connections: close other windows", {"retry-after": "5"})
                    await self._send(writer, busy.answer())
                    await _linger(reader, writer)
                return
            await self._conversation(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError, h11.LocalProtocolError):
            pass  # the client went, or the console stops
        finally:
            self._open.discard(task)
            writer.transport.abort()  # what was sent is with the client by now, or never will be

    async def _conversation(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        head_only = False
        try:
            async with asyncio.timeout(self._limits.arrival):
                request = await _head(connection, reader)
            if request is None:
                return
            head_only = request.method == b"HEAD"
            asked = self._asked(request)
            answer = await self._answer(asked)
        except _Refused as refused:
            answer = refused.answer()
        except h11.RemoteProtocolError as error:
            answer = _Refused(error.error_status_hint, f"no request: {error}").answer()
        except TimeoutError:
            answer = _Refused(408, f"expected a request within {self._limits.arrival:g} s").answer()
        await self._send(writer, answer, head_only=head_only)
        if answer.stream is not None and not head_only:
            await self._told(reader, writer, answer.stream)
        await _linger(reader, writer)

    async def _answer(self, asked: Asked) -> Answer:
        try:
            async with asyncio.timeout(self._limits.answer):
                return await self._handler(asked)
        except TimeoutError:
            raise _Refused(503, "no answer in time: reload the page", {"retry-after": "5"}) from None

    def _asked(self, request: h11.Request) -> Asked:
        if request.method not in (b"GET", b"HEAD"):
            raise _Refused(405, "the console only shows: GET and HEAD", {"allow": "GET, HEAD"})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        host = headers.get("host", "")
        if is_loopback(self._host) and not is_loopback(_name_of(host).lower()):
            raise _Refused(421, f"expected localhost or 127.0.0.1 as the host, found {host[:80]!r}")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not _opens(headers):
            raise _Refused(403, "the console answers no other site's pages")
        path, _, query = request.target.decode("latin-1").partition("?")
        if not path.startswith("/"):
            raise _Refused(400, "expected a path")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise _Refused(400, f"expected at most {_MOST_FIELDS} fields in the query") from None
        segments = tuple(unquote(part) for part in path.split("/")[1:])
        return Asked(segments if segments != ("",) else (), dict(pairs), headers)

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer, *, head_only: bool = False) -> None:
        headers = HEADERS | {"content-type": answer.media_type} | dict(answer.headers)
        if answer.stream is None:
            headers["content-length"] = str(len(answer.body))
        head = h11.Response(status_code=answer.status, headers=list(headers.items()))
        writer.write(_head_bytes(head))
        if not head_only:
            writer.write(answer.body)
        async with asyncio.timeout(self._limits.sending):
            await writer.drain()

    async def _told(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: AsyncIterator[bytes]
    ) -> None:
        """The pieces of a stream, until its time is over or the client goes: a window that was closed leaves its place
        to another at once."""

        async def pieces() -> None:
            async for piece in stream:
                writer.write(piece)
                async with asyncio.timeout(self._limits.sending):
                    await writer.drain()

        both = [asyncio.ensure_future(pieces()), asyncio.ensure_future(_gone(reader))]
        try:
            await asyncio.wait(both, timeout=self._limits.stream, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)


def _head_bytes(head: h11.Response) -> bytes:
    """Not by the parser: what isn't HTTP leaves it in a state in which it writes nothing."""
    lines = [b"HTTP/1.1 %d %s" % (head.status_code, _REASONS.get(head.status_code, b""))]
    lines += [name + b": " + value for name, value in head.headers.raw_items()]
    return b"\r\n".join([*lines, b"", b""])


_REASONS = {
    200: b"OK", 303: b"See Other", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 421: b"Misdirected Request",
    431: b"Request Header Fields Too Large", 501: b"Not Implemented", 503: b"Service Unavailable",
}  # fmt: skip


async def _head(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """None where the client goes. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await reader.read(4096))


def _opens(headers: Mapping[str, str]) -> bool:
    """Whether a person follows a link of another site; in a frame, each address would have a ledger recomputed."""
    fetched = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest", "document")
    return fetched == ("navigate", "document")


def _name_of(host: str) -> str:
    """Without the port, which a forwarded connection has another of."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _gone(reader: asyncio.StreamReader) -> None:
    """Until the client ends the connection; what it says meanwhile isn't read by anybody."""
    while await reader.read(4096):
        pass


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a client still sends is read for a second: a reset could overtake the answer."""
    with suppress(OSError, TimeoutError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(1.0):
            left = _LINGER_BYTES
            while left > 0 and (data := await reader.read(4096)):
                left -= len(data)

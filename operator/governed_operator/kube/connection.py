"""HTTP/1.1 over kept connections to one origin, as much of it as an API server needs: no redirects, no cookies, no
compression.

llhttp parses (httptools). aiohttp's session costs .27 ms of CPU a request where this takes .08, and a third of what the
operator does is requests. Errors are OSError: `ConnectionError` when the other side breaks off or speaks no HTTP,
`TimeoutError`.
"""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, cast
from urllib.parse import SplitResult, unquote, urlsplit

import httptools

PARALLEL = 128
"""Requests in flight; watches come on top."""
CONNECT_SECONDS = 10.0


class Origin(NamedTuple):
    """Where requests go."""

    url: str
    """http(s)://host[:port]; a path is put before every request's."""
    tls: ssl.SSLContext | None = None
    """For https."""
    server_name: str | None = None
    """Name in the certificate, where it isn't the host's."""
    proxy: str | None = None
    """http(s)://[user:password@]host:port of a proxy that CONNECTs (RFC 9110 9.3.6)."""
    proxy_headers: Mapping[str, str] = {}


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they are sent."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


class Answer:
    """What comes back for one request; its body may still be coming."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.status = 0
        self.complete = False
        self._chunks: deque[bytes] = deque()
        self._error: OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.heard = float("-inf")
        """When the last piece of a streamed body came, by the loop's clock."""

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def take(self) -> bytes:
        """What is there of the body."""
        out = b"".join(self._chunks)
        self._chunks.clear()
        return out

    @property
    def waiting(self) -> bool:
        """Whether there is something that nobody has read yet."""
        return bool(self._chunks)

    def fail(self, error: OSError) -> None:
        if not self.complete:
            self._error = self._error or error
            self.tell()

    def tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self) -> None:
        """Until more is there, or all. Raises OSError when it breaks off."""
        if not (self._chunks or self.complete or self._error):
            await self._told()
        if self._error and not self._chunks:
            raise self._error

    async def whole(self) -> bytes:
        """The body, once it is complete. Raises OSError."""
        while not (self.complete or self._error):
            await self._told()
        if self._error:
            raise self._error
        return self.take()

    async def _told(self) -> None:
        self._waiter = self.loop.create_future()
        await self._waiter


class TimeoutRegistry:
    """Fails answers that don't come in time. One timer for all that are waited for: one for each is dear, and nearly
    none ever fires."""

    def __init__(self) -> None:
        self._until: dict[Answer, tuple[float, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begins(self, answer: Answer, seconds: float) -> None:
        """``seconds`` from now ..."""
        loop = answer.loop
        due = loop.time() + seconds
        self._until[answer] = (due, seconds)
        if self._timer is None or due < self._timer.when():
            self._look_at(due, loop)

    def ends(self, answer: Answer) -> None:
        """... unless this comes first."""
        del self._until[answer]

    def _look_at(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for answer, (due, seconds) in self._until.items():
            if due <= now:
                answer.fail(TimeoutError(f"no answer within {seconds:g} s"))
        later = [due for due, _ in self._until.values() if due > now]
        if later:
            self._look_at(min(later), loop)

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.open = False
        self.reusable = True
        self._answer: Answer | None = None
        self._held = False
        self._streams = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.open = True

    def ask(self, request: bytes, streams: bool = False) -> Answer:
        """Send. With ``streams`` the reader is woken by a piece of the body, and no more is read until it says
        :meth:`go_on`; otherwise by the end."""
        self._answer, self._streams = Answer(self._loop), streams
        if streams and hasattr(self._transport, "set_read_buffer_limits"):
            self._transport.set_read_buffer_limits(high=1, low=0)  # TLS would read on into its own buffer
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._broken(ConnectionError(f"expected an HTTP answer, found {data[:60]!r} ({error})"))
            return
        answer = self._answer
        if answer is None:
            return
        if answer.complete:
            self._answer = None
        if self._streams:
            answer.heard = self._loop.time()
            self._hold()
        if answer.complete or self._streams:
            answer.tell()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """The reader wants more."""
        if self._held:
            self._held = False
            self._transport.resume_reading()

    def on_headers_complete(self) -> None:
        if self._answer is None:
            raise httptools.HttpParserError("an answer to no request")
        self._answer.status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        if self._answer is not None:
            self._answer.add(chunk)

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._answer.complete = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is not None:
            self._answer.fail(ConnectionResetError(str(error) if error else "closed before the answer was complete"))

    def _broken(self, error: OSError) -> None:
        if self._answer is not None:
            self._answer.fail(error)
        self.close()

    def close(self) -> None:
        """At once; what is in flight is lost."""
        self.open = False
        self._transport.abort()


class Connections:
    """Kept connections to one origin."""

    def __init__(self, origin: Origin, parallel: int = PARALLEL) -> None:
        parts = urlsplit(origin.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected http(s)://host[:port], found {origin.url!r}")
        self._origin = origin
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = origin.tls if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        self._head = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(parallel)
        self._patience = TimeoutRegistry()

    async def request(
        self, method: str, target: str, headers: str, body: bytes | None, seconds: float
    ) -> tuple[int, bytes]:
        """(status, body); ``headers``: as :func:`header_lines` writes them. A kept connection that was closed meanwhile
        is not the request's fault: it goes over a new one.

        Raises OSError (TimeoutError ``seconds`` after it was sent).
        """
        message = self._message(method, target, headers, body)
        async with self._slots:
            while connection := self._kept():
                answer = connection.ask(message)
                try:
                    return await self._finished(connection, answer, seconds)
                except ConnectionError:
                    if answer.status or method == "POST":
                        raise
            connection = await self._connected()
            return await self._finished(connection, connection.ask(message), seconds)

    async def _finished(self, connection: Connection, answer: Answer, seconds: float) -> tuple[int, bytes]:
        self._patience.begins(answer, seconds)
        try:
            body = await answer.whole()
            return answer.status, body
        finally:
            self._patience.ends(answer)
            if answer.complete and connection.open and connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: str, silence: float, rest: float = 0.0
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """(status, pieces of the body as they come) over a connection of its own. Raises OSError (TimeoutError after
        ``silence`` seconds).

        What comes within ``rest`` seconds of a piece is read as one: reading each by itself costs more than what is
        done with it.
        """
        connection = await self._connected()
        try:
            answer = connection.ask(self._message(method, target, headers, None), streams=True)
            with _given_up_after(silence, answer):
                await answer.news()
                yield answer.status, self._pieces(connection, answer, rest)
        finally:
            connection.close()

    @staticmethod
    async def _pieces(connection: Connection, answer: Answer, rest: float) -> AsyncIterator[bytes]:
        while True:
            if piece := answer.take():
                yield piece
                await asyncio.sleep(rest)
            elif answer.complete:
                return
            connection.go_on()
            await answer.news()

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    def _message(self, method: str, target: str, headers: str, body: bytes | None) -> bytes:
        head = f"{method} {self._prefix}{target} HTTP/1.1\r\n{self._head}{headers}"
        if body is None:
            return f"{head}\r\n".encode()
        return b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body)

    async def _connected(self) -> Connection:
        """Raises ConnectionError when there is none in time: TimeoutError is kept for a server that takes requests and
        doesn't answer."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect()
        except TimeoutError as error:
            raise ConnectionError(f"no connection within {CONNECT_SECONDS:g} s") from error

    async def _connect(self) -> Connection:
        if self._origin.proxy:
            return await self._through(urlsplit(self._origin.proxy))
        name = self._origin.server_name if self._tls else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(loop), self._host, self._port, ssl=self._tls, server_hostname=name
        )
        return connection

    async def _through(self, proxy: SplitResult) -> Connection:
        """A tunnel. Raises ConnectionError when the proxy refuses."""
        port = proxy.port or (443 if proxy.scheme == "https" else 80)
        secured = ssl.create_default_context() if proxy.scheme == "https" else None
        loop = asyncio.get_running_loop()
        transport, tunnel = await loop.create_connection(_Tunnel, proxy.hostname or "", port, ssl=secured)
        place = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        headers = header_lines({"Host": place, **_authorisation(proxy), **self._origin.proxy_headers})
        transport.write(f"CONNECT {place} HTTP/1.1\r\n{headers}\r\n".encode())
        try:
            first = await tunnel.answer
            if first.split(b" ")[1:2] != [b"200"]:
                raise ConnectionError(f"the proxy {proxy.hostname}:{port} refused a tunnel to {place}: {first!r}")
            return await self._taken_over(transport)
        except BaseException:
            transport.abort()
            raise

    async def _taken_over(self, transport: asyncio.Transport) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop)
        if self._tls:
            name = self._origin.server_name or self._host
            secured = await loop.start_tls(transport, connection, self._tls, server_hostname=name)
            assert secured is not None
            connection.connection_made(secured)
        else:
            transport.set_protocol(connection)
            connection.connection_made(transport)
        return connection

    def close(self) -> None:
        """Kept connections; those in use are closed by their users."""
        self._patience.close()
        while self._idle:
            self._idle.pop().close()


@contextmanager
def _given_up_after(silence: float, answer: Answer) -> Iterator[None]:
    """Fails the answer when nothing came for ``silence`` seconds. One timer for all pieces: one for each would cost as
    much as reading it."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        left = answer.heard + silence - loop.time()
        if left <= 0 and not answer.waiting:
            answer.fail(TimeoutError(f"nothing heard for {silence:g} s"))
        else:
            timer = loop.call_later(left if left > 0 else silence, look)

    timer = loop.call_later(silence, look)
    try:
        yield
    finally:
        timer.cancel()


class _Tunnel(asyncio.Protocol):
    """A proxy's answer to CONNECT: its first line counts, its headers don't."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if (b"\r\n\r\n" in self._head or len(self._head) > 65536) and not self.answer.done():
            self.answer.set_result(self._head.split(b"\r\n", 1)[0])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                ConnectionResetError(str(error) if error else "the proxy closed before it answered")
            )


def _authorisation(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}

"""The operator's HTTP/1.1 against real sockets: kept connections, breaks, refusals, streams, TLS, proxies."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from governed_operator.kube.connection import Connections, Origin
from support.certificates import Authority
from support.stream_server import accepting

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections and keeps requests; ``talk`` is what it does on each."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.requests: list[bytes] = []

    async def asked(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        return self.requests[-1]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        async with accepting(self._meet, tls) as port:
            yield port
        await asyncio.sleep(0.01)  # transports close on the loop's next turns


def answering(*answers: bytes, then_close: bool = False) -> Server:
    """The same answers on every connection, the last one for ever."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(1000):
            await server.asked(reader)
            writer.write(answers[min(number, len(answers) - 1)])
            if then_close:
                return

    server = Server(talk)
    return server


@asynccontextmanager
async def connected(server: Server, **origin: Any) -> AsyncIterator[Connections]:
    async with server.running() as port:
        connections = Connections(Origin(f"http://127.0.0.1:{port}", **origin))
        yield connections
        connections.close()


async def get(connections: Connections, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    return await connections.request(method, "/a?b=c", "Accept: x/y\r\n", body, 60.0)


async def test_a_request_carries_head_and_body_and_its_answer_status_and_body() -> None:
    server = answering(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    async with connected(server) as connections:
        assert await get(connections, "PATCH", b"body") == (409, b"abcde")
    head = server.requests[0]
    assert head.startswith(b"PATCH /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAccept: x/y\r\n" in head
    assert head.endswith(b"Content-Length: 4\r\n\r\nbody")


async def test_connections_are_kept_and_never_shared_by_two_requests() -> None:
    server = answering(ANSWER)
    async with connected(server) as connections:
        for _ in range(5):
            assert await get(connections) == (200, b"ok")
        assert server.connections == 1
        assert await asyncio.gather(*(get(connections) for _ in range(7))) == [(200, b"ok")] * 7
        assert server.connections == 7


async def test_at_most_so_many_requests_are_in_flight() -> None:
    server = answering(ANSWER)
    async with server.running() as port:
        connections = Connections(Origin(f"http://127.0.0.1:{port}"), parallel=2)
        await asyncio.gather(*(get(connections) for _ in range(20)))
        connections.close()
    assert server.connections == 2


@pytest.mark.parametrize("answer", [ANSWER, ANSWER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)])
async def test_a_connection_that_the_server_closes_is_replaced(answer: bytes) -> None:
    server = answering(answer, then_close=True)
    async with connected(server) as connections:
        assert await get(connections) == (200, b"ok")
        await asyncio.sleep(0.05)
        assert await get(connections) == (200, b"ok")
    assert server.connections == 2


async def closing_on_the_second(method: str) -> tuple[Server, Any]:
    """What a second request meets whose kept connection the server closes at that very moment."""
    closed = False

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        await server.asked(reader)
        writer.write(ANSWER)
        await server.asked(reader)
        if closed:
            writer.write(ANSWER)
        closed = True

    server = Server(talk)
    async with connected(server) as connections:
        await get(connections)
        return server, await get(connections, method, b"")


async def test_a_kept_connection_that_just_closed_costs_no_request() -> None:
    server, answer = await closing_on_the_second("PATCH")
    assert answer == (200, b"ok")
    assert server.connections == 2


async def test_what_would_make_something_twice_is_not_repeated() -> None:
    with pytest.raises(ConnectionError, match="closed before the answer was complete"):
        await closing_on_the_second("POST")


async def test_a_break_in_the_middle_of_an_answer_is_an_error() -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", then_close=True)
    async with connected(server) as connections:
        with pytest.raises(ConnectionError, match="closed before the answer was complete"):
            await get(connections)


async def test_what_is_no_http_is_told_as_it_came() -> None:
    async with connected(answering(b"SSH-2.0-OpenSSH\r\n")) as connections:
        with pytest.raises(ConnectionError, match=r"expected an HTTP answer, found b'SSH-2.0"):
            await get(connections)


async def test_each_request_has_its_own_patience() -> None:
    """One timer looks after all: a longer wait must not put off a shorter one, nor a shorter one end a longer."""
    answered = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.asked(reader)
        await answered.wait()
        writer.write(ANSWER)

    server = Server(talk)
    async with connected(server) as connections:
        patient = asyncio.create_task(connections.request("GET", "/", "", None, 300.0))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                await connections.request("GET", "/", "", None, 0.05)
        assert not patient.done()
        answered.set()
        assert await patient == (200, b"ok")
        answered.clear()
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            await connections.request("GET", "/", "", None, 0.1)


async def test_a_silent_server_is_given_up_and_its_late_answer_goes_to_nobody() -> None:
    given_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.asked(reader)
        if server.connections == 1:
            await given_up.wait()
        writer.write(ANSWER.replace(b"ok", b"%02d" % server.connections))

    server = Server(talk)
    async with connected(server) as connections:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            await connections.request("GET", "/", "", None, 0.05)
        given_up.set()
        assert await connections.request("GET", "/", "", None, 60) == (200, b"02")


async def test_a_cancelled_request_leaves_no_connection_with_a_stray_answer() -> None:
    server = answering(ANSWER)
    async with connected(server) as connections:
        await get(connections)
        cancelled = asyncio.create_task(get(connections))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert await get(connections, "PATCH", b"x") == (200, b"ok")


async def test_nobody_there() -> None:
    async with answering(ANSWER).running() as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await get(Connections(Origin(f"http://127.0.0.1:{port}")))


def streaming(*pieces: bytes, pause: float = 0.0, end: bytes = b"0\r\n\r\n") -> Server:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            await asyncio.sleep(pause)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(end)
        await writer.drain()
        if not end:
            await asyncio.sleep(5)

    server = Server(talk)
    return server


async def test_a_stream_comes_piece_by_piece() -> None:
    server = streaming(b"one\n", b"two\n", pause=0.02)
    async with connected(server) as connections, connections.stream("GET", "/", "", 60.0) as (status, pieces):
        assert status == 200
        assert [p async for p in pieces] == [b"one\n", b"two\n"]


async def test_a_stream_that_breaks_off_and_one_that_falls_silent_are_errors() -> None:
    async with connected(streaming(b"one", end=b"broken")) as connections:
        with pytest.raises(ConnectionError):
            async with connections.stream("GET", "/", "", 5.0) as (_, pieces):
                assert [p async for p in pieces] == [b"one"]
    async with connected(streaming(b"one", end=b"")) as connections:
        with pytest.raises(TimeoutError):
            async with connections.stream("GET", "/", "", 0.05) as (_, pieces):
                assert [p async for p in pieces] == [b"one"]


async def test_a_stream_may_be_long_as_long_as_it_is_not_silent() -> None:
    server = streaming(*[b"x"] * 12, pause=0.25)
    async with connected(server) as connections, connections.stream("GET", "/", "", 2.5) as (_, pieces):
        assert b"".join([p async for p in pieces]) == b"x" * 12


@pytest.mark.parametrize("tls", [False, True])
async def test_what_comes_while_a_reader_rests_is_read_as_one(
    tls: bool, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    begun = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n0\n\r\n")
        await begun.wait()
        for number in range(1, 10):
            writer.write(b"2\r\n%d\n\r\n" % number)
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")

    server = Server(talk)
    scheme, trust = ("https", trusting(authority)) if tls else ("http", None)
    async with server.running(server_tls if tls else None) as port:
        connections = Connections(Origin(f"{scheme}://127.0.0.1:{port}", trust, "api.example" if tls else None))
        async with connections.stream("GET", "/", "", 60.0, rest=2.0) as (_, pieces):
            found = []
            async for piece in pieces:
                found.append(piece)
                begun.set()
    assert len(found) <= 2 + tls, "the first at once, the rest together; TLS has read one more when it is told to stop"
    assert b"".join(found) == b"".join(b"%d\n" % n for n in range(10))


async def test_a_slow_reader_holds_the_server_back_and_loses_nothing() -> None:
    """128 MiB would fill any socket's buffers: the server must not have sent all while nobody reads."""
    piece, sent = b"x" * 2**20, 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await server.asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(128):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    server = Server(talk)
    async with connected(server) as connections, connections.stream("GET", "/", "", 60.0) as (_, pieces):
        await asyncio.sleep(0.3)
        assert sent < 64
        assert sum([len(p) async for p in pieces]) == 128 * 2**20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    certificate, key = authority.issue("api", "api.example", hosts=["api.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def test_tls_by_the_name_in_the_certificate(authority: Authority, server_tls: ssl.SSLContext) -> None:
    async with answering(ANSWER).running(server_tls) as port:
        named = Connections(Origin(f"https://127.0.0.1:{port}", trusting(authority), "api.example"))
        assert await get(named) == (200, b"ok")
        named.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(Connections(Origin(f"https://127.0.0.1:{port}", trusting(authority), "other.example")))


def tunnelling(accepts: bool = True) -> Server:
    """A proxy that CONNECTs, as RFC 9110 9.3.6 has it."""

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await server.asked(reader)
        host, port = head.split(b" ")[1].split(b":")
        if not accepts:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        up_reader, up_writer = await asyncio.open_connection(host.decode(), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        try:
            await asyncio.gather(pipe(reader, up_writer), pipe(up_reader, writer))
        finally:
            up_writer.close()

    server = Server(talk)
    return server


async def test_through_a_proxy_that_asks_who_we_are(authority: Authority, server_tls: ssl.SSLContext) -> None:
    proxy = tunnelling()
    async with answering(ANSWER).running(server_tls) as port, proxy.running() as proxy_port:
        origin = Origin(
            f"https://127.0.0.1:{port}",
            trusting(authority),
            "api.example",
            f"http://us%65r:pass@127.0.0.1:{proxy_port}",
            {"X-Team": "ml"},
        )
        connections = Connections(origin)
        assert [await get(connections) for _ in range(2)] == [(200, b"ok")] * 2
        connections.close()
    assert proxy.connections == 1
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxy.requests[0]
    assert b"\r\nX-Team: ml\r\n" in proxy.requests[0]


async def test_a_proxy_that_refuses_is_named() -> None:
    async with tunnelling(accepts=False).running() as port:
        connections = Connections(Origin("http://10.0.0.1", proxy=f"http://127.0.0.1:{port}"))
        with pytest.raises(ConnectionError, match=r"refused a tunnel to 10\.0\.0\.1:80: b'HTTP/1\.1 407"):
            await get(connections)


@pytest.mark.parametrize("url", ["unix:///run/x", "10.0.0.1:6443", ""])
def test_an_origin_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected http\(s\)://host"):
        Connections(Origin(url))

"""The console's door over a real loopback socket: headers, names, methods, limits."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from governed_operator.console.app import Console
from governed_operator.console.server import HEADERS, Answer, Asked, Limits, Server
from unit.console.test_pages import Fake


async def answer(asked: Asked) -> Answer:
    if asked.path == ("slow",):
        await asyncio.Event().wait()
    return Answer(f"{asked.path} {dict(asked.query)}".encode())


async def said(port: int, *lines: str, body: bytes = b"") -> str:
    return (await raw(port, "\r\n".join([*lines, "", ""]).encode() + body)).decode()


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = Server(answer, "127.0.0.1", Limits(head=4096))
    yield await server.start(0)
    await server.stop()


async def test_every_answer_forbids_what_the_page_does_not_need(port: int) -> None:
    found = await said(port, "GET /a%2Fb?x=%3C HTTP/1.1", "Host: localhost:1")
    head, _, body = found.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "script-src 'self'" in head
    assert "default-src 'none'" in head
    assert "frame-ancestors 'none'" in head
    assert "unsafe" not in head
    for line in ("x-content-type-options: nosniff", "cache-control: no-store", "referrer-policy: no-referrer"):
        assert line in head
    assert body == "('a/b',) {'x': '<'}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8100", "[::1]:9", "LOCALHOST:1"])
async def test_names_of_loopback_are_answered(port: int, host: str) -> None:
    assert (await said(port, "GET / HTTP/1.1", f"Host: {host}")).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8100", "", "[::2]", "evil:127.0.0.1"]
)
async def test_a_name_that_was_made_to_lead_here_reads_nothing(port: int, host: str) -> None:
    found = await said(port, "GET / HTTP/1.1", f"Host: {host}")
    assert found.startswith("HTTP/1.1 421 ")
    assert "()" not in found


async def test_a_request_without_a_host_is_refused(port: int) -> None:
    assert (await said(port, "GET / HTTP/1.0")).startswith("HTTP/1.1 421 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_nothing_but_reading(port: int, method: str) -> None:
    found = await said(port, f"{method} / HTTP/1.1", "Host: localhost", "Content-Length: 3", body=b"abc")
    assert found.startswith("HTTP/1.1 405 ")
    assert "allow: GET, HEAD" in found


async def test_head_has_no_body(port: int) -> None:
    found = await said(port, "HEAD / HTTP/1.1", "Host: localhost")
    assert found.startswith("HTTP/1.1 200 ")
    assert found.endswith("\r\n\r\n")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_site_can_not_load_parts(port: int, site: str) -> None:
    """Another port of localhost is the same site, and a frame that shows nothing still has a page made."""

    async def status(*fields: str) -> str:
        return (await said(port, "GET / HTTP/1.1", "Host: localhost", f"Sec-Fetch-Site: {site}", *fields))[:12]

    assert await status("Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image") == "HTTP/1.1 403"
    assert await status("Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty") == "HTTP/1.1 403"
    assert await status("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe") == "HTTP/1.1 403"
    assert await status("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document") == "HTTP/1.1 200"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /models/%2e%2e%2f%2e%2e%2fetc%2fpasswd/report HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /decisions/%00%E2%80%AE HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /decisions?id=a&id=b&lang=%ff&model= HTTP/1.1\r\nHost: localhost\r\n\r\n", 303),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405),
        (b"\x00" * 64 + b"\r\n\r\n", 400),
    ],
)
async def test_no_answer_goes_without_the_fields_that_protect(data: bytes, status: int) -> None:
    """Of the console itself, over its socket."""
    console = Console(Fake())
    server = Server(console, "127.0.0.1")
    port = await server.start(0)
    found = (await raw(port, data)).decode()
    await server.stop()
    console.stop()
    assert found.startswith(f"HTTP/1.1 {status} ")
    head = found.partition("\r\n\r\n")[0]
    assert all(f"{name}: {value}" in head for name, value in HEADERS.items())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /?" + b"&".join(b"a%d=1" % i for i in range(40)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
async def test_what_is_no_fitting_request_is_refused(port: int, data: bytes, status: int) -> None:
    assert (await raw(port, data)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_second_request_on_the_connection_is_not_answered(port: int) -> None:
    one = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await raw(port, one + one)).count(b"HTTP/1.1") == 1


async def test_a_client_that_says_nothing_is_let_go() -> None:
    server = Server(answer, "127.0.0.1", Limits(arrival=0.05))
    port = await server.start(0)
    assert (await raw(port, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
    await server.stop()


async def test_an_answer_that_takes_too_long_is_said() -> None:
    server = Server(answer, "127.0.0.1", Limits(answer=0.05))
    port = await server.start(0)
    assert (await said(port, "GET /slow HTTP/1.1", "Host: localhost")).startswith("HTTP/1.1 503 ")
    await server.stop()


async def test_no_more_connections_than_allowed() -> None:
    server = Server(answer, "127.0.0.1", Limits(connections=1))
    port = await server.start(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    assert (await said(port, "GET / HTTP/1.1", "Host: localhost")).startswith("HTTP/1.1 503 ")
    writer.close()
    await writer.wait_closed()
    await server.stop()
    assert await reader.read() == b""


async def test_a_window_that_is_closed_leaves_its_place_at_once() -> None:
    """Without a word from the stream, which would only be written into the void."""
    left = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        try:
            yield b"first\n\n"
            await asyncio.Event().wait()
        finally:
            left.set()

    async def streaming(_: Asked) -> Answer:
        return Answer(b"", "text/event-stream", stream=silent())

    server = Server(streaming, "127.0.0.1")
    port = await server.start(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"first\n\n")
    writer.close()
    async with asyncio.timeout(60):
        await left.wait()
    await server.stop()


async def test_whoever_is_bound_elsewhere_answers_any_name() -> None:
    server = Server(answer, "0.0.0.0")
    port = await server.start(0)
    assert (await said(port, "GET / HTTP/1.1", "Host: laptop.example")).startswith("HTTP/1.1 200 ")
    await server.stop()

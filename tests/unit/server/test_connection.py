"""Connections of the fast path, on a real socket: whole, split, pipelined and foreign requests on one connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.hosting import listen, web_server
from governed_serving.hosting.http_head import BadHead, Head, parse_head
from governed_serving.server.app.connection import FastPathConnection
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.protocol.v2 import V2Codec
from unit.server.planes import MemoryJournal, plane, until
from unit.server.tabular_model import v2_body

LINE = b"POST /v2/models/credit/infer HTTP/1.1\r\n"


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return int(status.split()[1]), headers, body


@asynccontextmanager
async def serving(max_body: int = 1 << 20, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    gateway = Gateway("credit", why="")
    data = plane(**options)
    gateway.service = HttpService(data, V2Codec(data.signature, "credit", "r1"))
    server = web_server(FastPathApp(gateway, application(gateway), max_body), grace=60, http=FastPathConnection)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    await until(lambda: server.started)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Connection:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writers.append(writer)
        return Connection(reader, writer)

    try:
        yield connect, server
    finally:
        for writer in writers:
            writer.close()
        server.should_exit = True
        await task
        await data.close()


def infer(identity: str, *, headers: bytes = b"host: x\r\n") -> bytes:
    body = json.dumps(v2_body(identity=identity)).encode()
    return LINE + headers + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def test_whole_split_and_pipelined() -> None:
    async with serving(journal=MemoryJournal()) as (connect, _):
        c = await connect()
        c.send(infer("a"))
        status, headers, body = await c.answer()
        assert (status, headers["x-request-id"], json.loads(body)["id"]) == (200, "a", "a")
        data = infer("b")
        for cut in (10, len(LINE) + 5, len(data) - 3):
            c.send(data[:cut])
            await c.writer.drain()
            await asyncio.sleep(0)
            c.send(data[cut:])
            assert json.loads((await c.answer())[2])["id"] == "b"
        c.send(b"".join(infer(str(k)) for k in range(20)))
        assert [json.loads((await c.answer())[2])["id"] for _ in range(20)] == [str(k) for k in range(20)]


async def test_a_connection_may_go_from_hot_to_cold_to_hot() -> None:
    async with serving() as (connect, _):
        c = await connect()
        c.send(infer("a") + b"GET /v2/models/credit HTTP/1.1\r\nhost: x\r\n\r\n")
        assert json.loads((await c.answer())[2])["id"] == "a"
        assert json.loads((await c.answer())[2])["name"] == "credit"
        c.send(infer("b"))
        assert json.loads((await c.answer())[2])["id"] == "b"


async def test_chunked_and_expect_are_understood() -> None:
    async with serving() as (connect, _):
        body = json.dumps(v2_body(identity="c")).encode()
        c = await connect()
        c.send(LINE + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert json.loads((await c.answer())[2])["id"] == "c"
        c = await connect()
        c.send(LINE + b"host: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert await c.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        c.send(body)
        assert json.loads((await c.answer())[2])["id"] == "c"


async def test_errors_keep_the_connection() -> None:
    async with serving() as (connect, _):
        c = await connect()
        c.send(LINE + b"host: x\r\ncontent-length: 1\r\n\r\n{")
        status, _, body = await c.answer()
        assert status == 400
        assert "end too early (byte 1)" in json.loads(body)["error"]
        c.send(infer("a"))
        assert (await c.answer())[0] == 200


async def test_too_large_is_413_and_closes() -> None:
    async with serving(max_body=100) as (connect, _):
        c = await connect()
        c.send(infer("a"))
        status, headers, body = await c.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert "expected at most 100 bytes" in json.loads(body)["error"]


async def test_smuggling_shapes_go_to_the_strict_parser() -> None:
    async with serving() as (connect, _):
        for headers in (
            b"content-length: 3\r\ncontent-length: 5\r\n",
            b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
            b"content-length : 3\r\n",
        ):
            c = await connect()
            c.send(LINE + headers + b"\r\nabc")
            assert (await c.answer())[0] == 400, headers


async def test_shutdown_lets_the_answer_out_and_closes() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    async with serving(journal=journal) as (connect, server):
        c = await connect()
        c.send(infer("a"))
        await until(lambda: journal.frames)
        server.should_exit = True
        await until(lambda: not server.servers[0].is_serving())
        journal.gate.set()
        status, headers, _ = await c.answer()
        assert (status, headers["connection"]) == (200, "close")


HOST = b"host: x\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (HOST + b"content-length: 12", Head(12)),
        (HOST + b"Content-Length:12\r\nInference-Header-Content-Length: 5", Head(12, 5)),
        (HOST + b"connection: keep-alive\r\ncontent-length: 1", Head(1)),
        (HOST + b"connection: close\r\ncontent-length: 1", Head(1, plain=False)),
        (HOST + b"content-length: 1\r\nexpect: 100-continue", Head(1, plain=False)),
        (HOST + b"transfer-encoding: chunked", Head(-1, chunked=True, plain=False)),
        (
            HOST + b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\ncontent-length: 1",
            Head(1, upgrade=True, plain=False),
        ),
        (HOST.strip(), Head(-1, plain=False)),
        (HOST + b"content-length: 1\r\ncontent-length: 1", 400),
        (HOST + b"content-length: +1", 400),
        (HOST + b"content-length: 1, 1", 400),
        (HOST + b"content-length: 1\r\n folded", 400),
        (HOST + b"content-length: 1\nx: y", 400),
        (HOST + b"content-length : 1", 400),
        (HOST + b"x: a\x00b", 400),
        (b"content-length: 1", 400),
        (HOST + HOST + b"content-length: 1", 400),
        (HOST + b"content-length: 1\r\ntransfer-encoding: chunked", 400),
        (HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400),
        (HOST + b"transfer-encoding: gzip, chunked", 501),
        (HOST + b"transfer-encoding: xchunked", 501),
        (HOST + b"expect: the unexpected", 417),
    ],
)
def test_heads(head: bytes, expected: Head | int) -> None:
    if isinstance(expected, Head):
        assert parse_head(LINE + head) == expected
    else:
        with pytest.raises(BadHead) as refused:
            parse_head(LINE + head)
        assert refused.value.status == expected


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/2.0", 505),
        (b"CONNECT x:1 HTTP/1.1", 501),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"", 400),
    ],
)
def test_request_lines(line: bytes, status: int) -> None:
    with pytest.raises(BadHead) as refused:
        parse_head(line + b"\r\n" + HOST.strip())
    assert refused.value.status == status


@given(st.binary(max_size=80))
def test_arbitrary_heads_never_crash(data: bytes) -> None:
    with suppress(BadHead):
        assert parse_head(LINE + HOST + data).length >= -1


async def test_bodies_held_at_a_time_are_bounded() -> None:
    async with serving(max_body=2000) as (connect, _):
        waiting = []
        for _ in range(40):  # what is only announced takes no room
            c = await connect()
            c.send(LINE + b"host: x\r\ncontent-length: 2000\r\n\r\n{")
            waiting.append(c)
        early = await connect()
        early.send(infer("a"))
        assert (await early.answer())[0] == 200
        for _ in range(4):
            c = await connect()
            c.send(LINE + b"host: x\r\ncontent-length: 2000\r\n\r\n" + b"{" * 1900)
            await c.writer.drain()
            waiting.append(c)
        for _ in range(100):
            late = await connect()
            late.send(LINE + b"host: x\r\ncontent-length: 2000\r\n\r\n" + b"{" * 1900)
            try:
                async with asyncio.timeout(0.2):
                    status, _, body = await late.answer()
                break
            except TimeoutError:
                continue
        assert status == 503
        assert "of 8000 in use" in json.loads(body)["error"]
        for c in waiting:
            c.writer.close()
            await c.writer.wait_closed()
        fresh = await connect()
        fresh.send(infer("a"))
        assert (await fresh.answer())[0] == 200


async def test_who_does_not_read_is_not_read_either() -> None:
    """Answers that nobody takes fill the socket; from then on requests stay in the client's."""
    async with serving() as (connect, _):
        c = await connect()
        c.writer.transport.pause_reading()
        sent = 0
        try:
            async with asyncio.timeout(3):
                while sent < 64 << 20:
                    c.send(infer("a") * 100)
                    await c.writer.drain()
                    sent += len(infer("a")) * 100
        except TimeoutError:
            pass
        assert sent < 48 << 20


async def test_a_header_of_thousands_of_digits_is_named() -> None:
    async with serving() as (connect, _):
        c = await connect()
        c.send(infer("a", headers=b"host: x\r\ninference-header-content-length: " + b"1" * 5000 + b"\r\n"))
        status, _, body = await c.answer()
        assert status == 400
        assert len(body) < 400

"""Limits that hold on every port, tried on real sockets before an application that tells what reached it."""

import asyncio
import gzip
import json
import os
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from governed_serving.hosting import Door, Guard, arrival, connection, listen, web_server
from governed_serving.hosting.arrival import LEAST_RATE, Progress
from governed_serving.hosting.http_head import HEAD_LIMIT, BadHead, parse_head
from unit.server.planes import until

LIMIT = 1 << 20
POST = b"POST /echo HTTP/1.1\r\nhost: x\r\n"


class Seen:
    """What reached the application, and what it counted."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], int]] = []
        self.bugs = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        if scope["path"] == "/bug":
            raise KeyError("x" * 10)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            if size > LIMIT:
                break
        self.requests.append((scope["path"], {k.decode(): v.decode() for k, v in scope["headers"]}, size))
        body = b"x" * (1 << 20) if scope["path"] == "/large" else b"%d" % size
        status = 413 if size > LIMIT else 200
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]}
        )
        await send({"type": "http.response.body", "body": body})

    def bug(self) -> None:
        self.bugs += 1


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(next(line for line in head.split("\r\n") if line.startswith("content-length:")).split(":")[1])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def closed(self) -> bool:
        try:
            async with asyncio.timeout(60):
                return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def flood(self, data: bytes, times: int) -> None:
        for _ in range(times):
            self.writer.write(data)
            await self.writer.drain()


@asynccontextmanager
async def served(guard: Guard | None = None, **settings: Any) -> AsyncIterator[tuple[Seen, Any]]:
    seen = Seen()
    server = web_server(Door(seen, seen.bug, guard=guard), grace=5, **settings)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    await until(lambda: server.started)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield seen, connect
    finally:
        for writer in writers:
            writer.close()
        server.should_exit = True
        await task


async def test_a_refusal_before_a_body_s_end_can_be_read() -> None:
    """More of the body is in the socket by then: closed at once, the connection would be reset under the answer."""
    async with served() as (_, connect):
        for framing in (b"transfer-encoding: chunked", b"content-length: %d" % (64 << 20)):
            client = await connect()
            client.writer.write(POST + framing + b"\r\n\r\n")
            piece = b"x" * 65536
            chunk = b"10000\r\n" + piece + b"\r\n" if framing.startswith(b"transfer") else piece
            flood = asyncio.create_task(client.flood(chunk, 64))
            assert (await client.answer())[0] == 413
            assert await client.closed()
            flood.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await flood


async def test_a_request_of_which_something_has_come_is_answered_while_the_server_drains() -> None:
    seen = Seen()
    server = web_server(Door(seen), grace=20)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    await until(lambda: server.started)
    clients = [Client(*await asyncio.open_connection(*sock.getsockname())) for _ in range(4)]
    data = POST + b"content-length: 5\r\n\r\nhello"
    begun = [1, len(POST), len(data) - 3]
    for client, cut in zip(clients, begun, strict=False):
        client.writer.write(data[:cut])
    await until(lambda: len(server.server_state.connections) == 4)
    await asyncio.sleep(0.05)
    server.should_exit = True
    assert await clients[3].closed(), "nothing had come of this one's"
    for client, cut in zip(clients, begun, strict=False):
        assert await client.ask(data[cut:]) == (200, b"5")
        assert await client.closed()
    for client in clients:
        client.writer.close()
    await task


async def test_idle_connections_take_nobody_s_place_and_liveness_always_has_one() -> None:
    gate = asyncio.Event()

    async def slow(scope: Any, _: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    server = web_server(Door(slow, most=2), grace=5)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    await until(lambda: server.started)
    idle = [Client(*await asyncio.open_connection(*sock.getsockname())) for _ in range(8)]
    get = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n"
    for client in idle[:2]:
        client.writer.write(get % b"/slow")
    other = idle[7]
    await until(lambda: len(server.server_state.tasks) == 2)
    assert (await other.ask(get % b"/other"))[0] == 503
    assert (await other.ask(get % b"/healthz/live"))[0] == 200
    gate.set()
    assert [(await client.answer())[0] for client in idle[:2]] == [200, 200]
    assert (await other.ask(get % b"/other"))[0] == 200
    for client in idle:
        client.writer.close()
    server.should_exit = True
    await task


async def test_a_packed_body_that_unpacks_to_nothing_is_cut_off() -> None:
    """Empty deflate blocks, of which nobody counts what comes out."""
    async with served() as (_, connect):
        client = await connect()
        packer = zlib.compressobj(wbits=31)
        head = packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)
        client.writer.write(POST + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % (1 << 30))
        client.writer.write(head)
        flood = asyncio.create_task(client.flood(b"\x00\x00\x00\xff\xff" * 16384, 400))
        status, body = await client.answer()
        assert (status, b"larger than what it packs" in body) == (400, True)
        flood.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await flood
        noise = os.urandom(600_000)  # grows a little when it is packed
        packed = gzip.compress(noise)
        ask = POST + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
        assert await (await connect()).ask(ask + packed) == (200, b"600000")


async def test_requests_in_any_pieces_are_answered_in_order() -> None:
    async with served() as (seen, connect):
        client = await connect()
        data = POST + b"content-length: 5\r\n\r\nhello"
        for cut in range(1, len(data)):
            client.writer.write(data[:cut])
            await client.writer.drain()
            await asyncio.sleep(0)
            assert await client.ask(data[cut:]) == (200, b"5")
        client.writer.write(data * 50)
        assert [await client.answer() for _ in range(50)] == [(200, b"5")] * 50
        assert len(seen.requests) == len(data) - 1 + 50


async def test_a_head_beyond_its_limit_is_431_and_costs_nothing() -> None:
    async with served() as (seen, connect):
        client = await connect()
        began = time.process_time()
        client.writer.write(b"GET /echo HTTP/1.1\r\nhost: x\r\nx: ")
        with suppress(ConnectionError):
            await client.flood(b"a" * 65536, 1000)
        assert time.process_time() - began < 2, "60 MiB of a header cost 5 s before"
        many = await connect()
        assert (await many.ask(b"GET /echo HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * HEAD_LIMIT))[0] == 431
        assert await many.closed()
        assert not seen.requests


async def test_a_head_just_within_its_limit_is_answered() -> None:
    async with served() as (_, connect):
        client = await connect()
        start = b"GET /echo HTTP/1.1\r\nhost: x\r\nx: "
        assert (await client.ask(start + b"a" * (HEAD_LIMIT - len(start)) + b"\r\n\r\n"))[0] == 200
        assert (await client.ask(start + b"a" * (HEAD_LIMIT - len(start) + 1) + b"\r\n\r\n"))[0] == 431


@pytest.mark.parametrize("start", [b"G", b"GET /echo HTTP/1.1\r\nhost: x\r\n", b"POST /echo HTTP/1.1\r\nhost"])
async def test_a_head_that_doesnt_end_is_408(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    async with served() as (_, connect):
        client = await connect()
        assert (await client.ask(start))[0] == 408
        assert await client.closed()


@pytest.mark.parametrize("framing", [b"content-length: 100\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n5\r\nab"])
async def test_a_body_that_comes_too_slowly_is_408(framing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.05)
    async with served() as (_, connect):
        client = await connect()
        assert (await client.ask(POST + framing))[0] == 408
        assert await client.closed()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with served(timeout_keep_alive=1) as (_, connect):
        assert await (await connect()).closed()


@pytest.mark.parametrize("inner", [b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * 40])
async def test_a_request_to_upgrade_is_answered_with_its_body(inner: bytes) -> None:
    async with served() as (seen, connect):
        client = await connect()
        head = POST + b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
        status = await client.ask(head + b"content-length: %d\r\n\r\n%b" % (len(inner), inner))
        assert status == (200, b"%d" % len(inner))
        assert await client.ask(POST + b"content-length: 2\r\n\r\nab") == (200, b"2")
        assert [path for path, _, _ in seen.requests] == ["/echo", "/echo"]


async def test_what_follows_a_chunked_body_is_no_request() -> None:
    async with served() as (seen, connect):
        client = await connect()
        body = b"5\r\nhello\r\n0\r\nx-trailer: secret\r\n\r\n"
        second = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
        assert await client.ask(POST + b"transfer-encoding: chunked\r\n\r\n" + body + second) == (200, b"5")
        assert await client.closed()
        assert [path for path, _, _ in seen.requests] == ["/echo"]
        assert "x-trailer" not in seen.requests[0][1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /echo HTTP/1.1\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc", 400),
        (POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
        (POST + b"x: 1\r\n y\r\n\r\n", 400),
        (POST + b"x : 1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_irregular_requests_are_refused_and_end_the_connection(data: bytes, status: int) -> None:
    async with served() as (seen, connect):
        client = await connect()
        found, body = await client.ask(data + b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")
        assert found == status
        assert json.loads(body)["error"]
        assert await client.closed()
        assert not seen.requests


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"deflate", raw_deflate), (b"x-gzip", gzip.compress)],
    ids=["gzip", "zlib", "deflate", "x-gzip"],
)
@pytest.mark.parametrize("size", [0, 1, 700_000])
async def test_packed_bodies_are_unpacked(coding: bytes, pack: Any, size: int) -> None:
    async with served() as (seen, connect):
        packed = pack(b"a" * size)
        client = await connect()
        head = POST + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (coding, len(packed))
        assert await client.ask(head + packed) == (200, b"%d" % size)
        assert "content-encoding" not in seen.requests[0][1]


@pytest.mark.parametrize(
    ("coding", "packed", "status"),
    [
        (b"gzip", gzip.compress(b"a" * (64 << 20)), 413),
        (b"gzip", gzip.compress(b"abc")[:-3], 400),
        (b"gzip", b"not gzip at all", 400),
        (b"gzip", gzip.compress(b"abc") + b"more", 400),
        (b"deflate", zlib.compress(b"abc")[:-2], 400),
        (b"br", b"abc", 415),
        (b"gzip, gzip", gzip.compress(gzip.compress(b"abc")), 415),
        (b"zstd", b"abc", 415),
    ],
    ids=[
        "a bomb",
        "cut gzip",
        "no gzip",
        "more than gzip",
        "cut deflate",
        "brotli",
        "twice",
        "zstd",
    ],  # gzip has the time in it
)
async def test_packed_bodies_that_cant_be_taken(coding: bytes, packed: bytes, status: int) -> None:
    async with served() as (_, connect):
        client = await connect()
        head = POST + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (coding, len(packed))
        assert (await client.ask(head + packed))[0] == status


async def test_a_bug_is_answered_and_counted_once() -> None:
    async with served() as (seen, connect):
        client = await connect()
        status, body = await client.ask(b"GET /bug HTTP/1.1\r\nhost: x\r\n\r\n")
        assert status == 500
        assert json.loads(body) == {"error": "server: expected to answer, found KeyError; its log has the details"}
        assert seen.bugs == 1
        assert (await client.ask(POST + b"content-length: 1\r\n\r\na"))[0] == 200


async def test_after_an_unpacked_body_the_client_s_leaving_is_waited_for() -> None:
    """A loop that listens for it spun for ever, and with it the whole process."""
    told = [{"type": "http.request", "body": gzip.compress(b"abc"), "more_body": False}]
    gone = asyncio.Event()

    async def receive() -> Any:
        if told:
            return told.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    found: list[Any] = []

    async def app(_: Any, receive: Any, __: Any) -> None:
        found.append(await receive())
        listening = asyncio.create_task(receive())
        assert not (await asyncio.wait([listening], timeout=0.05))[0]
        gone.set()
        found.append(await listening)

    scope = {"type": "http", "path": "/", "headers": [(b"content-encoding", b"gzip")]}
    async with asyncio.timeout(60):
        await Door(app)(scope, receive, lambda _: asyncio.sleep(0))
    assert found == [{"type": "http.request", "body": b"abc", "more_body": False}, {"type": "http.disconnect"}]


@pytest.mark.parametrize("value", [b" ", b"\t", b" \t"])
def test_a_head_is_judged_in_linear_time(value: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nhost: x\r\na:" + value * (32_000 // len(value)) + b"\x01"
    began = time.process_time()
    with pytest.raises(BadHead):
        parse_head(head)
    assert time.process_time() - began < 0.5, "3.7 s before"


def test_bytes_that_came_early_excuse_no_silence() -> None:
    progress = Progress(0.0)
    assert not progress.late(1.0, 64 << 20)
    assert not progress.late(20.9, 64 << 20)
    assert progress.late(21.1, 64 << 20)
    steady = Progress(0.0)
    assert not any(steady.late(float(second), second * LEAST_RATE) for second in range(1000))
    slow = Progress(0.0)
    assert any(slow.late(float(second), second * LEAST_RATE // 2) for second in range(60))


async def test_endless_trailers_are_refused() -> None:
    async with served() as (_, connect):
        client = await connect()
        client.writer.write(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ")
        with suppress(ConnectionError):
            await client.flood(b"a" * 65536, 100)
        assert (await client.answer())[0] in (200, 431)  # the body had ended for the application
        assert await client.closed()
        extension = await connect()
        extension.writer.write(POST + b"transfer-encoding: chunked\r\n\r\n1;")
        with suppress(ConnectionError):
            await extension.flood(b"a" * 65536, 100)
        assert (await extension.answer())[0] == 431


@pytest.mark.parametrize(
    "data",
    [POST + b"content-length: 1\r\n\r\na\r\n", b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n\r\n"],
    ids=["blank line after a body", "blank line after a head"],
)
async def test_a_connection_at_rest_is_closed_in_time(data: bytes) -> None:
    async with served(timeout_keep_alive=1) as (_, connect):
        client = await connect()
        assert (await client.ask(data))[0] == 200
        assert await client.closed()


async def test_who_leaves_answers_unread_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "WRITE_SECONDS", 0.2)
    async with served() as (_, connect):
        client = await connect()
        client.writer.transport.pause_reading()
        request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n"
        with suppress(ConnectionError):
            async with asyncio.timeout(60):
                await client.flood(request * 100, 10_000)
        assert client.writer.transport.is_closing()

"""A witness that is slow, lies or never ends, over a socket: a problem in words within its time, and nothing more."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from governed_api.printable import printable
from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import Signer, sign_checkpoint
from governed_serving.archive.witness.client import WitnessClient, WitnessProblem
from governed_serving.archive.witness.policy import Witness as Configured
from support.stream_server import accepting
from support.witness import Witness

NOTE = sign_checkpoint(Signer("log.example", bytes(32)), 3, bytes(32))
SECONDS = 1.0
Writer = asyncio.StreamWriter
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


async def _drip(out: Writer, *pieces: bytes, pause: float = 0.05) -> None:
    for piece in pieces:
        out.write(piece)
        await out.drain()
        await asyncio.sleep(pause)


async def _for_ever(out: Writer, head: bytes, piece: bytes, pause: float = 0.0) -> None:
    out.write(head)
    while True:
        await _drip(out, piece, pause=pause)


async def _at_once(out: Writer, *pieces: bytes) -> None:
    for piece in pieces:
        out.write(piece)
    await out.drain()


async def _reset(out: Writer) -> None:
    out.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    out.transport.abort()


ANSWERS: dict[str, Callable[[Writer], Awaitable[None]]] = {
    "says nothing": lambda _: asyncio.sleep(30),
    "drips its head": lambda out: _for_ever(out, b"HTTP/1.1 200 OK\r\n", b"x", 0.05),
    "drips its body": lambda out: _for_ever(out, OK + b"content-length: 1000\r\n\r\n", b"x", 0.05),
    "has a body without end": lambda out: _for_ever(out, OK + b"\r\n", b"x" * 65536),
    "has chunks without end": lambda out: _for_ever(
        out, OK + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "has headers without end": lambda out: _for_ever(out, OK, b"a: " + b"x" * 60000 + b"\r\n"),
    "goes on and on for now": lambda out: _for_ever(out, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.001),
    "claims an exabyte": lambda out: _at_once(out, OK + b"content-length: 1152921504606846976\r\n\r\n"),
    "packs a bomb": lambda out: _at_once(
        out, OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00"
    ),
    "speaks no HTTP": lambda out: _at_once(out, b"SSH-2.0-x\r\n\r\n\0\0\0"),
    "resets": _reset,
    "leads elsewhere": lambda out: _at_once(
        out, b"HTTP/1.1 307 x\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    ),
    "clears the screen": lambda out: _at_once(
        out, b"HTTP/1.1 500 x\r\ncontent-length: 22\r\n\r\n\x1b[2J\x1b[Hverified\xe2\x80\xaex\x07\r\nab"
    ),
    "cosigns with another key": lambda out: _at_once(out, _with_body(Witness(seed=bytes(32)).line(NOTE))),
    "cosigns another note": lambda out: _at_once(out, _with_body(Witness().line("other\n1\nAAAA\n"))),
    "says a size of many digits": lambda out: _at_once(
        out, b"HTTP/1.1 409 x\r\ncontent-type: text/x.tlog.size\r\ncontent-length: 9000\r\n\r\n" + b"9" * 9000
    ),
}


def _with_body(text: str) -> bytes:
    body = text.encode()
    return OK + b"content-length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def answering(how: Callable[[Writer], Awaitable[None]]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, out: Writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await how(out)
            await out.drain()
        out.close()

    async with accepting(serve) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_witness_that_means_harm_is_a_problem_in_words(answer: str) -> None:
    async with answering(ANSWERS[answer]) as url:
        configured = Configured(Cosigner.parse(Witness().vkey), url)
        client = WitnessClient(configured, seconds=SECONDS)
        for asked in (lambda: client.add_checkpoint(0, [], NOTE), lambda: client.kept("log.example")):
            began = time.monotonic()
            try:
                found = await asked()
            except WitnessProblem as problem:
                said = str(problem)
                assert printable(said) == said
                assert len(said) < 500
            else:
                assert isinstance(found, str), "what it keeps may be any text; no cosignature is taken"
            assert time.monotonic() - began < 30

"""Whenever a test ends, nothing that its server accepted stays open: a transport that is collected later fails another
test."""

import asyncio
import gc
import socket
import sys
import warnings
from contextlib import suppress

import pytest

from support.stream_server import accepting


@pytest.mark.parametrize("turns", range(8))
def test_a_connection_that_was_accepted_so_many_turns_before_the_end_is_closed(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own server loses one that was accepted two turns before."""

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def left() -> socket.socket:
        async with accepting(serve) as port:
            client = socket.create_connection(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
        return client

    lost: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(str(told.exc_value)))
    with warnings.catch_warnings(), asyncio.run(left()) as client:
        warnings.simplefilter("error")
        gc.collect()
        client.settimeout(30)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b"", "it is over"
    gc.collect()
    assert lost == []

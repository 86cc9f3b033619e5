"""A server of streams that leaves no connection open behind a test: also none that was accepted as the test ended."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["accepting"]

_TURNS = 4
"""Of the loop, in which a connection that was just accepted becomes a stream, and one that was aborted is gone."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def accepting(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port; ``serve`` runs for each connection, is cancelled at the end, and needn't close anything.

    Python 3.11 forgets a connection whose handler is cancelled before its first step, and one that is made when the
    listener is closed already; such a transport fails whichever test runs when it is collected. So handlers are ours,
    and what was accepted is made before the listener closes.
    """
    met: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    def meet(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        met.append((asyncio.ensure_future(serve(reader, out)), out))

    listener = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        await _turns()
        listener.close()
        for task, _ in met:
            task.cancel()
        await asyncio.gather(*(task for task, _ in met), return_exceptions=True)
        for _, out in met:
            out.transport.abort()
        await _turns()


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)

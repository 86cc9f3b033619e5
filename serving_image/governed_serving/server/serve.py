"""Sockets and signals: two uvicorn servers on one loop, bound before anything is loaded, drained before anything is closed."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from governed_serving.server.logs import event

__all__ = ["PortTaken", "bind", "drain", "server"]


class PortTaken(Exception):
    """The port can't be bound; the message names it."""


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A listening-ready socket. Raises PortTaken naming ``variable``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTaken(
            f"port {port} on {host}: expected it to be free, found {error.strerror}; stop the other process or set {variable}"
        ) from error
    sock.set_inheritable(True)
    return sock


class _Server(uvicorn.Server):
    """Signals are the process's affair, since there are two servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Any, *, http: Any = "httptools", grace: float = 60.0) -> uvicorn.Server:
    """A uvicorn server for ``app``. ``grace`` seconds for requests in flight at the end."""
    config = uvicorn.Config(
        app,
        http=http,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(grace) or 1,
        backlog=2048,
    )
    return _Server(config)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def drain(servers: list[uvicorn.Server], tasks: list[asyncio.Task[None]]) -> None:
    """Close the ports, let what is in flight finish, end the servers."""
    event("draining", servers=len(servers))
    for one in servers:
        one.should_exit = True
    await asyncio.gather(*tasks)

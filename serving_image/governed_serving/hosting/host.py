"""Sockets, signals and exit codes: bound before anything is loaded, drained before anything is closed."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop

from governed_api import runtime
from governed_serving.containment import Threads
from governed_serving.environment import InvalidSettings
from governed_serving.hosting.connection import BoundedConnection
from governed_serving.hosting.door import Door
from governed_serving.hosting.heap import start_is_over
from governed_serving.hosting.logs import install, log

__all__ = ["CannotServe", "Host", "listen", "run", "web_server"]


class CannotServe(Exception):
    """What keeps a process from serving, such as a port that is taken; one line for a person."""


def run(
    component: str, work: Callable[[], Coroutine[object, None, None]], expected: tuple[type[Exception], ...] = ()
) -> int:
    """Run a role until it is drained. Exit code: 0, or 1 with one line that says why it could not serve.

    ``expected`` are the errors that speak for themselves; another one is a bug, or a library that panicked, and its
    line has the traceback.
    """
    install(component)
    told: tuple[type[Exception], ...] = (CannotServe, InvalidSettings, OSError, *expected)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(work())
    except told as error:
        log("error", f"not serving: {_in_words(error)}", kind=type(error).__name__)
    except BaseException as error:  # SystemExit too: a role ends with a code of ours, and says why
        log("error", f"not serving: it failed unexpectedly: {_in_words(error)}", exception=error)
    else:
        return 0
    return 1


def _loop() -> asyncio.AbstractEventLoop:
    """Whose threads contain what they are given: nothing that is raised there ends the loop, or is waited for for
    ever."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    loop.set_default_executor(Threads(thread_name_prefix="work"))
    return loop


def _in_words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def listen(host: str, port: int, variable: str = runtime.HTTP_PORT) -> socket.socket:
    """A bound socket. Raises Problem naming the port and ``variable``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise CannotServe(
            f"port {port} on {host}: expected it to be free, found {error.strerror}; stop the other process or set {variable}"  # noqa: E501
        ) from error
    sock.set_inheritable(True)
    return sock


class _Server(uvicorn.Server):
    """Signals are the process's affair: it may have several servers, and more to close than sockets."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def web_server(app: Door, *, grace: float, **settings: Any) -> uvicorn.Server:
    """A uvicorn server for ``app``. ``grace``: seconds for requests in flight at the end; ``settings``:
    uvicorn.Config's."""
    common: dict[str, Any] = {
        "http": BoundedConnection,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": int(grace) or 1,
    }
    return _Server(uvicorn.Config(app, **common | settings))


class Host:
    """HTTP servers on their sockets; ``stop`` is set by SIGTERM, by SIGINT, or by who can't go on. Made on the event
    loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._servers: list[uvicorn.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)

    def start(self, server: uvicorn.Server, sock: socket.socket) -> None:
        """Serve on ``sock`` from now on; a server that ends by itself stops the host."""
        task = asyncio.create_task(server.serve([sock]))
        task.add_done_callback(lambda _: self.stop.set())
        self._servers.append(server)
        self._tasks.append(task)

    async def drain(self) -> None:
        """Close the ports, let what is in flight finish, end the servers. Raises what a server failed with."""
        log("info", "draining")
        failed = [s for s, task in zip(self._servers, self._tasks, strict=True) if task.done() and not s.started]
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks)
        if failed:
            raise CannotServe("the HTTP server ended before it had started; its log line says why")

    async def serve(self, server: uvicorn.Server, sock: socket.socket, leaving: Callable[[], None]) -> None:
        """The whole life of a process with one server: ``leaving`` is called when readiness must go, then it drains."""
        start_is_over()
        self.start(server, sock)
        await self.stop.wait()
        leaving()
        await self.drain()

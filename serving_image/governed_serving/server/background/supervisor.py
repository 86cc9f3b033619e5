"""The server's side: starts the process when somebody asks, counts what it says, starts it again when it dies, ends it.

The process answers on the server's own listening socket, so that not a byte of the rows passes the server's event loop;
calls that come while there is none wait in the socket's queue.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from governed_serving.hosting import give_way, log
from governed_serving.hosting.supervision import kept_running

__all__ = ["Supervisor"]

COMMAND = (sys.executable, "-m", "governed_serving.server.background")
QUEUE = 64
"""Connections that wait to be accepted."""
PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between an end and the next start: doubled each time, and back to the first after a life of ``STEADY``."""
STEADY = 60.0
PATIENCE = 10.0
"""Seconds to end in, when asked to."""
AWAY = b'{"error":"the process that computes these rows is being started again"}'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
)
FAREWELL = 1.0
"""Seconds that a caller who is turned away has to send what it wanted to."""


class Supervisor:
    """One process at a time over ``sock``, bound and not yet listening. ``count`` is told a counter's name and by how
    much it grew."""

    def __init__(
        self, sock: socket.socket, count: Callable[[str, int], None], command: Sequence[str] = COMMAND
    ) -> None:
        self._sock, self._count, self._command = sock, count, command
        self._task: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Listen; from now on whoever asks is answered."""
        self._sock.setblocking(False)
        self._sock.listen(QUEUE)
        self._task = asyncio.create_task(kept_running("the process for the explainer's rows", self._keep))

    async def stop(self) -> None:
        """Let calls in flight finish, for at most ``PATIENCE`` seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._sock.close()
        process = self.process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _keep(self) -> None:
        pause = PAUSE
        while True:
            await self._asked()
            began = time.monotonic()
            why = await self._life()
            if time.monotonic() - began > STEADY:
                pause = PAUSE
            self._count("internal_restarts", 1)
            log(
                "error",
                "the process for the explainer's rows ended; the next call starts it again",
                why=why,
                pause=pause,
            )
            await self._away(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _asked(self) -> None:
        """Until a connection waits; it isn't accepted here."""
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._sock, asked.set)
        try:
            await asked.wait()
        finally:
            loop.remove_reader(self._sock)

    async def _life(self) -> str:
        """One process, from start to end; how it ended."""
        try:
            fd = self._sock.fileno()
            self.process = process = await asyncio.create_subprocess_exec(
                *self._command,
                str(fd),
                pass_fds=[fd],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return str(error)
        give_way(process.pid, os.nice(0))  # by the length of its turns; behind all others only once it has started
        assert process.stdout is not None
        async for line in process.stdout:
            self._counted(line)
        return f"exit code {await process.wait()}"

    def _counted(self, line: bytes) -> None:
        name, _, number = line.decode(errors="replace").partition(" ")
        if number.strip().isdecimal():
            self._count(name, int(number))
        else:
            log(
                "warning", "expected a counter and a number from the process for the explainer's rows", found=repr(line)
            )

    async def _away(self, seconds: float) -> None:
        """Turn callers away at once, rather than let them wait for what may not come: they retry."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._refuse)
        try:
            await asyncio.sleep(seconds)
        finally:
            loop.remove_reader(self._sock)

    def _refuse(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except OSError:  # the caller left
            return
        self._count("internal_refused", 1)
        if len(self._leaving) >= QUEUE:
            connection.close()
            return
        task = asyncio.create_task(_turned_away(connection))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _turned_away(connection: socket.socket) -> None:
    """A status, and then time to read it: closed with unread bytes, the connection would be reset before the caller
    has."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    with connection, suppress(OSError):  # TimeoutError is one; the caller left, or won't
        async with asyncio.timeout(FAREWELL):
            await loop.sock_sendall(connection, BUSY % (len(AWAY), AWAY))
            connection.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(connection, 1 << 16):
                pass

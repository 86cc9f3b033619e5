"""``python -m governed_serving.server.background FD``: answers the internal lane on the listening socket FD until
standard input ends.

Started by the server (supervisor.py), with its environment; writes what it counted to standard output, a line each.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable

from governed_api.resolved import ResolvedModel
from governed_serving import hosting
from governed_serving.artefact import ArtefactError
from governed_serving.containment import Threads
from governed_serving.environment import read_model
from governed_serving.hosting import web_server
from governed_serving.server import composition
from governed_serving.server.app.internal import InternalApp
from governed_serving.server.app.service import Gateway
from governed_serving.server.background.priority import take_what_is_left
from governed_serving.server.background.texts import RememberedTexts
from governed_serving.server.background.throttle import CpuThrottle, cpu_of, piece_rows
from governed_serving.server.batch import BatchPlan
from governed_serving.server.predictors import Columns, Outputs
from governed_serving.server.predictors.loading import predictor_of
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.rows import Rows
from governed_serving.server.settings import ServerSettings

EXPECTED = (ArtefactError, ValueError)

GRACE = 5.0
"""Seconds for calls in flight at the end."""


def _counter() -> Callable[[str, int], None]:
    """Tells the server what was counted. From here on nothing else that prints gets there."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def count(name: str, number: int) -> None:
        try:
            print(name, number, file=told, flush=True)
        except BrokenPipeError:
            return  # the server is gone, and so is this process in a moment

    return count


def _rows(settings: ServerSettings, resolved: ResolvedModel, server: int, count: Callable[[str, int], None]) -> Rows:
    """Verify the artefact, load the model. Raises ArtefactError, InvalidSettings, ValueError, OSError."""
    artefact = composition.load_artefact(settings, resolved)
    predictor = predictor_of(artefact, threads=settings.threads, segmented=RememberedTexts())
    signature = predictor.signature
    pace = CpuThrottle(piece_rows(len(artefact.model)), cpu_of(server), threads=settings.threads)
    pool = Threads(1, thread_name_prefix="onnxruntime")

    async def compute(columns: Columns) -> Outputs:
        loop = asyncio.get_running_loop()
        parts = await pace.pieces(
            len(columns[0]),
            lambda piece: loop.run_in_executor(pool, predictor.run, [column[piece] for column in columns]),
        )
        return parts[0] if len(parts) == 1 else BatchPlan.joined(parts)

    return Rows(V2Codec(signature, resolved.name, settings.revision), signature, compute, count)


async def _ended(fd: int) -> None:
    """Until the other end of ``fd`` is closed, be it that the server stops or that it was killed."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, lambda: None if os.read(fd, 64) else ended.set())
    await ended.wait()
    loop.remove_reader(fd)


async def _serve(sock: socket.socket, server: int) -> None:
    settings = ServerSettings.from_environment()
    resolved, count = read_model(settings.spec), _counter()
    gateway = Gateway(resolved.name, why="", rows=_rows(settings, resolved, server, count))
    web = web_server(
        InternalApp(gateway, settings.max_body, count, settings.pod_tokens.server), grace=GRACE, timeout_keep_alive=75
    )
    hosting.start_is_over()
    take_what_is_left()  # not before: a start that gets only what is left never ends on a busy machine
    serving, ended = asyncio.create_task(web.serve([sock])), asyncio.create_task(_ended(sys.stdin.fileno()))
    await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    web.should_exit = True
    await serving
    ended.cancel()


def main() -> int:
    """0 when the server has ended it, 1 with one line on stderr when it can't serve."""
    server = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):  # they reach the whole group; the server decides when it has drained
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    return hosting.run("server", lambda: _serve(sock, server), EXPECTED)


if __name__ == "__main__":
    sys.exit(main())

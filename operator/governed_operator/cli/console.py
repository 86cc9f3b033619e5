"""`governed console`: a read-only web page about the models that were run here, or those of a namespace."""

import asyncio
import errno
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster
from governed_operator.local.workdir import RUNS

if TYPE_CHECKING:
    from governed_operator.console.app import Console

PORT = 8100
"""Beside those of governed run, whose archive has 8090."""


def command(
    below: Annotated[Path, typer.Option(help="Folder with the work directories of local runs.")] = RUNS,
    *,
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    expose: Annotated[
        bool,
        typer.Option(
            "--expose-without-authentication",
            help="Listen on an address that others reach: whoever does reads requests and answers of every model.",
        ),
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show models, verdicts, decisions, ledger and clauses as web pages that change nothing, until Ctrl-C."""
    from governed_operator.cli.console_upstream import ClusterUpstream, LocalUpstream
    from governed_operator.console.app import Console
    from governed_operator.console.server import is_loopback

    if not is_loopback(host) and not expose:
        fail(
            f"--host {host}: the console asks nobody who they are, and shows requests and answers of every model: keep "
            "to 127.0.0.1 (ssh -L brings it elsewhere), or say --expose-without-authentication"
        )
    cluster = in_cluster("models", namespace, context)
    upstream = LocalUpstream(below) if cluster is None else ClusterUpstream(namespace, context)
    try:
        ended = asyncio.run(_serve(Console(upstream, report=_told), host.strip("[]"), port, browse=browse))
    except OSError as error:
        ports = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "choose another --port (0: a free one)" if ports else "expected an address of this machine as --host"
        fail(f"{host}:{port}: {error.strerror or error}: {remedy}")
    if ended == signal.SIGINT:
        raise typer.Exit(130)


def _told(line: str) -> None:
    from governed_api.printable import printable

    print(printable(line), file=sys.stderr)


async def _serve(console: "Console", host: str, port: int, *, browse: bool) -> int:
    """Until a signal, which is returned. Raises OSError."""
    from governed_operator.console.server import Server

    server = Server(console, host)
    bound = await server.start(port)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound}/"
    print(f"{url}  (read-only; no authentication: whoever reaches this port sees it)", flush=True)
    if browse:  # a browser in a terminal returns when it is left
        threading.Thread(target=_opened, args=(url,), daemon=True).start()
    try:
        return await ended
    finally:
        await server.stop()
        console.stop()


def _opened(url: str) -> None:
    if not webbrowser.open(url):
        _told("no browser could be opened: open the address yourself")

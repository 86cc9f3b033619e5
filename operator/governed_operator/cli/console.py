"""`governed console`: a read-only web page about the models that were run here, or those of a namespace."""

import asyncio
import signal
import sys
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
        asyncio.run(_serve(Console(upstream, report=_told), host, port, browse=browse))
    except OSError as error:
        fail(f"{host}:{port}: {error.strerror or error}: choose another --port (0: a free one)")


def _told(line: str) -> None:
    from governed_api.printable import printable

    print(printable(line), file=sys.stderr)


async def _serve(console: "Console", host: str, port: int, *, browse: bool) -> None:
    from governed_operator.console.server import Server

    server, done = Server(console, host), asyncio.Event()
    bound = await server.start(port)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound}/"
    print(f"{url}  (read-only; no authentication: whoever reaches this port sees it)", flush=True)
    if browse:
        await asyncio.to_thread(webbrowser.open, url)
    await done.wait()
    await server.stop()
    console.stop()

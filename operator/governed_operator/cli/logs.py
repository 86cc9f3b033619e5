"""`governed logs`: what a model's containers wrote, here or in a cluster, as a person reads it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_operator.cli.auditor_access import WorkdirOption
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, Context, Namespace, in_cluster
from governed_operator.cli.model_options import Name

if TYPE_CHECKING:
    from governed_operator.local.kept_logs import LogLine

_LOOK = 0.2
"""Seconds between two looks at the files."""

Container = Annotated[
    str | None,
    typer.Option("--container", "-c", help="Only this one, such as server or auditor.", show_default="all"),
]
Tail = Annotated[int, typer.Option(help="Last lines of each container.", min=1, max=100_000)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")]


def command(
    name: Name,
    container: Container = None,
    tail: Tail = 200,
    follow: Follow = False,
    *,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print what a model's containers wrote: of this run and of earlier ones here, or through kubectl in a cluster."""
    from governed_operator.local.logs import Logs, readable
    from governed_operator.local.plain_console import plain_console
    from governed_operator.local.workdir import Workdir

    cluster = in_cluster(name, namespace, context)
    logs = Logs(plain_console())
    try:
        if cluster is None:
            lines = _here(Workdir.of(name, workdir).logs, container, tail, follow)
        else:
            lines = cluster.log_lines(container, tail, follow)
        for _, whose, text in lines:
            logs.show(whose, *readable(text))
    except (ClusterError, OSError) as error:
        fail(str(error))


def _here(kept: Path, container: str | None, tail: int, follow: bool) -> "Iterator[LogLine]":
    from governed_operator.local.kept_logs import Reader, containers

    known = containers(kept)
    if not known:
        fail(f"{kept}: no lines are kept there: start the model with governed run FILE, or name its --workdir")
    if container is not None and container not in known:
        fail(f"--container {container}: expected one of {', '.join(known)}")
    reader = Reader(kept, container)
    yield from reader.last(tail)
    while follow:
        time.sleep(_LOOK)
        yield from reader.new()

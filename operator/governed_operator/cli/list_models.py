"""`governed list`: the models that were run here, or those of a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, Context, Namespace, models_in_cluster
from governed_operator.cli.model_options import AsJson, print_json
from governed_operator.local.workdir import RUNS

if TYPE_CHECKING:
    from governed_operator.local.overview import Summary


def command(
    below: Annotated[Path, typer.Option(help="Folder with the work directories of local runs.")] = RUNS,
    *,
    namespace: Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of the whole cluster.")] = False,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """List models with their state and bias verdict: those that were run here, or those of a cluster."""
    from governed_operator.local.overview_view import models_table
    from governed_operator.local.plain_console import line_console

    if all_namespaces and namespace is not None:
        fail("--all-namespaces and --namespace: expected one of them")
    cluster = all_namespaces or namespace is not None or context is not None
    models = _in_cluster(namespace, context, all_namespaces) if cluster else _here(below)
    if as_json:
        print_json([model.plain() for model in models])
    elif models:
        line_console().print(models_table(models, "namespace" if cluster else "directory"))
    else:
        print("no GovernedModel is there" if cluster else f"no model was run below {below}: governed run FILE runs one")


def _here(below: Path) -> "list[Summary]":
    from governed_operator.local.errors import LocalError
    from governed_operator.local.overview import local_models, summary

    try:
        return [summary(workdir) for workdir in local_models(below)]
    except LocalError as error:
        fail(str(error))


def _in_cluster(namespace: str | None, context: str | None, everywhere: bool) -> "list[Summary]":
    from governed_operator.local.errors import LocalError
    from governed_operator.local.overview import cluster_summary

    try:
        return [cluster_summary(resource) for resource in models_in_cluster(namespace, context, everywhere)]
    except (ClusterError, LocalError) as error:
        fail(str(error))

"""`governed status`: what a model does at this moment."""

import typer

from governed_operator.cli.auditor_access import WorkdirOption
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, Context, Namespace, in_cluster
from governed_operator.cli.model_options import AsJson, Name, print_json


def command(
    name: Name,
    *,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a model serves, its bias verdict, what waits for a person, and its ledger; exit status 3 when it
    doesn't serve."""
    from governed_operator.local.errors import LocalError
    from governed_operator.local.overview import cluster_overview, local_overview
    from governed_operator.local.overview_view import overview_view
    from governed_operator.local.plain_console import line_console
    from governed_operator.local.workdir import Workdir

    cluster = in_cluster(name, namespace, context)
    try:
        if cluster is None:
            overview = local_overview(Workdir.of(name, workdir))
        else:
            overview = cluster_overview(cluster.resource(), cluster.report(), cluster.archive_report())
    except (ClusterError, LocalError) as error:
        fail(str(error))
    if as_json:
        print_json(overview.plain())
    else:
        line_console().print(overview_view(overview))
    if not overview.summary.serves:
        raise typer.Exit(3)

"""`governed contests`: the contested decisions that wait for a person."""

from typing import Annotated

import typer

from governed_api.printable import printable
from governed_operator.cli.auditor_access import AUDITOR, PodToken, PodTokenFile, Url, WorkdirOption, auditor_client
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    url: Url = AUDITOR,
    pod_token_file: PodTokenFile = None,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List contested decisions that no person has decided, oldest deadline first; exit status 3 when one is overdue."""
    from governed_operator.local.client import ClientError

    cluster = in_cluster(name, namespace, context)
    try:
        with auditor_client(url, name, PodToken(pod_token_file, workdir), cluster) as client:
            found = client.contests()
    except ClientError as error:
        fail(str(error))
    for one in found:
        late = "  overdue" if one["overdue"] else ""
        print(printable(f"{one['id']}  contested {one['time']}  to be decided by {one['deadline']}{late}"))
    if not found:
        print(f"{name}: no contested decision is open")
    if any(one["overdue"] for one in found):
        raise typer.Exit(3)

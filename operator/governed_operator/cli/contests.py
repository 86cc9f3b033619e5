"""`governed contests`: the contested decisions that wait for a person."""

from typing import Annotated

import typer

from governed_api.printable import printable
from governed_operator.cli.api_key import ApiKeyFile
from governed_operator.cli.auditor_access import Credentials, PodTokenFile, Url, WorkdirOption, auditor_client
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    url: Url = None,
    *,
    pod_token_file: PodTokenFile = None,
    api_key_file: ApiKeyFile = None,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List contested decisions that no person has decided, oldest deadline first; exit status 3 when one is overdue."""
    from governed_operator.local.json_client import ClientError

    cluster = in_cluster(name, namespace, context)
    try:
        with auditor_client(url, name, Credentials(pod_token_file, workdir, api_key_file), cluster) as client:
            contests = client.contests()
    except ClientError as error:
        fail(str(error))
    for contest in contests:
        late = "  overdue" if contest["overdue"] else ""
        print(printable(f"{contest['id']}  contested {contest['time']}  to be decided by {contest['deadline']}{late}"))
    if not contests:
        print(f"{name}: no contested decision is open")
    if any(contest["overdue"] for contest in contests):
        raise typer.Exit(3)

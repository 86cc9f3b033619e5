"""`governed acknowledge`: a person answers for going on although the bias verdict failed."""

from typing import Annotated

import typer

from governed_operator.cli.api_key import ApiKeyFile
from governed_operator.cli.auditor_access import Credentials, PodTokenFile, Url, WorkdirOption, auditor_client
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    by: Annotated[str, typer.Option(help="Who acknowledges.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why the model may keep serving.", show_default=False)],
    *,
    url: Url = None,
    pod_token_file: PodTokenFile = None,
    api_key_file: ApiKeyFile = None,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Acknowledge the alarm of a failed verdict: its action is lifted, the verdict stays; recorded in the ledger."""
    from governed_operator.local.json_client import ClientError

    cluster = in_cluster(name, namespace, context)
    try:
        with auditor_client(url, name, Credentials(pod_token_file, workdir, api_key_file), cluster) as client:
            client.acknowledge(by, reason)
    except ClientError as error:
        fail(str(error))
    print(f"{name}: acknowledged by {by}; it is recorded in the ledger")

"""`governed contest`: a person asks for the review of a single decision."""

from typing import Annotated

import typer

from governed_operator.cli.api_key import ApiKeyFile
from governed_operator.cli.auditor_access import Credentials, PodTokenFile, Url, WorkdirOption, auditor_client
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster
from governed_operator.cli.model_options import print_json

PATIENCE = 300.0
"""Seconds: an explanation, and two answers of a runtime that generates text."""


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    request: Annotated[
        str, typer.Argument(help="X-Prediction-Id of the answer that is contested.", show_default=False)
    ],
    *,
    by: Annotated[str, typer.Option(help="Who contests it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.", show_default=False)],
    url: Url = None,
    pod_token_file: PodTokenFile = None,
    api_key_file: ApiKeyFile = None,
    workdir: WorkdirOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Contest a decision: prints its record, an explanation and a counterfactual as JSON; recorded in the ledger."""
    from governed_operator.local.json_client import ClientError

    cluster = in_cluster(name, namespace, context)
    try:
        with auditor_client(
            url, name, Credentials(pod_token_file, workdir, api_key_file), cluster, timeout=PATIENCE
        ) as client:
            answer = client.contest(request, by, reason)
    except ClientError as error:
        fail(str(error))
    print_json(answer)

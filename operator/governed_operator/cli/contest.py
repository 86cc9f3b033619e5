"""`governed contest`: a person asks for the review of a single decision."""

import json
import sys
from typing import Annotated

import typer

from governed_operator.cli.fail import fail

PATIENCE = 300.0
"""Seconds: an explanation, and two answers of a runtime that generates text."""


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    request: Annotated[str, typer.Argument(help="Id of the request whose decision is contested.", show_default=False)],
    by: Annotated[str, typer.Option(help="Who contests it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.", show_default=False)],
    url: Annotated[str, typer.Option(help="Address of the model's auditor.")] = "http://127.0.0.1:8084",
) -> None:
    """Contest a decision: prints its record, an explanation and a counterfactual as JSON; recorded in the ledger.

    In a cluster: kubectl port-forward deployment/NAME-predictor 8084
    """
    from governed_operator.local.client import ClientError, ModelClient

    try:
        with ModelClient(url, name, timeout=PATIENCE) as client:
            answer = client.contest(request, by, reason)
    except ClientError as error:
        fail(str(error))
    json.dump(answer, sys.stdout, ensure_ascii=False, indent=2)
    print()

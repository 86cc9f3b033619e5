"""`governed contest`: a person asks for the review of a single decision."""

import json
import sys
from typing import Annotated

import typer

from governed_api.runtime import PORT_AUDITOR, on_this_machine
from governed_operator.cli.fail import fail

_URL = f"Address of the model's auditor; in a cluster: kubectl port-forward deployment/NAME-predictor {PORT_AUDITOR}."

PATIENCE = 300.0
"""Seconds: an explanation, and two answers of a runtime that generates text."""


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    request: Annotated[
        str, typer.Argument(help="X-Prediction-Id of the answer that is contested.", show_default=False)
    ],
    by: Annotated[str, typer.Option(help="Who contests it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.", show_default=False)],
    url: Annotated[str, typer.Option(help=_URL)] = on_this_machine(PORT_AUDITOR),
) -> None:
    """Contest a decision: prints its record, an explanation and a counterfactual as JSON; recorded in the ledger."""
    from governed_operator.local.client import ClientError, ModelClient

    try:
        with ModelClient(url, name, timeout=PATIENCE) as client:
            answer = client.contest(request, by, reason)
    except ClientError as error:
        fail(str(error))
    json.dump(answer, sys.stdout, ensure_ascii=False, indent=2)
    print()

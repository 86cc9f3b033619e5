"""`governed acknowledge`: a person answers for going on although the bias verdict failed."""

from typing import Annotated

import typer

from governed_api.runtime import PORT_AUDITOR, on_this_machine
from governed_operator.cli.fail import fail

_URL = f"Address of the model's auditor; in a cluster: kubectl port-forward deployment/NAME-predictor {PORT_AUDITOR}."


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    by: Annotated[str, typer.Option(help="Who acknowledges.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why the model may keep serving.", show_default=False)],
    url: Annotated[str, typer.Option(help=_URL)] = on_this_machine(PORT_AUDITOR),
) -> None:
    """Acknowledge the alarm of a failed verdict: its action is lifted, the verdict stays; recorded in the ledger."""
    from governed_operator.local.client import ClientError, ModelClient

    try:
        with ModelClient(url, name) as client:
            client.acknowledge(by, reason)
    except ClientError as error:
        fail(str(error))
    print(f"{name}: acknowledged by {by}; it is recorded in the ledger")

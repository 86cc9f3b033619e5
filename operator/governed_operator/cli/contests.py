"""`governed contests`: the contested decisions that wait for a person."""

from typing import Annotated

import typer

from governed_api.runtime import PORT_AUDITOR, on_this_machine
from governed_operator.cli.fail import fail

_URL = f"Address of the model's auditor; in a cluster: kubectl port-forward deployment/NAME-predictor {PORT_AUDITOR}."


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    url: Annotated[str, typer.Option(help=_URL)] = on_this_machine(PORT_AUDITOR),
) -> None:
    """List contested decisions that no person has decided, oldest deadline first; exit status 3 when one is overdue."""
    from governed_operator.local.client import ClientError, ModelClient

    try:
        with ModelClient(url, name) as client:
            found = client.contests()
    except ClientError as error:
        fail(str(error))
    for one in found:
        late = "  overdue" if one["overdue"] else ""
        print(f"{one['id']}  contested {one['time']}  to be decided by {one['deadline']}{late}")
    if not found:
        print(f"{name}: no contested decision is open")
    if any(one["overdue"] for one in found):
        raise typer.Exit(3)

"""`governed infer`: asks a served model for one answer."""

import json
import sys
from typing import Annotated

import typer

from governed_api.printable import printable
from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.cli.fail import fail
from governed_operator.cli.model_options import Instance, Name, Url, features


def command(
    name: Name,
    instance: Instance,
    url: Url = on_this_machine(PORT_HTTP),
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as received, as JSON.")] = False,
) -> None:
    """Ask a model for one answer: its outputs, and the request's id in the ledger."""
    from governed_operator.local.client import ClientError, ModelClient
    from governed_operator.local.explanation_view import answer_view
    from governed_operator.local.plain_console import plain_console

    row = features(instance)
    try:
        with ModelClient(url, name) as client:
            answer, metadata = client.infer([row]), client.metadata()
    except ClientError as error:
        fail(str(error))
    if as_json:
        sys.stdout.write(printable(json.dumps(answer, ensure_ascii=False, indent=2), keep="\n"))
        print()
        return
    plain_console().print(answer_view(answer, metadata))

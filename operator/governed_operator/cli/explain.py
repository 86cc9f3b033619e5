"""`governed explain`: asks a served model for an explanation."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api.json_types import Scalar
from governed_api.printable import printable
from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.cli.fail import fail

_URL = f"Address of the model's server; in a cluster: kubectl port-forward deployment/NAME-predictor {PORT_HTTP}."


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    instance: Annotated[
        list[str],
        typer.Argument(
            help='Raw features: name=value …, or JSON such as {"sex": "female"}, or @FILE.', show_default=False
        ),
    ],
    url: Annotated[str, typer.Option(help=_URL)] = on_this_machine(PORT_HTTP),
    method: Annotated[
        str | None, typer.Option(help="Explanation method; default: the manifest's.", show_default=False)
    ] = None,
    interactions: Annotated[
        bool, typer.Option("--interactions", help="Show the interactions of pairs of features, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as received, as JSON.")] = False,
) -> None:
    """Explain one prediction of a model that serves here or in a cluster."""
    from governed_operator.local.client import ClientError, ModelClient
    from governed_operator.local.explanation_view import explanation_view
    from governed_operator.local.plain_console import plain_console

    row = _features(instance)
    parameters: dict[str, str | bool] = {"method": method} if method else {}
    if interactions:
        parameters["interactions"] = True
    try:
        with ModelClient(url, name) as client:
            answer = client.explain(row, parameters)
    except ClientError as error:
        fail(str(error))
    if as_json:
        sys.stdout.write(printable(json.dumps(answer, ensure_ascii=False, indent=2), keep="\n"))
        print()
        return
    plain_console().print(explanation_view(answer))


def _features(words: list[str]) -> dict[str, Scalar]:
    """name=value …, JSON, or @FILE of JSON; ends the command with what was expected otherwise."""
    first = words[0]
    if not first.startswith(("{", "@")):
        lacking = next((word for word in words if not word.partition("=")[1]), None)
        if lacking is not None:
            fail(f"{lacking}: expected name=value, a JSON mapping of features, or @FILE")
        return {name: value for name, _, value in (word.partition("=") for word in words)}
    try:
        row = json.loads(Path(first[1:]).read_text(encoding="utf-8") if first.startswith("@") else first)
    except (OSError, ValueError) as error:
        fail(f"{first}: {error}: expected a JSON mapping of features, or @FILE")
    if not isinstance(row, dict):
        fail(f"expected a JSON mapping of features, found {type(row).__name__}")
    return row

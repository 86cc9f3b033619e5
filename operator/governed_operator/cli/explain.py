"""`governed explain`: asks a served model for an explanation."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    instance: Annotated[
        str, typer.Argument(help='Raw features as JSON, such as {"sex": "female"}, or @FILE.', show_default=False)
    ],
    url: Annotated[str, typer.Option(help="Address of the model's server.")] = "http://127.0.0.1:8080",
    method: Annotated[str | None, typer.Option(help="Another method than the manifest's.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as it came.")] = False,
) -> None:
    """Explain one prediction of a model that serves here or in a cluster."""
    from rich.console import Console

    from governed_operator.client import ClientError, ModelClient
    from governed_operator.local.explanation_view import explanation_view

    try:
        text = Path(instance[1:]).read_text(encoding="utf-8") if instance.startswith("@") else instance
        row = json.loads(text)
    except (OSError, ValueError) as error:
        fail(f"{instance}: {error}: expected a JSON mapping of features, or @FILE")
    if not isinstance(row, dict):
        fail(f"expected a JSON mapping of features, found {type(row).__name__}")
    try:
        with ModelClient(url, name) as client:
            answer = client.explain(row, {"method": method} if method else {})
    except ClientError as error:
        fail(str(error))
    if as_json:
        json.dump(answer, sys.stdout, ensure_ascii=False, indent=2)
        print()
        return
    Console(highlight=False).print(explanation_view(answer))

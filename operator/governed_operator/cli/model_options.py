"""How a command names a served model and a row for it, and gives an answer as it came."""

import json
from pathlib import Path
from typing import Annotated

import typer

from governed_api.json_types import Scalar
from governed_api.printable import printable
from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.cli.fail import fail

__all__ = ["AsJson", "Instance", "Name", "Url", "features", "print_json"]

_URL = f"Address of the model's server; in a cluster: kubectl port-forward deployment/NAME-predictor {PORT_HTTP}."

Name = Annotated[str, typer.Argument(help="Model.", show_default=False)]
Instance = Annotated[
    list[str],
    typer.Argument(help='Raw features: name=value …, or JSON such as {"sex": "female"}, or @FILE.', show_default=False),
]
Url = Annotated[
    str | None, typer.Option(help=_URL, show_default=f"of the local run, else {on_this_machine(PORT_HTTP)}")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as received, as JSON.")]


def print_json(answer: object) -> None:
    """On stdout, indented; characters that a terminal would act on are escaped."""
    print(printable(json.dumps(answer, ensure_ascii=False, indent=2), keep="\n"))


def features(words: list[str]) -> dict[str, Scalar]:
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

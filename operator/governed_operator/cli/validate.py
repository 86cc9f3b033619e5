"""`governed validate FILE…`: what an API server would say, offline."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api.printable import printable
from governed_operator.cli.fail import fail


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Manifests of GovernedModels and ModelConsumers.", show_default=False)
    ],
) -> None:
    """Say exactly what an API server would say of each manifest; exit 1 when it would refuse one."""
    from governed_operator.local.manifest_file import ManifestError, documents, findings

    refused = False
    for path in files:
        try:
            lines = findings(path)
            names = [f"{d['kind']} {d['metadata']['name']}" for d in documents(path)] if not lines else []
        except ManifestError as error:
            fail(str(error))
        for line in lines:
            print(printable(line), file=sys.stderr)
        for name in names:
            print(printable(f"{path}: {name} is valid"))
        refused = refused or bool(lines)
    if refused:
        raise typer.Exit(1)

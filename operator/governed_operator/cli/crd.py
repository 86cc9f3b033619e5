"""`governed crd`: the CRDs, generated from the typed spec."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail


def command(
    check: Annotated[
        Path | None, typer.Option(help="Fail when the CRD files in this folder differ.", show_default=False)
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the CRD files into this folder.", show_default=False)
    ] = None,
) -> None:
    """Print both CRDs, or check or write their files."""
    from governed_api import schema

    if check and write:
        fail("--check and --write exclude each other", 2)
    folder = check or write
    if folder and not folder.is_dir():
        fail(f"{folder}: expected a folder that holds the CRD files")
    if check:
        stale = schema.check(check)
        if stale:
            fail(f"{check}: {', '.join(stale)} differ from the types: run governed crd --write {check}")
    elif write:
        for path in schema.write(write):
            print(path)
    else:
        sys.stdout.write("".join(schema.to_yaml(d) for d in schema.crd_documents()))

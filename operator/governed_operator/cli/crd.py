"""`governed crd`: the CRDs, generated from the typed spec."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of the CRD files.")] = Path("crds"),
    check: Annotated[bool, typer.Option("--check", help="Fail when the files differ from the types.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the files.")] = False,
) -> None:
    """Print the CRDs, or check or write their files."""
    from governed_api import schema

    if check and write:
        fail("--check and --write exclude each other", 2)
    if (check or write) and not folder.is_dir():
        fail(f"{folder}: expected a folder that holds the CRD files")
    if check:
        stale = schema.check(folder)
        if stale:
            fail(f"{folder}: {', '.join(stale)} differ from the types: run governed crd {folder} --write")
    elif write:
        for path in schema.write(folder):
            print(path)
    else:
        sys.stdout.write("".join(schema.to_yaml(d) for d in schema.crd_documents()))

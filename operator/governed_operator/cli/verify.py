"""`governed verify`: recomputes a ledger offline (a subprocess of the serving side)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail
from governed_operator.local.serving_side import module


def command(
    target: Annotated[
        str,
        typer.Argument(
            help="Archive folder, exported bundle, URL, or the --workdir of a local run.", show_default=False
        ),
    ],
    key_file: Annotated[
        Path | None, typer.Option(help="Verifier key that the checkpoint must be signed with.", show_default=False)
    ] = None,
    request: Annotated[
        str | None, typer.Option("--id", help="Prove that this request is in the ledger.", show_default=False)
    ] = None,
) -> None:
    """Recompute the whole Merkle tree, check signatures and blobs; exit 1 reports the first invalid entry or blob."""
    from governed_operator.local.workdir import Workdir

    environment = dict(os.environ)
    workdir = Workdir(Path(target))
    if "://" not in target and workdir.archive_folder.is_dir():
        target = str(workdir.archive_folder)
        environment |= workdir.archive_environment()
    words = [target]
    if key_file:
        words += ["--key-file", str(key_file)]
    if request:
        words += ["--id", request]
    program = module("governed_serving.archive", "verify")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    done = subprocess.run([sys.executable, *program, *words], check=False, env=environment)
    raise typer.Exit(done.returncode)

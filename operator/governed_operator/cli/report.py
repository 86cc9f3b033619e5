"""`governed report`: one self-contained HTML page about a model (a subprocess of the serving side)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_operator.cli.fail import fail
from governed_operator.local.serving_side import module


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    workdir: Annotated[
        Path | None, typer.Option(help="Working directory of the local run.", show_default=".governed/NAME")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file.", show_default="NAME.html")] = None,
    model_key: Annotated[
        Path | None,
        typer.Option(
            help="The model's key-encryption key, which opens its artefact and requests.",
            show_default="of the local run",
        ),
    ] = None,
) -> None:
    """Write data manifest, training curves, gates, group rates, explanations, keys and ledger as one HTML page."""
    from governed_operator.local.workdir import Workdir

    local = Workdir(workdir or Path(".governed") / name)
    report = local.reports / f"{name}.json"
    if not report.is_file():
        fail(f"{report}: no such report: run the model first (governed run), or name its --workdir")
    program = module("governed_serving.dossier", "html")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    target = output or Path(f"{name}.html")
    words = ["--model", name, "--report", str(report), "--archive", str(local.archive_folder), "--output", str(target)]
    key = model_key or local.secrets / object_names.own_kek(name) / rt.KEK_NAME
    if key.is_file():
        words += ["--model-key", str(key)]
    environment = dict(os.environ) | local.archive_environment()
    done = subprocess.run([sys.executable, *program, *words], check=False, env=environment)
    if done.returncode == 0:
        print(target)
    raise typer.Exit(done.returncode)

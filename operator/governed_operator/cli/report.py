"""`governed report`: one self-contained HTML page about a model (a subprocess of the serving side)."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.resolved import ResolvedModel
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
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="GovernedModel whose rules and governance.supervision the clauses are held against.",
            show_default="as last run",
        ),
    ] = None,
    laws: Annotated[
        Path | None, typer.Option(help="Folder of law packs (*.yaml) beside those of the project.", show_default=False)
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
    if laws is not None:
        words += ["--laws", str(laws)]
    environment = dict(os.environ) | local.archive_environment()
    with tempfile.TemporaryDirectory(prefix="governed-report-") as folder:
        rules = _rules(manifest, Path(folder)) or local.model_file
        if rules.is_file():
            words += ["--manifest", str(rules)]
        done = subprocess.run([sys.executable, *program, *words], check=False, env=environment)
    if done.returncode == 0:
        print(target)
    raise typer.Exit(done.returncode)


def _rules(manifest: Path | None, folder: Path) -> Path | None:
    """The manifest's rules as the serving side reads them, in ``folder``; None where no manifest is named."""
    if manifest is None:
        return None
    from governed_operator.local.manifest_file import ManifestError, load_model

    try:
        resolved = ResolvedModel.of(load_model(manifest))
    except ManifestError as error:
        fail(str(error))
    rules = folder / "model.json"
    rules.write_bytes(resolved.for_report.dump())
    return rules

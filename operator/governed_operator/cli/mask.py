"""`governed mask FILE|-`: what masking makes of a text, without a cluster (a subprocess of the serving side)."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from governed_api.governance import Masking
from governed_operator.cli.fail import fail
from governed_operator.local.serving_side import module


def command(
    file: Annotated[str, typer.Argument(help="A text, CSV, JSON or JSONL file; - for stdin.", show_default=False)],
    manifest: Annotated[
        Path | None, typer.Option(help="Manifest whose masking rules count; without one every recogniser does.")
    ] = None,
    form: Annotated[
        Literal["text", "csv", "tsv", "json", "jsonl"] | None,
        typer.Option("--format", help="What FILE is; by default as its name ends, else text.", show_default=False),
    ] = None,
    *,
    explain: Annotated[bool, typer.Option(help="Each find on stderr: where, entity, score, rule.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Masked text and finds as one JSON document.")] = False,
) -> None:
    """Print FILE as a model, a client and the record would see it, by a manifest's masking rules."""
    rules = _rules(manifest)
    words = [
        *(["--explain"] if explain else ()),
        *(["--json"] if as_json else ()),
        *(["--format", form] if form else ()),
    ]
    with tempfile.TemporaryFile() as kept:  # deny lists are nobody else's to read: not an argument, not a named file
        kept.write(rules.model_dump_json(by_alias=True).encode())
        kept.seek(0)
        number = kept.fileno()
        program = module("governed_serving.privacy", "--rules", f"/dev/fd/{number}", *words, "--", file)
        if program is None:
            fail("the serving side isn't installed: pip install 'governed-models[serving]'")
        done = subprocess.run([sys.executable, *program], check=False, pass_fds=[number], env=dict(os.environ))
    raise typer.Exit(done.returncode)


def _rules(manifest: Path | None) -> Masking:
    from governed_operator.local.manifest_file import ManifestError, load_model

    if manifest is None:
        return Masking()
    try:
        masking = load_model(manifest).spec.governance.privacy.masking
    except ManifestError as error:
        fail(str(error))
    if masking is None:
        fail(
            f"{manifest}: expected spec.governance.privacy.masking, found none: nothing is masked; add it, or leave "
            "--manifest out"
        )
    return masking

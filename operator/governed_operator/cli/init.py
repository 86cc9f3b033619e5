"""`governed init FILE`: a manifest that serves an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail
from governed_operator.cli.inspect import serving_side


def command(
    file: Annotated[str, typer.Argument(help="An ONNX file, as a path or a file: URI.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write; never overwritten.")] = Path(
        "model.yaml"
    ),
    name: Annotated[str, typer.Option(help="The model's name; by default after the file.", show_default=False)] = "",
) -> None:
    """Write a manifest that validates and serves an ONNX file: its digest, and columns to name where it takes a
    table."""
    if out.exists():
        fail(f"{out}: expected no file there, found one; name another by --out")
    done = serving_side("manifest", file, name)
    if done.returncode:
        raise typer.Exit(done.returncode)
    try:
        out.write_text(done.stdout, encoding="utf-8")
    except OSError as error:
        fail(f"{out}: expected a place to write to, found: {error.strerror}")
    print(f"wrote {out}: governed validate {out}, then governed run {out}")

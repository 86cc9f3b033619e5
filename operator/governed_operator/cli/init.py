"""`governed init FILE`: a manifest that serves an ONNX file, or a folder with a tokenizer."""

from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail
from governed_operator.cli.inspect import local_file, serving_side


def command(
    file: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, or a folder with one and its tokenizer, as a path or a file: URI.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write; never overwritten.")] = Path(
        "model.yaml"
    ),
    name: Annotated[str, typer.Option(help="The model's name; by default after the file.", show_default=False)] = "",
    background: Annotated[
        Path | None,
        typer.Option(help="Training rows, CSV: its header names the columns, and it is explained.", show_default=False),
    ] = None,
) -> None:
    """Write a manifest that validates and serves an ONNX file: its digest, and columns to name where it takes a
    table."""
    if out.exists():
        fail(f"{out}: expected no file there, found one; name another by --out")
    if background and not background.is_file():
        fail(f"{background}: expected a CSV file, found {'a folder' if background.is_dir() else 'none'}")
    beside = (str(background), _uri(background, out)) if background else ()
    done = serving_side("manifest", file, name, _uri(local_file(file), out), *beside)
    if done.returncode:
        raise typer.Exit(done.returncode)
    try:
        out.write_text(done.stdout, encoding="utf-8")
    except OSError as error:
        fail(f"{out}: expected a place to write to, found: {error.strerror}")
    print(f"wrote {out}: governed validate {out}, then governed run {out}")


def _uri(file: Path, out: Path) -> str:
    """As ``governed run`` finds it from the manifest's folder."""
    try:
        return f"file:{file.resolve().relative_to(out.resolve().parent)}"
    except ValueError:
        return f"file:{file.resolve()}"

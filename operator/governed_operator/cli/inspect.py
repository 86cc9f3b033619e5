"""`governed inspect FILE`: what an ONNX file, or a folder with a tokenizer, is and what can be done with it (a
subprocess of the serving side)."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api.storage import SCHEMES
from governed_operator.cli.fail import fail
from governed_operator.local.serving_side import module


def serving_side(verb: str, file: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """What the importer says of ``file``: the very trial that it has before it is served, where ONNX Runtime is; this
    side has none. Ends the command where there is nothing to ask."""
    path = local_file(file)
    program = module("governed_serving.importer", verb, str(path), *words)
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    return subprocess.run([sys.executable, *program], check=False, text=True, stdout=subprocess.PIPE)


def local_file(file: str) -> Path:
    """A path or file: URI of a file or folder that is there; ends the command otherwise."""
    local = SCHEMES[0].prefix
    scheme = next((s.prefix for s in SCHEMES if file.startswith(s.prefix)), "")
    if "://" in file and scheme != local:
        fail(f"{file}: expected a file of this machine; fetch it first, since inspecting runs it")
    path = Path(file.removeprefix(local).removeprefix("//") if scheme == local else file)
    if not path.is_file() and not (path / "config.json").is_file():
        found = "a folder without" if path.is_dir() else "none"
        fail(f"{path}: expected an ONNX file, or a folder with config.json, tokenizer.json and one, found {found}")
    return path


def command(
    file: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, or a folder with one and its tokenizer, as a path or a file: URI.", show_default=False
        ),
    ],
) -> None:
    """Say what an ONNX file, or a folder with a tokenizer, takes and gives, how it is served, what of it is explained
    and audited, and suggest a manifest. It is run with made-up requests, as before it is served. Exit status: 0, or 1
    where it is refused."""
    done = serving_side("inspect", file)
    sys.stdout.write(done.stdout)
    raise typer.Exit(done.returncode)

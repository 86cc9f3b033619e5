"""`governed subject find|export|erase`: what a model holds about one person (a subprocess of the serving side)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.runtime import PORT_ARCHIVE, on_this_machine
from governed_operator.cli.auditor_access import WorkdirOption
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import here
from governed_operator.local.serving_side import module
from governed_operator.local.workdir import Workdir

app = typer.Typer(no_args_is_help=True, help="Find, give out or erase what a model holds about one person.")

_Name = Annotated[str, typer.Argument(help="Model.", show_default=False)]
_Who = Annotated[
    str,
    typer.Argument(
        help="The person, as requests say it in governance.privacy.subject; - reads one line of standard input, so "
        "that no shell history and no list of processes has it.",
        show_default=False,
    ),
]
_Url = Annotated[
    str | None,
    typer.Option(
        help=f"The archive; in a cluster: kubectl port-forward governed-archive-0 {PORT_ARCHIVE}.",
        show_default=f"of the local run, else {on_this_machine(PORT_ARCHIVE)}",
    ),
]
_Token = Annotated[
    Path | None,
    typer.Option(
        help="The operator's token; in a cluster: key operator-token of the Secret NAME-operator.",
        show_default="of the local run",
    ),
]
_Key = Annotated[Path | None, typer.Option(help="The model's key-encryption key.", show_default="of the local run")]


@app.command()
def find(
    name: _Name,
    who: _Who,
    *,
    workdir: WorkdirOption = None,
    url: _Url = None,
    token_file: _Token = None,
    model_key: _Key = None,
) -> None:
    """Say how many predictions are about a person, where in the ledger, and whether they can be opened."""
    _run("find", name, who, [], _archive(url, name, workdir), _keys(name, workdir, token_file, model_key))


@app.command()
def export(
    name: _Name,
    who: _Who,
    *,
    workdir: WorkdirOption = None,
    url: _Url = None,
    token_file: _Token = None,
    model_key: _Key = None,
) -> None:
    """Print what was asked and answered about a person, a line of JSON each."""
    _run("export", name, who, [], _archive(url, name, workdir), _keys(name, workdir, token_file, model_key))


@app.command()
def erase(
    name: _Name,
    who: _Who,
    *,
    by: Annotated[str, typer.Option(help="Who erases.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, for the receipt.", show_default=False)],
    workdir: WorkdirOption = None,
    url: _Url = None,
    token_file: _Token = None,
    model_key: _Key = None,
) -> None:
    """Destroy the person's key: nobody can open what is about them any more; proofs stay valid, the ledger says so."""
    words = ["--by", by, "--reason", reason]
    _run("erase", name, who, words, _archive(url, name, workdir), _keys(name, workdir, token_file, model_key))


def _archive(url: str | None, name: str, workdir: Path | None) -> str:
    return url or here(name, PORT_ARCHIVE, workdir)


def _keys(name: str, workdir: Path | None, token_file: Path | None, model_key: Path | None) -> list[str]:
    folder = Workdir.of(name, workdir)
    token = token_file or folder.operator_token(name)
    key = model_key or folder.secrets / object_names.own_kek(name) / rt.KEK_NAME
    for path, what in ((token, "the operator's token"), (key, "the model's key-encryption key")):
        if not path.is_file():
            fail(f"{path}: no such file: expected {what}")
    return ["--token-file", str(token), "--key-file", str(key)]


def _run(act: str, name: str, who: str, words: list[str], url: str, keys: list[str]) -> None:
    program = module("governed_serving.archive", "subject")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    command = [sys.executable, *program, act, url, "--model", name, f"--who={who}", *words, *keys]
    raise typer.Exit(subprocess.run(command, check=False, env=dict(os.environ)).returncode)

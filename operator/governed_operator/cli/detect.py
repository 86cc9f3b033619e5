"""`governed detect`: whether a content is one of ours, by what a ledger shows (a subprocess of the serving side)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_operator.cli.fail import fail
from governed_operator.cli.verify import KeyFiles
from governed_operator.local.serving_side import module

if TYPE_CHECKING:
    from governed_operator.local.workdir import Workdir


def command(
    file: Annotated[
        str,
        typer.Argument(help="An answer (JSON), its AIGC metadata, or a text; - for stdin.", show_default=False),
    ],
    against: Annotated[
        str,
        typer.Option(
            help="Ledger: archive folder, exported bundle, URL or --workdir of a local run.", show_default=False
        ),
    ],
    key_file: KeyFiles = None,
    *,
    produce_id: Annotated[
        str | None, typer.Option("--id", help="ProduceID, where FILE names none.", show_default=False)
    ] = None,
    model_key: Annotated[
        Path | None,
        typer.Option(
            help="The model's key-encryption key, which opens the record.",
            show_default="of the local run, if it is one",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="Reader's token, for a URL.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was found as one JSON document.")] = False,
) -> None:
    """Say whether FILE is an answer of ours: what it says of itself, and what the ledger shows of that.

    Exit status: 0 proved to be ours, 1 refuted (or the ledger isn't what was signed), 3 not provable, 2 nothing could
    be compared: wrong usage, no such file, ledger or key.
    """
    from governed_operator.local.workdir import Workdir

    environment, place, key = dict(os.environ), against, model_key
    workdir = Workdir(Path(against))
    if "://" not in against and workdir.archive_folder.is_dir():
        place = str(workdir.archive_folder)
        environment |= workdir.archive_environment()
        key = model_key or _key_of(workdir)
    words = [word for path in key_file or [] for word in ("--key-file", str(path))]
    words += ["--model-key", str(key)] if key else []
    words += ["--token-file", str(token_file)] if token_file else []
    words += [f"--id={produce_id}"] if produce_id else []
    words += ["--json"] if as_json else []
    program = module("governed_serving.archive", "detect", *words, "--", place, file)
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'", 2)
    raise typer.Exit(subprocess.run([sys.executable, *program], check=False, env=environment).returncode)


def _key_of(workdir: "Workdir") -> Path | None:
    """The key-encryption key of the model that ran here; None where there is none, or more than one."""
    keys = sorted(workdir.secrets.glob(f"{object_names.own_kek('*')}/{rt.KEK_NAME}"))
    return keys[0] if len(keys) == 1 else None

"""`governed archive backup|restore`: an archive in one file, and back (a subprocess of the serving side)."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from governed_api import object_names
from governed_api.names import ARCHIVE
from governed_api.runtime import PORT_ARCHIVE, on_this_machine
from governed_operator.cli.fail import fail
from governed_operator.cli.verify import Quorum, WitnessKeys
from governed_operator.local.serving_side import module
from governed_operator.local.workdir import Workdir

app = typer.Typer(no_args_is_help=True, help="Back up an archive (ledger, blobs, wrapped keys) and restore it.")

_URL = "Where the archive of a run that is going on answers."
_KEY = "The archive's key-encryption key, which no backup holds; restore: and/or a verifier key that must have signed."


@app.command()
def backup(
    source: Annotated[
        str, typer.Argument(help="--workdir of a local run, an archive's folder, or its URL.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(help="File to write; an older backup is replaced, nothing else.", show_default=False)
    ],
    url: Annotated[str, typer.Option(help=_URL)] = on_this_machine(PORT_ARCHIVE),
    key_file: Annotated[Path | None, typer.Option(help=_KEY, show_default="of the local run")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The reader's token, to ask a running archive.", show_default="of the local run")
    ] = None,
) -> None:
    """Write an archive to one file: checkpoint, entries up to it, blobs, wrapped keys, a manifest with digests.

    The archive may be running. Exit status: 0 whole, 3 written but the archive lacks something, 1 no backup.
    """
    words = ["--url", url]
    words += ["--key-file", str(key_file)] if key_file else []
    words += ["--token-file", str(token_file)] if token_file else []
    local = _local(source)
    place = str(local.archive_folder) if local and local.archive_folder.is_dir() else source
    _run("backup", [place, str(output), *words], local)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="File that `governed archive backup` wrote.", show_default=False)],
    target: Annotated[str, typer.Argument(help="--workdir of a local run, or an empty folder.", show_default=False)],
    *,
    key_file: Annotated[list[Path] | None, typer.Option(help=_KEY, show_default="of the local run")] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint, anchor or GovernanceReport kept elsewhere: an older backup is refused.",
            show_default="the local run's report",
        ),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            help="Newer copy of the same log (folder, bundle): persons erased since are erased again.",
            show_default=False,
        ),
    ] = None,
    erased: Annotated[
        Path | None,
        typer.Option(
            help="Who was erased since an older backup: digests that `governed subject erase` printed, a line each.",
            show_default=False,
        ),
    ] = None,
    accept_return: Annotated[
        bool,
        typer.Option(
            "--accept-return",
            help="Let persons who were erased since an older backup come back: an entry says how many keys it has.",
        ),
    ] = False,
    witness_key: WitnessKeys = None,
    quorum: Quorum = None,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Take what is older or lacks something: an entry says what was let go."),
    ] = False,
) -> None:
    """Put a backup into an empty folder once all of it is verified: digests, signatures, tree, names, keysets."""
    local = _local(target)
    place = str(local.archive_folder) if local else target
    told = list(checkpoint or [])
    if local and (report := local.reports / f"{ARCHIVE}.json").is_file():
        told.append(report)
    words = [word for path in key_file or [] for word in ("--key-file", str(path))]
    words += [word for path in told for word in ("--checkpoint", str(path))]
    words += [word for where in after or [] for word in ("--after", where)]
    words += [word for path in witness_key or [] for word in ("--witness-key", str(path))]
    words += ["--quorum", str(quorum)] if quorum else []
    words += ["--erased", str(erased)] if erased else []
    words += ["--accept-return"] if accept_return else []
    words += ["--accept-loss"] if accept_loss else []
    _run("restore", [str(file), place, *words], local)


def _local(place: str) -> Workdir | None:
    """The work directory of that path, if it is one: it has keys."""
    if "://" in place:
        return None
    workdir = Workdir(Path(place))
    return workdir if (workdir.secrets / object_names.ARCHIVE_KEYS).is_dir() else None


def _run(verb: str, words: Sequence[str], local: Workdir | None) -> None:
    program = module("governed_serving.archive", verb)
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    environment = dict(os.environ) | (local.archive_environment() if local else {})
    done = subprocess.run([sys.executable, *program, *words], check=False, env=environment)
    raise typer.Exit(done.returncode)

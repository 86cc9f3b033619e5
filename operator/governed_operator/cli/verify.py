"""`governed verify`: recomputes a ledger offline (a subprocess of the serving side)."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, Context, Namespace, in_cluster, kept
from governed_operator.local.serving_side import module

KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help="Verifier key, kept elsewhere, that must have signed; and/or an archive folder's key-encryption key.",
        show_default=False,
    ),
]
WitnessKeys = Annotated[
    list[Path] | None,
    typer.Option(help="File with a witness's verifier key: it must have cosigned.", show_default=False),
]
Quorum = Annotated[
    int | None, typer.Option(help="How many of the witnesses must have cosigned; all by default.", min=1)
]
Against = Annotated[
    str | None,
    typer.Option(help="For a receipt or promise: the ledger, named as above, that must have it.", show_default=False),
]

UNCHECKED = 3
"""Exit status where something could not be checked."""


def command(
    target: Annotated[
        str,
        typer.Argument(
            help="Archive folder, exported bundle, dossier, URL, --workdir of a local run, receipt or promise; with "
            "--namespace a model.",
            show_default=False,
        ),
    ],
    key_file: KeyFiles = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint kept elsewhere, or a GovernanceReport: the ledger must go on from it.", show_default=False
        ),
    ] = None,
    witness_key: WitnessKeys = None,
    quorum: Quorum = None,
    *,
    against: Against = None,
    request: Annotated[
        str | None, typer.Option("--id", help="Prove that this request is in the ledger.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Recompute the Merkle tree and hold all that is kept against it: signatures, blobs, keysets, journals, reports.

    Exit status: 0 verified, 1 something isn't what was signed, 3 something could not be checked, 2 wrong usage.
    """
    from governed_operator.local.workdir import Workdir

    environment, more = dict(os.environ), list[str]()
    ledger = against or target
    cluster = in_cluster(ledger, namespace, context)
    workdir = Workdir(Path(ledger))
    if cluster is None and "://" not in ledger and workdir.archive_folder.is_dir():
        ledger = str(workdir.archive_folder)
        environment |= workdir.archive_environment()
        more = ["--workdir", str(workdir.root)]
    for name, files in (("--key-file", key_file), ("--checkpoint", checkpoint), ("--witness-key", witness_key)):
        more += [word for file in files or [] for word in (name, str(file))]
    if quorum:
        more += ["--quorum", str(quorum)]
    if request:
        more += [f"--id={request}"]
    dossier = against is None and _is_zip(Path(target))
    program = module("governed_serving.dossier" if dossier else "governed_serving.archive", "verify")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    with _source(ledger, cluster) as (where, access):
        words = [f"--against={where}", "--", target] if against else ["--", where]
        done = subprocess.run([sys.executable, *program, *more, *access, *words], check=False, env=environment)
    raise typer.Exit(done.returncode)


def _is_zip(path: Path) -> bool:
    """By what it holds, whatever it is called; by its name, where it was damaged."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04" or path.suffix.lower() == ".zip"
    except OSError:
        return False


@contextmanager
def _source(ledger: str, cluster: ClusterModel | None) -> Iterator[tuple[str, list[str]]]:
    """Where the ledger is, and the words that open it: as it was named, or the archive of a model's namespace, held
    against the checkpoint in the model's report. Of a cluster that says no, nothing could be checked: exit status 3."""
    if cluster is None:
        yield ledger, []
        return
    with tempfile.TemporaryDirectory(prefix="governed-verify-") as name:
        folder = Path(name)
        try:
            anchor, token = cluster.anchor(), cluster.reader_token()
            with cluster.forwarded(f"pod/{object_names.ARCHIVE_POD}", rt.PORT_ARCHIVE) as address:
                access = ["--token-file", str(kept(folder, "token", token))]
                if anchor:
                    access += ["--checkpoint", str(kept(folder, "anchor.json", json.dumps(anchor).encode()))]
                yield address, access
        except ClusterError as error:
            fail(str(error), UNCHECKED)

"""`governed run FILE`: a governed model on this machine, without a cluster."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import routes
from governed_api.regular_files import KEY_BYTES, read_regular
from governed_api.runtime import PORTS, in_words
from governed_operator.cli.fail import fail
from governed_operator.cli.policy_option import PolicyFiles, told_of_policies

if TYPE_CHECKING:
    from rich.console import Console

    from governed_api.model import GovernedModel
    from governed_operator.local.run import Running


OBJECTS, OBJECTS_CA = "objects", "objects-ca"
"""Secrets of a run."""
Witnesses = Annotated[
    list[str] | None,
    typer.Option(help="Witness that cosigns the ledger: 'VKEY URL'. May be given again.", show_default=False),
]
Quorum = Annotated[
    int | None, typer.Option(help="How many witnesses make a checkpoint a witnessed one; all by default.", min=1)
]
ObjectsOption = Annotated[
    str | None,
    typer.Option(
        help="Object storage for the archive's blobs: s3://BUCKET/PREFIX?endpoint=URL&region=NAME.",
        show_default="on the archive's volume",
    ),
]
ObjectsKeys = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the files access-key-id and secret-access-key.",
        show_default=False,
        exists=True,
        file_okay=False,
    ),
]
ObjectsCa = Annotated[
    Path | None,
    typer.Option(
        help="Certificates by which the storage's is checked.", show_default=False, exists=True, dir_okay=False
    ),
]
ConsumerFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help="File with ModelConsumers, beside those of FILE and of WORKDIR/consumers; a change is in force at once.",
        show_default=False,
        exists=True,
        dir_okay=False,
    ),
]


def command(
    file: Annotated[Path, typer.Argument(help="Manifest of a GovernedModel.", show_default=False)],
    workdir: Annotated[
        Path | None,
        typer.Option(help="Where ciphertext, keys and reports are kept between runs.", show_default=".governed/NAME"),
    ] = None,
    port_offset: Annotated[int, typer.Option(help=f"Added to every port ({in_words(PORTS)}).")] = 0,
    host: Annotated[
        str, typer.Option(help="Address that the model's server listens on (0.0.0.0: all); all else is on loopback.")
    ] = "127.0.0.1",
    *,
    witness: Witnesses = None,
    quorum: Quorum = None,
    objects: ObjectsOption = None,
    objects_keys: ObjectsKeys = None,
    objects_ca: ObjectsCa = None,
    consumers: ConsumerFiles = None,
    policy: PolicyFiles = None,
    once: Annotated[bool, typer.Option(help="Send the sample's requests, show the results, stop.")] = False,
    verbose: Annotated[bool, typer.Option(help="With --once: show the containers' log lines as well.")] = False,
) -> None:
    """Train, serve, explain and audit a model with the processes of this machine; Ctrl-C stops everything."""
    from governed_api.resolved import ResolvedModel
    from governed_operator.local.errors import LocalError
    from governed_operator.local.manifest_file import ManifestError
    from governed_operator.local.plain_console import plain_console
    from governed_operator.local.run import LocalRun, Options, Running, until_signalled
    from governed_operator.local.sample import load_sample, sample_path
    from governed_operator.local.showcase import show
    from governed_operator.local.workdir import RUNS
    from governed_operator.settings import OperatorSettings

    console = plain_console(stderr=True)
    try:
        manifest = _accepted(file, once, policy or [])
        model = ResolvedModel.of(manifest)
        sample = load_sample(sample_path(manifest, file)) if once else None
        folder = workdir or RUNS / model.name
        settings = OperatorSettings(
            witnesses=tuple(witness or ()), witness_quorum=quorum or 0, objects=objects,
            objects_secret=OBJECTS if objects_keys else None, objects_ca_secret=OBJECTS_CA if objects_ca else None,
        )  # fmt: skip
        options = Options(
            folder, file.resolve().parent, port_offset, host, quiet=once and not verbose, settings=settings,
            given=_given(objects_keys, objects_ca), consumers=(file, *(consumers or ())), labels=manifest.labels,
        )  # fmt: skip

        async def when_ready(running: Running) -> None:
            await (show(running, sample) if sample else _until_stopped(running, console))

        interrupted = asyncio.run(until_signalled(LocalRun(model, options, console), when_ready))
    except (ManifestError, LocalError) as error:
        fail(str(error))
    except OSError as error:
        fail(_disk(error, workdir))
    except ExceptionGroup as group:
        fail(_disk(_only_of_the_disk(group), workdir))
    if once and interrupted:
        raise typer.Exit(130)


def _accepted(file: Path, once: bool, policies: list[Path]) -> "GovernedModel":
    """The model of a manifest; ends the command, before anything starts, for one that nothing would come of, or that a
    policy refuses. Raises ManifestError."""
    from governed_operator.local.manifest_file import load_model
    from governed_operator.local.policies import policies_of

    manifest = load_model(file)
    if manifest.spec.suspend:
        fail(f"{file}: spec.suspend is true: nothing runs; set it to false")
    if once and manifest.spec.authenticates:
        fail(f"{file}: spec.access.authentication is Required, and --once has no key: run it without --once")
    if told_of_policies(file, manifest, policies_of([file], policies), datetime.now(UTC)):
        fail(f"{file}: refused by policy: nothing was started; change the model, or ask for an exemption")
    return manifest


def _given(keys: Path | None, ca: Path | None) -> dict[str, dict[str, bytes]]:
    """Secrets that a person gives by files. Raises OSError."""
    given = {OBJECTS: {p.name: _key(p) for p in sorted(keys.iterdir()) if p.is_file()}} if keys else {}
    return given | ({OBJECTS_CA: {"ca.crt": _key(ca)}} if ca else {})


def _key(path: Path) -> bytes:
    return read_regular(path, KEY_BYTES, follow=True)


async def _until_stopped(running: "Running", console: "Console") -> None:
    from rich.text import Text

    address = f"{running.url}{routes.MODEL.format(model=running.model.name)}"
    console.print(Text.assemble(("ready", "bold green"), f"  {address}  (Ctrl-C stops)"))
    await asyncio.Event().wait()


def _only_of_the_disk(group: ExceptionGroup[Exception]) -> BaseException:
    """Raises the group where it holds anything else."""
    told, others = group.split(OSError)
    if told is None or others is not None:
        raise group
    return _first(told)


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


def _disk(error: BaseException, workdir: Path | None) -> str:
    """A volume that is full or can't be written, in words."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    what = f"{where}{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
    return f"{what} (work directory {workdir or '.governed'}); free space on its disk, or give another with --workdir"

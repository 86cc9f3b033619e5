"""`governed usage`: what each consumer of a model used, by the ledger (a subprocess of the serving side)."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.callers import CALLERS_KEY, caller_pseudonym
from governed_api.json_types import Json
from governed_api.printable import printable
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, Context, Namespace, in_cluster, kept
from governed_operator.cli.verify import KeyFiles
from governed_operator.local.serving_side import module

if TYPE_CHECKING:
    from governed_operator.cli.consumers_in_cluster import ClusterConsumers

_PERIOD = re.compile(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?")
_Gathered = tuple[list[str], dict[str, str]]
"""Words for the serving side, and its environment."""


@dataclass(frozen=True)
class _Given:
    """What the command names itself."""

    archive: str | None
    consumers: Path | None
    checkpoint: Sequence[Path]


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    *,
    consumer: Annotated[
        str | None, typer.Option(help="Only of this ModelConsumer, or of this pseudonym.", show_default="all")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="A year, month or day (UTC): 2026, 2026-11, 2026-11-30.", show_default="all")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="First day (UTC).", show_default=False)] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day (UTC), included.", show_default=False)] = None,
    csv: Annotated[bool, typer.Option("--csv", help="In the columns of FOCUS 1.2, by day.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, by day.")] = False,
    workdir: Annotated[
        Path | None, typer.Option(help="Working directory of the local run.", show_default=".governed/NAME")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="Exported bundle, archive folder or URL, instead of the local run's.", show_default=False),
    ] = None,
    key_file: KeyFiles = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint kept elsewhere: the ledger must go on from it.", show_default=False),
    ] = None,
    consumers: Annotated[
        Path | None,
        typer.Option(help="File with ModelConsumers, whose names are told beside pseudonyms.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Sum up what each consumer used by the entries of the ledger, each of which is proved to be in it.

    Exit status: 0 all counted, 1 an entry isn't what was signed, 3 something could not be counted, which is named.
    """
    if csv and as_json:
        fail("--csv and --json exclude each other", 2)
    program = module("governed_serving.archive", "usage")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    words = [*_times(period, since, until), *(["--csv"] if csv else []), *(["--json"] if as_json else [])]
    words += [f"--caller={consumer}"] if consumer else []
    words += [word for file in key_file or [] for word in ("--key-file", str(file))]
    cluster = in_cluster(name, namespace, context)
    given = _Given(archive, consumers, checkpoint or [])
    with tempfile.TemporaryDirectory(prefix="governed-usage-") as folder:
        gathered = _of_cluster(cluster, given, Path(folder)) if cluster else _of_run(name, workdir, given, Path(folder))
        with gathered as (more, environment):
            call = [sys.executable, *program, f"--of={name}", *words, *more]
            done = subprocess.run(call, check=False, env=environment)
    raise typer.Exit(done.returncode)


def _times(period: str | None, since: str | None, until: str | None) -> list[str]:
    """Words for the serving side: from the first day's midnight to before the midnight behind the last one."""
    if period and (since or until):
        fail("--period excludes --from and --to", 2)
    first, behind = _of_period(period) if period else (_day("--from", since), _day("--to", until))
    if behind and not period:
        behind += timedelta(days=1)
    if first and behind and behind <= first:
        fail(f"--from {since} --to {until}: expected a day that isn't before the first one", 2)
    bounds = (("--start", first), ("--end", behind))
    return [word for name, day in bounds if day for word in (name, f"{day}T00:00:00.000Z")]


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else date.fromisoformat("")
    except ValueError:
        fail(f"{option} {text}: expected a day of the calendar such as 2026-11-30", 2)


def _of_period(text: str) -> tuple[date, date]:
    """Its first day, and the one behind its last."""
    found = _PERIOD.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        year, month, day = (int(part) if part else 0 for part in found.groups())
        first = date(year, month or 1, day or 1)
        if day:
            return first, first + timedelta(days=1)
        return first, date(year + (month in (0, 12)), 1 if month in (0, 12) else month + 1, 1)
    except (ValueError, OverflowError):
        fail(f"--period {text}: expected a year, month or day of the calendar: 2026, 2026-11 or 2026-11-30", 2)


@contextmanager
def _of_run(name: str, workdir: Path | None, given: _Given, folder: Path) -> Iterator[_Gathered]:
    from governed_operator.local.consumer_files import ConsumerFolder, StoreError
    from governed_operator.local.workdir import Workdir

    local = Workdir.of(name, workdir)
    if not given.archive and not local.archive_folder.is_dir():
        fail(
            f"{local.archive_folder}: no such archive: run the model first (governed run), name its --workdir, an "
            "--archive, or the --namespace of a cluster that it serves in"
        )
    key = local.secrets / object_names.callers(name) / CALLERS_KEY
    try:
        documents = ConsumerFolder(local.consumers).all()
    except StoreError as error:
        fail(str(error))
    names = _names(key.read_text() if key.is_file() else "", [*_read(given.consumers), *documents], folder)
    checkpoints = [word for path in given.checkpoint for word in ("--checkpoint", str(path))]
    source = given.archive or str(local.archive_folder)
    yield [*names, *checkpoints, "--", source], dict(os.environ) | local.archive_environment()


@contextmanager
def _of_cluster(cluster: ClusterModel, given: _Given, folder: Path) -> Iterator[_Gathered]:
    from governed_operator.cli.consumers_in_cluster import ClusterConsumers

    words = [word for path in given.checkpoint for word in ("--checkpoint", str(path))]
    try:
        names = _names(_mapping_key(cluster), [*_read(given.consumers), *_known(ClusterConsumers(cluster))], folder)
        if given.archive:
            yield [*names, *words, "--", given.archive], dict(os.environ)
            return
        if anchor := cluster.anchor():
            words += ["--checkpoint", str(kept(folder, "anchor.json", json.dumps(anchor).encode()))]
        words += ["--token-file", str(kept(folder, "token", cluster.reader_token()))]
        with cluster.forwarded(f"pod/{object_names.ARCHIVE_POD}", rt.PORT_ARCHIVE) as address:
            yield [*names, *words, "--", address], dict(os.environ)
    except ClusterError as error:
        fail(str(error))


def _mapping_key(cluster: ClusterModel) -> str:
    """ "", and said, where the caller may not read it: consumers stay pseudonyms."""
    try:
        return (cluster.secret(object_names.callers(cluster.name), CALLERS_KEY) or b"").decode("ascii", "replace")
    except ClusterError as error:
        print(printable(f"{error}: consumers are told by their pseudonyms"), file=sys.stderr)
        return ""


def _known(store: "ClusterConsumers") -> list[dict[str, Json]]:
    """None, and said, where the caller may not list them."""
    from governed_operator.local.consumer_files import StoreError

    try:
        return store.all()
    except StoreError as error:
        print(printable(f"{error}: consumers are told by their pseudonyms"), file=sys.stderr)
        return []


def _read(file: Path | None) -> list[dict[str, Json]]:
    """ModelConsumers of a file; ends the command for one that has none."""
    from governed_operator.local.manifest_file import ManifestError, load_consumers

    try:
        return load_consumers(file) if file else []
    except ManifestError as error:
        fail(str(error))


def _names(key: str, documents: Sequence[Mapping[str, Json]], folder: Path) -> list[str]:
    """Who pseudonyms are, in a file of ``folder``; nobody without ``key``, the model's key of callers."""
    known: dict[str, dict[str, str]] = {}
    for document in documents if re.fullmatch(r"[0-9a-f]{64}", key.strip()) else ():
        metadata, spec = document.get("metadata"), document.get("spec")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        centre = spec.get("costCentre") if isinstance(spec, dict) else None
        if isinstance(name, str):
            found = {"name": name} | ({"costCentre": centre} if isinstance(centre, str) else {})
            known.setdefault(caller_pseudonym(key.strip(), name), found)
    return ["--names", str(kept(folder, "names.json", json.dumps(known).encode()))]

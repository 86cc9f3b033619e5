"""`governed consumer create|rotate|revoke|list`: who may call a model, in a cluster, a local run or a file for Git."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from governed_api.callers import KEY_PREFIX
from governed_api.json_types import Json
from governed_api.printable import printable
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace

if TYPE_CHECKING:
    from governed_operator.local.consumer_keys import Document

app = typer.Typer(no_args_is_help=True, help="Who may call a model: make, rotate and revoke API keys; list them.")

_Name = Annotated[str, typer.Argument(help="ModelConsumer.", show_default=False)]
_Workdir = Annotated[
    Path | None,
    typer.Option(help="Working directory of a local run; while it runs, a change is in force within a second.",
                 show_default="the one that fits below .governed"),
]  # fmt: skip
_File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="File that holds it, for Git; comments in it get lost.", show_default=False),
]
_KeyFile = Annotated[
    Path | None,
    typer.Option(help="New file (0600) that the key is written into.", show_default="standard output"),
]
_Expires = Annotated[
    str | None,
    typer.Option(help="When the key ends: a time from now (90d, 12h), or 2027-01-31T12:00:00Z.", show_default="never"),
]

_Models = Annotated[
    list[str] | None, typer.Option(help="Models, by name; '*' for all. Commas or repeated.", show_default=False)
]
_Selector = Annotated[
    list[str] | None, typer.Option(help="Models by label, NAME=VALUE; repeatable.", show_default=False)
]
_Roles = Annotated[
    str, typer.Option(help="call, explain, label, review, acknowledge, audit, scrape; several with commas.")
]
_Limits = Annotated[
    list[str] | None,
    typer.Option(help="requests=N/WINDOW or tokens=N/WINDOW, such as requests=100/1m; repeatable.", show_default=False),
]
_MaxConcurrent = Annotated[int | None, typer.Option(help="Requests in flight in one replica.", show_default=False)]
_Attributes = Annotated[
    list[str] | None,
    typer.Option(help="Audit attribute of whoever calls, NAME=VALUE; repeatable.", show_default=False),
]
_CostCentre = Annotated[str | None, typer.Option(help="Who pays.", show_default=False)]
_Output = Annotated[
    str | None,
    typer.Option("-o", help="yaml: print the manifest, and write the key to --key-file.", show_default=False),
]


class Store(Protocol):
    """Where consumers are kept. Each method raises StoreError."""

    @property
    def place(self) -> str:
        """In words."""

    def all(self) -> "list[Document]":
        """Every consumer."""

    def get(self, name: str) -> "Document":
        """One."""

    def create(self, document: "Document") -> None:
        """A new one."""

    def replace(self, document: "Document") -> None:
        """One that is there."""


@app.command()
def create(
    name: _Name,
    *,
    models: _Models = None,
    selector: _Selector = None,
    roles: _Roles = "call",
    expires: _Expires = None,
    limit: _Limits = None,
    max_concurrent: _MaxConcurrent = None,
    attribute: _Attributes = None,
    cost_centre: _CostCentre = None,
    workdir: _Workdir = None,
    file: _File = None,
    output: _Output = None,
    key_file: _KeyFile = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Make a consumer and its key, which is printed once and alone: KEY=$(governed consumer create NAME …)."""
    from governed_operator.local.consumer_files import StoreError, checked
    from governed_operator.local.consumer_keys import consumer_document
    from governed_operator.local.yaml_writing import to_yaml

    named = _words(models)
    chosen: dict[str, Json] = {}
    if named:
        chosen["names"] = list(named)
    if selector:
        chosen["selector"] = {"matchLabels": _pairs("--selector", selector)}
    spec: dict[str, Json] = {
        "models": chosen,
        "roles": list(_words([roles])),
        "limits": [_limit(text) for text in limit or []],
        "maxConcurrent": max_concurrent,
        "attributes": _pairs("--attribute", attribute or []),
        "costCentre": cost_centre,
    }
    key, document = consumer_document(name, spec, _moment(expires))
    if output is not None:
        _refuse_output(output, key_file, [workdir, file, namespace, context])
    try:
        if output is None:
            store = _store(workdir, file, namespace, context, models=named)
            store.create(document)
            _told(f"ModelConsumer {name} made in {store.place}")
        else:
            checked(document)
    except StoreError as error:
        fail(str(error))
    _hand_out(key, key_file)
    if output is not None:
        sys.stdout.write(to_yaml([document]))


@app.command()
def rotate(
    name: _Name,
    *,
    overlap: Annotated[str, typer.Option(help="How long the present keys go on: 24h, 30m; 0s: not at all.")] = "24h",
    expires: _Expires = None,
    workdir: _Workdir = None,
    file: _File = None,
    key_file: _KeyFile = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Add a key, which is printed once, alone on standard output; those that were there end after --overlap."""
    from governed_operator.local.consumer_files import StoreError
    from governed_operator.local.consumer_keys import KeyChange, rotated

    now = datetime.now(UTC)
    try:
        store = _store(workdir, file, namespace, context, name=name)
        key, document, gone = rotated(store.get(name), overlap=_overlap(overlap), expires=_moment(expires), now=now)
        store.replace(document)
    except (StoreError, KeyChange) as error:
        fail(str(error))
    dropped = f"; no longer listed: {', '.join(gone)}" if gone else ""
    _told(f"ModelConsumer {name} in {store.place} has a new key; the others end within {overlap}{dropped}")
    _hand_out(key, key_file)


@app.command()
def revoke(
    name: _Name,
    *,
    key: Annotated[
        str | None, typer.Option(help="Id of the key (gmk_ID_…), see governed consumer list.", show_default="all")
    ] = None,
    workdir: _Workdir = None,
    file: _File = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Take a key, or all of them, from a consumer: refused within a second in a cluster or a local run."""
    from governed_operator.local.consumer_files import StoreError
    from governed_operator.local.consumer_keys import KeyChange, key_ids, revoked

    if key is not None and key.startswith(KEY_PREFIX):
        fail("--key: expected the id of the key, its middle part, found a whole key; it is in your shell's history now")
    try:
        store = _store(workdir, file, namespace, context, name=name)
        before = store.get(name)
        document = revoked(before, key)
        store.replace(document)
    except (StoreError, KeyChange) as error:
        fail(str(error))
    gone, left = sorted(set(key_ids(before)) - set(key_ids(document))), len(key_ids(document))
    spec = document.get("spec")
    tokens = (
        "; its tokens go on: set suspend: true"
        if isinstance(spec, dict) and (spec.get("oidc") or spec.get("serviceAccount"))
        else ""
    )
    print(printable(f"ModelConsumer {name} in {store.place}: revoked {', '.join(gone) or 'none'}; {left} left{tokens}"))


@app.command("list")
def list_command(
    *,
    workdir: _Workdir = None,
    file: _File = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List consumers, with the ids and ends of their keys."""
    from governed_operator.local.consumer_files import StoreError
    from governed_operator.local.consumer_view import consumer_lines

    try:
        store = _store(workdir, file, namespace, context)
        consumers = store.all()
    except StoreError as error:
        fail(str(error))
    for line in consumer_lines(consumers, datetime.now(UTC)):
        print(printable(line))


def _store(
    workdir: Path | None, file: Path | None, namespace: str | None, context: str | None, *,
    name: str | None = None, models: list[str] | None = None,
) -> Store:  # fmt: skip
    """Where the options say; else the local run that fits. Ends the command where none is named, or several are."""
    from governed_operator.cli.consumers_in_cluster import consumers_in_cluster
    from governed_operator.local.consumer_files import ConsumerFile, ConsumerFolder
    from governed_operator.local.workdir import Workdir

    cluster = namespace is not None or context is not None
    if sum((workdir is not None, file is not None, cluster)) > 1:
        fail("--workdir, --file and --namespace/--context exclude each other: name one place")
    if cluster:
        return consumers_in_cluster(namespace, context)
    if file is not None:
        return ConsumerFile(file)
    if workdir is not None:
        if not workdir.is_dir():
            fail(f"{workdir}: expected the working directory of a local run: governed run FILE makes one")
        return ConsumerFolder(Workdir(workdir).consumers)
    return ConsumerFolder(Workdir(_only_run(name, models)).consumers)


def _only_run(name: str | None, models: list[str] | None) -> Path:
    """The working directory below .governed that has the consumer, or is of the model; or the only one."""
    from governed_operator.local.consumer_files import ConsumerFolder
    from governed_operator.local.workdir import RUNS, Workdir

    runs = sorted(path for path in RUNS.iterdir() if path.is_dir()) if RUNS.is_dir() else []
    if models is not None:
        runs = [run for run in runs if run.name in models or "*" in models]
    elif name is not None:
        runs = [run for run in runs if ConsumerFolder(Workdir(run).consumers).file(name).path.is_file()]
    if len(runs) != 1:
        found = ", ".join(str(run) for run in runs) or "none"
        fail(f"say where: --namespace NS, --workdir DIR or --file FILE (local runs that fit: {found})")
    return runs[0]


def _refuse_output(output: str, key_file: Path | None, places: list[object]) -> None:
    if output != "yaml":
        fail(f"-o {output}: expected yaml", 2)
    if any(place is not None for place in places):
        fail("-o yaml prints the manifest and writes it nowhere: leave --workdir, --file and --namespace out", 2)
    if key_file is None:
        fail("-o yaml takes standard output for the manifest: say with --key-file FILE where the key goes", 2)


def _hand_out(key: str, key_file: Path | None) -> None:
    """Once, and alone."""
    if key_file is None:
        print(key)
        return
    try:
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{key}\n")
    except OSError as error:
        fail(f"{key_file}: {error.strerror}: the key is lost; governed consumer rotate --overlap 0s draws another")


def _told(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _words(given: list[str] | None) -> list[str]:
    return [word.strip() for text in given or [] for word in text.split(",") if word.strip()]


def _pairs(option: str, given: list[str]) -> dict[str, Json]:
    wrong = next((text for text in given if not text.partition("=")[1] or not text.partition("=")[0]), None)
    if wrong is not None:
        fail(f"{option} {wrong}: expected NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def _limit(text: str) -> dict[str, Json]:
    unit, _, rest = text.partition("=")
    number, _, window = rest.partition("/")
    if unit not in ("requests", "tokens") or not number.isdecimal() or not window:
        fail(f"--limit {text}: expected requests=N/WINDOW or tokens=N/WINDOW, such as requests=100/1m")
    return {unit: int(number), "window": window}


def _moment(text: str | None) -> datetime | None:
    """Of --expires; ends the command for what is past or no time."""
    from governed_api.consumer import moment
    from governed_api.quantities import seconds

    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        until = moment(text) if "T" in text else now + timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        fail(f"--expires {text}: expected a time from now (90d, 12h), or one with a zone: 2027-01-31T12:00:00Z")
    if until <= now:
        fail(f"--expires {text}: expected a time to come, found one that has passed")
    return until.astimezone(UTC)


def _overlap(text: str) -> timedelta:
    from governed_api.quantities import seconds

    try:
        return timedelta(seconds=0 if text in ("0", "0s") else seconds(text))
    except (ValueError, OverflowError):
        fail(f"--overlap {text}: expected a time such as 24h or 30m, or 0s")

"""`governed report`: one self-contained HTML page about a model (a subprocess of the serving side)."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.printable import printable
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, Context, Namespace, in_cluster, kept
from governed_operator.local.serving_side import module

if TYPE_CHECKING:
    from governed_api.resolved import ResolvedModel


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    *,
    workdir: Annotated[
        Path | None, typer.Option(help="Working directory of the local run.", show_default=".governed/NAME")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file.", show_default="NAME.html")] = None,
    model_key: Annotated[
        Path | None,
        typer.Option(
            help="The model's key-encryption key, which opens its artefact and requests.",
            show_default="of the local run",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="GovernedModel whose rules and governance.supervision the clauses are held against.",
            show_default="as last run",
        ),
    ] = None,
    laws: Annotated[
        Path | None, typer.Option(help="Folder of law packs (*.yaml) beside those of the project.", show_default=False)
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="Exported bundle or archive folder, instead of the local run's.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="GovernanceReport (JSON), instead of the local run's.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write data manifest, training curves, gates, group rates, explanations, keys and ledger as one HTML page."""
    program = module("governed_serving.dossier", "html")
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    target = output or Path(f"{name}.html")
    cluster = in_cluster(name, namespace, context)
    with tempfile.TemporaryDirectory(prefix="governed-report-") as folder:
        given = _Given(_rules(manifest, name, Path(folder)), report, archive, model_key)
        gathered = _of_cluster(cluster, given, Path(folder)) if cluster else _of_run(name, workdir, given)
        words = ["--model", name, "--output", str(target)]
        words += ["--laws", str(laws)] if laws else []
        with gathered as (more, environment):
            done = subprocess.run([sys.executable, *program, *words, *more], check=False, env=environment)
    if done.returncode == 0:
        print(target)
    raise typer.Exit(done.returncode)


@dataclass(frozen=True)
class _Given:
    """What the command names itself."""

    rules: Path | None
    report: Path | None
    archive: str | None
    model_key: Path | None


_Gathered = tuple[list[str], dict[str, str]]
"""Words for the serving side, and its environment."""


@contextmanager
def _of_run(name: str, workdir: Path | None, given: _Given) -> Iterator[_Gathered]:
    from governed_operator.local.workdir import Workdir

    local = Workdir(workdir or Path(".governed") / name)
    report = given.report or local.reports / f"{name}.json"
    if not report.is_file() and (given.report or not given.archive):
        fail(
            f"{report}: no such report: run the model first (governed run), name its --workdir or a --report, or the "
            "--namespace of a cluster that it serves in"
        )
    key = given.model_key or local.secrets / object_names.own_kek(name) / rt.KEK_NAME
    rules = given.rules or local.model_file
    words = ["--archive", given.archive or str(local.archive_folder)]
    for option, file in (("--report", report), ("--model-key", key), ("--manifest", rules)):
        words += [option, str(file)] if file.is_file() else []
    yield words, dict(os.environ) | local.archive_environment()


@contextmanager
def _of_cluster(cluster: ClusterModel, given: _Given, folder: Path) -> Iterator[_Gathered]:
    """Report, rules, token and, where the caller may read its Secret, the model's key; the archive by a forwarded
    port."""
    try:
        model = cluster.model()
        report = given.report or kept(folder, "report.json", json.dumps(cluster.report()).encode())
        rules = given.rules or kept(folder, "model.json", model.for_report.dump())
        words = ["--report", str(report), "--manifest", str(rules)]
        if anchor := cluster.anchor():
            words += ["--checkpoint", str(kept(folder, "anchor.json", json.dumps(anchor).encode()))]
        if key := given.model_key or _model_key(cluster, model, folder):
            words += ["--model-key", str(key)]
        if given.archive:
            yield [*words, "--archive", given.archive], dict(os.environ)
            return
        words += ["--token-file", str(kept(folder, "token", cluster.reader_token()))]
        with cluster.forwarded(f"pod/{object_names.ARCHIVE_POD}", rt.PORT_ARCHIVE) as address:
            yield [*words, "--archive", address], dict(os.environ)
    except ClusterError as error:
        fail(str(error))


def _model_key(cluster: ClusterModel, model: "ResolvedModel", folder: Path) -> Path | None:
    """None, and said, where the caller may not read it: what is encrypted stays closed."""
    try:
        key = cluster.secret(*object_names.key_encryption_key(model.name, model.spec))
    except ClusterError as error:
        print(printable(f"{error}: what is encrypted stays closed"), file=sys.stderr)
        return None
    return kept(folder, "kek", key) if key is not None else None


def _rules(manifest: Path | None, name: str, folder: Path) -> Path | None:
    """The manifest's rules as the serving side reads them, in ``folder``; None where no manifest is named."""
    if manifest is None:
        return None
    from governed_api.resolved import ResolvedModel
    from governed_operator.local.manifest_file import ManifestError, load_model

    try:
        resolved = ResolvedModel.of(load_model(manifest))
    except ManifestError as error:
        fail(str(error))
    if resolved.name != name:
        fail(f"{manifest}: expected the manifest of {name}, found that of {resolved.name}")
    return kept(folder, "model.json", resolved.for_report.dump())

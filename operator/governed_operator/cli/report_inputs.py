"""What the page about a model is made of, as the serving side is told it: of a local run, or of a cluster."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.printable import printable
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, kept
from governed_operator.local.errors import LocalError
from governed_operator.local.serving_side import module

if TYPE_CHECKING:
    from governed_api.resolved import ResolvedModel

__all__ = ["Archive", "Given", "Laws", "Manifest", "ModelKey", "Report", "gathered", "made"]

ModelKey = Annotated[
    Path | None,
    typer.Option(
        help="The model's key-encryption key, which opens its artefact and requests.",
        show_default="of the local run",
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="GovernedModel whose rules and governance.supervision the clauses are held against.",
        show_default="as last run",
    ),
]
Laws = Annotated[
    Path | None, typer.Option(help="Folder of law packs (*.yaml) beside those of the project.", show_default=False)
]
Archive = Annotated[
    str | None,
    typer.Option(help="Exported bundle or archive folder, instead of the local run's.", show_default=False),
]
Report = Annotated[
    Path | None,
    typer.Option(help="GovernanceReport (JSON), instead of the local run's.", show_default=False),
]


@dataclass(frozen=True)
class Given:
    """What the command names itself."""

    manifest: Path | None
    report: Path | None
    archive: str | None
    model_key: Path | None
    laws: Path | None


_Gathered = tuple[list[str], dict[str, str]]
"""Words for the serving side, and its environment."""


def made(
    verb: str, name: str, target: Path, given: Given, *, workdir: Path | None, cluster: ClusterModel | None,
    more: Sequence[str] = (),
) -> NoReturn:  # fmt: skip
    """Have the serving side's ``verb`` write ``target`` and say so; ends the command, with its exit status."""
    program = module("governed_serving.dossier", verb)
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving]'")
    words = ["--model", name, "--output", str(target), *more]
    words += ["--laws", str(given.laws)] if given.laws else []
    with tempfile.TemporaryDirectory(prefix="governed-report-") as folder:
        rules = _rules(given.manifest, name, Path(folder))
        try:
            with gathered(name, given, rules, Path(folder), workdir=workdir, cluster=cluster) as (told, environment):
                done = subprocess.run([sys.executable, *program, *words, *told], check=False, env=environment)
        except (ClusterError, LocalError) as error:
            fail(str(error))
    if done.returncode == 0:
        print(target)
    raise typer.Exit(done.returncode)


def gathered(
    name: str,
    given: Given,
    rules: Path | None,
    folder: Path,
    *,
    workdir: Path | None,
    cluster: ClusterModel | None,
) -> AbstractContextManager[_Gathered]:
    """What the serving side is told of the model; files of a cluster's are put into ``folder``. Raises ClusterError,
    LocalError."""
    return _of_cluster(cluster, given, rules, folder) if cluster else _of_run(name, workdir, given, rules)


@contextmanager
def _of_run(name: str, workdir: Path | None, given: Given, rules: Path | None) -> Iterator[_Gathered]:
    from governed_operator.local.workdir import Workdir

    local = Workdir.of(name, workdir)
    report = given.report or local.reports / f"{name}.json"
    if not report.is_file() and (given.report or not given.archive):
        raise LocalError(
            f"{report}: no such report: run the model first (governed run), name its --workdir or a --report, or the "
            "--namespace of a cluster that it serves in"
        )
    key = given.model_key or local.secrets / object_names.own_kek(name) / rt.KEK_NAME
    rules = rules or local.model_file
    words = ["--archive", given.archive or str(local.archive_folder)]
    for option, file in (("--report", report), ("--model-key", key), ("--manifest", rules)):
        words += [option, str(file)] if file.is_file() else []
    yield words, dict(os.environ) | local.archive_environment()


@contextmanager
def _of_cluster(cluster: ClusterModel, given: Given, rules: Path | None, folder: Path) -> Iterator[_Gathered]:
    """Report, rules, token and, where the caller may read its Secret, the model's key; the archive by a forwarded
    port."""
    model = cluster.model()
    report = given.report or kept(folder, "report.json", json.dumps(cluster.report()).encode())
    rules = rules or kept(folder, "model.json", model.for_report.dump())
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

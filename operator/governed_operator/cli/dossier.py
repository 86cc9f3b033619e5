"""`governed dossier`: the page about a model with what it was made of, as one file (by the serving side)."""

from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.auditor_access import WorkdirOption
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster
from governed_operator.cli.report_inputs import Archive, Given, Laws, Manifest, ModelKey, Report, made


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    *,
    workdir: WorkdirOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File.", show_default="NAME.zip")] = None,
    model_key: ModelKey = None,
    manifest: Manifest = None,
    laws: Laws = None,
    archive: Archive = None,
    report: Report = None,
    blobs: Annotated[
        bool, typer.Option("--blobs", help="With the encrypted artefact, requests and explanations that entries name.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write the report's page, rules and proved ledger entries as one file, which `governed verify` takes."""
    cluster, given = in_cluster(name, namespace, context), Given(manifest, report, archive, model_key, laws)
    made(
        "zip",
        name,
        output or Path(f"{name}.zip"),
        given,
        workdir=workdir,
        cluster=cluster,
        more=["--blobs"] if blobs else [],
    )

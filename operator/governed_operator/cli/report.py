"""`governed report`: one self-contained HTML page about a model (a subprocess of the serving side)."""

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
    output: Annotated[Path | None, typer.Option(help="HTML file.", show_default="NAME.html")] = None,
    model_key: ModelKey = None,
    manifest: Manifest = None,
    laws: Laws = None,
    archive: Archive = None,
    report: Report = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write data manifest, training curves, gates, group rates, explanations, keys and ledger as one HTML page."""
    cluster, given = in_cluster(name, namespace, context), Given(manifest, report, archive, model_key, laws)
    made("html", name, output or Path(f"{name}.html"), given, workdir=workdir, cluster=cluster)

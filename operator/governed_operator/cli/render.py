"""`governed render FILE`: the very objects that the operator would apply."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_operator.cli.fail import fail


def command(
    file: Annotated[Path, typer.Argument(help="Manifest of a GovernedModel.", show_default=False)],
    artefact: Annotated[
        str | None, typer.Option(help="Digest (sha256:…) of the trained artefact; unknown before training.")
    ] = None,
    keda: Annotated[bool, typer.Option(help="As in a cluster with KEDA (needs GOVERNED_OPERATOR_PROMETHEUS).")] = False,
    service_monitor: Annotated[bool, typer.Option(help="As in a cluster with Prometheus Operator.")] = False,
    gateway: Annotated[
        bool, typer.Option(help="As in a cluster with Gateway API (needs GOVERNED_OPERATOR_GATEWAY).")
    ] = False,
) -> None:
    """Print the objects that the operator applies for a model, in order, as YAML."""
    from governed_api.resolved import ResolvedModel
    from governed_operator.local.consumers import callers_in
    from governed_operator.local.manifest_file import ManifestError, load_consumers, load_model
    from governed_operator.local.rendering import render
    from governed_operator.settings import Capabilities, OperatorSettings

    try:
        manifest = load_model(file)
        model = ResolvedModel.of(manifest)
        callers = callers_in(model, manifest.labels, load_consumers(file))
    except ManifestError as error:
        fail(str(error))
    capabilities = Capabilities(keda=keda, service_monitor=service_monitor, gateway_api=gateway)
    sys.stdout.write(render(model, artefact, OperatorSettings.from_environment(), capabilities, callers))

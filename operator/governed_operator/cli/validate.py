"""`governed validate FILE…`: what an API server would say, offline, and what policies say."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from governed_api.printable import printable
from governed_operator.cli.fail import fail
from governed_operator.cli.policy_option import PolicyFiles, told_of_policies


def command(
    files: Annotated[
        list[Path],
        typer.Argument(help="Manifests of GovernedModels, ModelConsumers and policies.", show_default=False),
    ],
    policy: PolicyFiles = None,
) -> None:
    """Say exactly what an API server would say of each manifest, and what policies, among them or given, say of each
    model; exit 1 when one would be refused."""
    from governed_operator.local.manifest_file import ManifestError, documents, findings, load_models
    from governed_operator.local.policies import policies_of

    refused = False
    for path in files:
        try:
            lines = findings(path)
            names = [f"{d['kind']} {d['metadata']['name']}" for d in documents(path)] if not lines else []
        except ManifestError as error:
            fail(str(error))
        for line in lines:
            print(printable(line), file=sys.stderr)
        for name in names:
            print(printable(f"{path}: {name} is valid"))
        refused = refused or bool(lines)
    if refused:
        raise typer.Exit(1)
    try:
        floors = policies_of(files, policy or ())
        models = [(path, model) for path in files for model in load_models(path)]
    except ManifestError as error:
        fail(str(error))
    denied = [told_of_policies(path, model, floors, datetime.now(UTC)) for path, model in models]
    if any(denied):
        raise typer.Exit(1)

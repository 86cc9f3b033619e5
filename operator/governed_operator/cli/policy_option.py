"""The option ``--policy`` of commands that read manifests, and how they tell what policies say."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api.printable import printable

if TYPE_CHECKING:
    from governed_api.model import GovernedModel
    from governed_operator.policy.floor import Floor

PolicyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help="File with GovernancePolicies or ClusterGovernancePolicies, beside those of FILE. May be given again.",
        show_default=False,
        exists=True,
        dir_okay=False,
    ),
]

_WORDS = {"Deny": "refused", "Audit": "warning", "Exempt": "exempt"}


def told_of_policies(path: Path, model: "GovernedModel", floors: "Sequence[Floor]", now: datetime) -> bool:
    """Print to stderr what a model lacks of what policies require, a line each; whether one refuses it."""
    from governed_operator.local.policies import judgements

    found = judgements(model, floors, now)
    for judgement in found:
        line = f"{path}: {_WORDS[judgement.kind]}: GovernedModel {model.name}: {judgement.text}"
        print(printable(line), file=sys.stderr)
    return any(judgement.kind == "Deny" for judgement in found)

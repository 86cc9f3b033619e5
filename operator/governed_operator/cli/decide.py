"""`governed decide`: a person who answers for the model decides what was contested."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from governed_api.printable import printable
from governed_operator.cli.auditor_access import Credentials, PodTokenFile, Url, WorkdirOption, auditor_client
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, Context, Namespace, in_cluster


class Outcome(StrEnum):
    """What becomes of a contested decision."""

    UPHELD = "Upheld"
    CHANGED = "Changed"
    WITHDRAWN = "Withdrawn"


def command(
    name: Annotated[str, typer.Argument(help="Model.", show_default=False)],
    request: Annotated[
        str, typer.Argument(help="X-Prediction-Id of the answer that was contested.", show_default=False)
    ],
    *,
    outcome: Annotated[
        Outcome,
        typer.Option(
            help="The decision stands; another takes its place; who contested it let it go.",
            case_sensitive=False,
            show_default=False,
        ),
    ],
    by: Annotated[str, typer.Option(help="Who decides.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.", show_default=False)],
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="The operator's token.",
            show_default="of the local run; in a cluster key operator-token of the Secret NAME-operator",
        ),
    ] = None,
    workdir: WorkdirOption = None,
    url: Url = None,
    pod_token_file: PodTokenFile = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Close a contest: decider, outcome and reason, and whether it was in time, are recorded in the ledger."""
    from governed_operator.local.json_client import ClientError

    cluster = in_cluster(name, namespace, context)
    token = _token(token_file, name, workdir, cluster)
    try:
        with auditor_client(url, name, Credentials(pod_token_file, workdir, by_key=False), cluster) as client:
            answer = client.decide(request, by, outcome.value, reason, token)
    except ClientError as error:
        fail(str(error))
    late = f", after its deadline {answer['deadline']}" if answer["late"] else ""
    done = f"{name}: the contest of {request} was decided by {by}: {outcome.value}{late}"
    print(printable(f"{done}; it is recorded in the ledger"))


def _token(file: Path | None, name: str, workdir: Path | None, cluster: ClusterModel | None) -> str:
    """Ends the command when it can't be read."""
    from governed_operator.local.workdir import Workdir

    if file is None and cluster is not None:
        try:
            return cluster.token().decode("ascii", "replace").strip()
        except ClusterError as error:
            fail(str(error))
    path = file or Workdir.of(name, workdir).operator_token(name)
    try:
        return path.read_text().strip()
    except OSError as error:
        fail(f"{path}: {error.strerror}: expected the operator's token, which the model's containers don't have")

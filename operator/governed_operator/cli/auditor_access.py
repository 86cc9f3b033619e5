"""How the commands that speak to a model's auditor get there: its address, and the token of a pod that it shares with a
foreign runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import runtime as rt
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import POD_TOKEN_FILE, ClusterError, ClusterModel

if TYPE_CHECKING:
    from governed_operator.local.client import ModelClient

Url = Annotated[
    str,
    typer.Option(
        help="Address of the model's auditor; in a cluster: "
        f"kubectl port-forward deployment/NAME-predictor {rt.PORT_AUDITOR}."
    ),
]
PodTokenFile = Annotated[
    Path | None,
    typer.Option(
        help="The token of the auditor's port, beside a foreign runtime; in a cluster: "
        f"kubectl exec POD -c auditor -- cat {POD_TOKEN_FILE}.",
        envvar="GOVERNED_POD_TOKEN_FILE",
        show_default="of the local run",
    ),
]
WorkdirOption = Annotated[
    Path | None, typer.Option("--workdir", help="Working directory of the local run.", show_default=".governed/NAME")
]
AUDITOR = rt.on_this_machine(rt.PORT_AUDITOR)
"""Of a local run, or forwarded."""


@contextmanager
def auditor_client(
    url: str, name: str, token: "PodToken", cluster: ClusterModel | None = None, *, timeout: float | None = None
) -> "Iterator[ModelClient]":
    """Shows the token of the auditor's port where there is one. Ends the command when it can't be had."""
    from governed_operator.local.client import TIMEOUT, ModelClient

    patience = timeout or TIMEOUT
    if cluster is None:
        with ModelClient(url, name, timeout=patience, headers=token.headers(name)) as client:
            yield client
        return
    try:
        pod = cluster.pod()
        foreign = cluster.model().spec.predictor.model.runtime is not None
        headers = {rt.POD_TOKEN_HEADER: cluster.pod_token(pod)} if foreign else {}
        with (
            cluster.forwarded(pod, rt.PORT_AUDITOR) as address,
            ModelClient(address, name, timeout=patience, headers=headers) as client,
        ):
            yield client
    except ClusterError as error:
        fail(str(error))


@dataclass(frozen=True)
class PodToken:
    """Where the token of the auditor's port lies: ``file``, else in the working directory of a local run."""

    file: Path | None
    workdir: Path | None

    def headers(self, name: str) -> dict[str, str]:
        """What to send; ends the command where ``file`` can't be read."""
        from governed_operator.local.workdir import Workdir, pod_token_headers

        path = self.file or Workdir(self.workdir or Path(".governed") / name).pod_token(name)
        try:
            return pod_token_headers(path)
        except (OSError, UnicodeDecodeError) as error:
            if self.file is not None:
                found = error.strerror if isinstance(error, OSError) else "bytes that are none"
                fail(
                    f"{path}: {found}: expected the token of the auditor's port, which is {POD_TOKEN_FILE} in its "
                    "container"
                )
        return {}

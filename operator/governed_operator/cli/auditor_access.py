"""How the commands that speak to a model's auditor get there: its address, and the token of a pod that it shares with a
foreign runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import runtime as rt
from governed_operator.cli.api_key import api_key_headers
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import POD_TOKEN_FILE, ClusterError, ClusterModel, here, refuse_both

if TYPE_CHECKING:
    from governed_operator.local.client import ModelClient

Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the model's auditor; in a cluster: "
        f"kubectl port-forward deployment/NAME-predictor {rt.PORT_AUDITOR}.",
        show_default=f"of the local run, else {rt.on_this_machine(rt.PORT_AUDITOR)}",
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


@contextmanager
def auditor_client(
    url: str | None,
    name: str,
    shown: "Credentials",
    cluster: ClusterModel | None = None,
    *,
    timeout: float | None = None,
) -> "Iterator[ModelClient]":
    """Shows the token of the auditor's port where there is one, and the API key that is given. Ends the command when
    they can't be had."""
    from governed_operator.local.client import TIMEOUT, ModelClient

    patience, key = timeout or TIMEOUT, shown.key()
    if cluster is None:
        at = url or here(name, rt.PORT_AUDITOR, shown.workdir)
        with ModelClient(at, name, timeout=patience, headers=shown.headers(name) | key) as client:
            yield client
        return
    refuse_both(url)
    try:
        pod = cluster.pod()
        foreign = cluster.model().spec.predictor.model.runtime is not None
        headers = key | ({rt.POD_TOKEN_HEADER: cluster.pod_token(pod)} if foreign else {})
        with (
            cluster.forwarded(pod, rt.PORT_AUDITOR) as address,
            ModelClient(address, name, timeout=patience, headers=headers) as client,
        ):
            yield client
    except ClusterError as error:
        fail(str(error))


@dataclass(frozen=True)
class Credentials:
    """Where the token of the auditor's port lies: ``file``, else in the working directory of a local run; and the API
    key of ``key_file`` or the environment, but for a person with a token of another kind."""

    file: Path | None
    workdir: Path | None
    key_file: Path | None = None
    by_key: bool = True

    def key(self) -> dict[str, str]:
        """What to send of the API key; ends the command for what is none."""
        return api_key_headers(self.key_file) if self.by_key else {}

    def headers(self, name: str) -> dict[str, str]:
        """What to send; ends the command where ``file`` can't be read."""
        from governed_operator.local.workdir import Workdir, pod_token_headers

        path = self.file or Workdir.of(name, self.workdir).pod_token(name)
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

"""How the commands that speak to a model's auditor get there: its address, and the token of a pod that it shares with a
foreign runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governed_api import runtime as rt
from governed_operator.cli.fail import fail

if TYPE_CHECKING:
    from governed_operator.local.client import ModelClient

_POD_FILE = f"{rt.MOUNT_POD_TOKENS}/auditor"

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
        f"kubectl exec POD -c auditor -- cat {_POD_FILE}.",
        envvar="GOVERNED_POD_TOKEN_FILE",
        show_default="of the local run",
    ),
]
WorkdirOption = Annotated[
    Path | None, typer.Option("--workdir", help="Working directory of the local run.", show_default=".governed/NAME")
]
AUDITOR = rt.on_this_machine(rt.PORT_AUDITOR)
"""Of a local run, or forwarded."""


def auditor_client(
    url: str, name: str, pod_token_file: Path | None, workdir: Path | None, *, timeout: float | None = None
) -> "ModelClient":
    """Shows the token of the auditor's port where there is one. Ends the command when the file can't be read."""
    from governed_operator.local.client import TIMEOUT, ModelClient
    from governed_operator.local.workdir import Workdir, pod_token_headers

    path = pod_token_file or Workdir(workdir or Path(".governed") / name).pod_token(name)
    headers: dict[str, str] = {}
    try:
        headers = pod_token_headers(path)
    except (OSError, UnicodeDecodeError) as error:
        if pod_token_file is not None:
            found = error.strerror if isinstance(error, OSError) else "bytes that are none"
            fail(f"{path}: {found}: expected the token of the auditor's port, which is {_POD_FILE} in its container")
    return ModelClient(url, name, timeout=timeout or TIMEOUT, headers=headers)

"""What the console shows, read as the other commands read it: of local runs, or of a namespace by kubectl."""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer
from pydantic import ValidationError

from governed_api.json_types import Json
from governed_api.printable import printable
from governed_api.verdict import BiasVerdict
from governed_operator.cli.auditor_access import Credentials, auditor_client
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, models_in_cluster
from governed_operator.cli.report_inputs import Given, gathered
from governed_operator.console.upstream import Away
from governed_operator.local.client import ModelClient
from governed_operator.local.errors import LocalError
from governed_operator.local.json_client import ClientError
from governed_operator.local.overview import (
    Overview,
    Summary,
    cluster_overview,
    cluster_summary,
    local_models,
    local_overview,
    summary,
)
from governed_operator.local.serving_side import module
from governed_operator.local.workdir import Workdir

__all__ = ["ClusterUpstream", "LocalUpstream"]

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds for an answer of an auditor."""
RECOMPUTING = 600.0
"""Seconds for a ledger."""
_NOTHING = Given(None, None, None, None, None)


@contextmanager
def _said(command: str) -> Iterator[None]:
    """What goes wrong, as the page says it, with the command that says more."""
    try:
        yield
    except (ClusterError, LocalError, ClientError, OSError, ValidationError) as error:
        raise Away(" ".join(str(error).split())[:500], command) from error
    except typer.Exit as error:
        raise Away("the command line refused it: see the terminal", command) from error


class LocalUpstream:
    """Runs whose work directories lie below a folder; a key is a directory's name."""

    def __init__(self, below: Path):
        self._below, self._recomputing = below, Recomputing()
        self.stop = self._recomputing.stop

    def models(self) -> Sequence[tuple[str, Summary]]:
        with _said("governed list"):
            return [(_key(workdir), summary(workdir)) for workdir in local_models(self._below)]

    def overview(self, key: str) -> Overview:
        with _said(f"governed status {key}"):
            return local_overview(self._workdir(key))

    def verdict(self, key: str) -> BiasVerdict | None:
        return _verdict(self.overview(key), lambda: self._asked(key, ModelClient.verdict))

    def contests(self, key: str) -> list[dict[str, Json]]:
        with _said(f"governed contests {key}"):
            return self._asked(key, ModelClient.contests)

    def facts(self, key: str, id: str) -> bytes:
        with _said(f"governed verify {self._below / key}"):
            workdir = self._workdir(key)
            name = local_overview(workdir).summary.name
            return _facts(self._recomputing, name, id, workdir=workdir.root, cluster=None)

    def _asked(self, key: str, ask: Callable[[ModelClient], T]) -> T:
        workdir = self._workdir(key)
        name = local_overview(workdir).summary.name
        if workdir.serving_port_offset is None:
            raise LocalError(f"{name} doesn't run: its auditor answers once governed run FILE serves it")
        with auditor_client(None, name, Credentials(None, workdir.root), timeout=PATIENCE) as client:
            return ask(client)

    def _workdir(self, key: str) -> Workdir:
        return next((one for one in local_models(self._below) if _key(one) == key), Workdir(self._below / key))


def _key(workdir: Workdir) -> str:
    """The folder's name, as far as it can be written in an address."""
    return workdir.root.name.encode(errors="surrogateescape").decode(errors="backslashreplace")


class ClusterUpstream:
    """A namespace of a cluster, with the rights of the kubeconfig."""

    def __init__(self, namespace: str | None, context: str | None):
        self._namespace, self._context, self._recomputing = namespace, context, Recomputing()
        self.stop = self._recomputing.stop

    def models(self) -> Sequence[tuple[str, Summary]]:
        with _said("kubectl get gmodel"):
            listed = models_in_cluster(self._namespace, self._context, everywhere=False)
            summaries = [cluster_summary(resource) for resource in listed]
            return [(one.name, one) for one in summaries]

    def overview(self, key: str) -> Overview:
        cluster = self._model(key)
        with _said(f"kubectl describe gmodel {key}"):
            return cluster_overview(cluster.resource(), cluster.report(), cluster.archive_report())

    def verdict(self, key: str) -> BiasVerdict | None:
        return _verdict(self.overview(key), lambda: self._asked(key, ModelClient.verdict))

    def contests(self, key: str) -> list[dict[str, Json]]:
        with _said(f"governed contests {key} --namespace NAMESPACE"):
            return self._asked(key, ModelClient.contests)

    def facts(self, key: str, id: str) -> bytes:
        with _said(f"governed verify {key} --namespace NAMESPACE"):
            return _facts(self._recomputing, key, id, workdir=None, cluster=self._model(key))

    def _asked(self, key: str, ask: Callable[[ModelClient], T]) -> T:
        with auditor_client(None, key, Credentials(None, None), self._model(key), timeout=PATIENCE) as client:
            return ask(client)

    def _model(self, key: str) -> ClusterModel:
        return ClusterModel(key, self._namespace, self._context)


def _verdict(overview: Overview, live: Callable[[], dict[str, Json]]) -> BiasVerdict | None:
    """The auditor's own, with groups; else what it reported."""
    try:
        return BiasVerdict.model_validate(live())
    except (ClusterError, LocalError, ClientError, OSError, ValidationError, typer.Exit):
        told = overview.report.auditor
    with _said(f"governed status {overview.summary.name}"):
        return BiasVerdict.model_validate(told.model_dump(by_alias=True, exclude_unset=True)) if told else None


def _facts(
    recomputing: "Recomputing", name: str, id: str, *, workdir: Path | None, cluster: ClusterModel | None
) -> bytes:
    """Raises LocalError, ClusterError."""
    program = module("governed_serving.dossier", "facts")
    if program is None:
        raise LocalError("the serving side isn't installed: pip install 'governed-models[serving]'")
    with tempfile.TemporaryDirectory(prefix="governed-console-") as folder:
        target = Path(folder) / "facts.json"
        words = ["--model", name, "--output", str(target), *([f"--id={id}"] if id else [])]
        with gathered(name, _NOTHING, None, Path(folder), workdir=workdir, cluster=cluster) as (told, environment):
            command = [*_behind(), sys.executable, *program, *words, *told]
            try:
                status, said = recomputing.run(command, environment)
            except subprocess.TimeoutExpired:
                raise LocalError(f"the ledger of {name} wasn't recomputed within {RECOMPUTING:g} s") from None
        if status != 0:
            raise LocalError(_reason(said, status))
        return target.read_bytes()


class Recomputing:
    """The process that recomputes a ledger: one at a time. It ends with the console, not by the terminal's Ctrl-C,
    of which it would tell in a traceback."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes]:
        """(exit status, what it said). Raises subprocess.TimeoutExpired, LocalError."""
        with self._lock:
            if self._stopped:
                raise LocalError("the console is being stopped")
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            process = self._process = subprocess.Popen(
                command, env=environment, stdin=nowhere, stdout=nowhere, stderr=pipe, start_new_session=True
            )
        with process:
            try:
                _, said = process.communicate(timeout=RECOMPUTING)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            if self._stopped:
                raise LocalError("the console is being stopped")
            return process.returncode, said

    def stop(self) -> None:
        """For good."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()


def _behind() -> list[str]:
    """Whoever looks on must not take the cores from what is looked at."""
    program = shutil.which("nice")
    return [program, "-n", "10"] if program else []


def _reason(said: bytes, code: int) -> str:
    """The one line that the serving side ends with; what it didn't expect goes to the terminal, not on a page."""
    words = said.decode(errors="replace").strip()
    if "\n" not in words and words:
        return words
    print(printable(words[-4000:], keep="\n"), file=sys.stderr)
    return f"the serving side ended with status {code}: the terminal of governed console says why"

"""The operator as a process, and models for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_api.schema import crd_documents
from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.governed import condition as condition
from support.ports import free_port
from support.processes import Process
from support.waiting import eventually

USER = "governed-operator"
DIGEST = "sha256:" + "ab" * 32
CRDS = Path(__file__).parents[3] / "crds"
COMMAND = [sys.executable, "-m", "governed_operator"]


@dataclass
class AnsweringOperator:
    """An operator process that answers on `port`."""

    port: int

    def get(self, path: str, seconds: float = 5) -> httpx.Response:
        """Raises OSError while nothing answers, as `eventually` expects."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=seconds, trust_env=False)
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error

    @property
    def leading(self) -> bool:
        return bool(self.get("/healthz/ready").json().get("leading"))


@dataclass
class OperatorUnderTest(AnsweringOperator):
    """One operator process, which its test may stop."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(90)


@contextmanager
def running_operator(
    bed: ApiServerBed,
    folder: Path,
    name: str = "operator",
    settings: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "governed_operator"),
) -> Iterator[OperatorUnderTest]:
    """Start one, as an administrator unless `settings` (its environment) name another KUBECONFIG; stopped at the end if
    it still runs.

    `program`: what Python runs.
    """
    port, log = free_port(), folder / f"{name}.log"
    environment = _environment(bed, port, name, settings or {})
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *program], env=environment, stdout=output, stderr=output)
    operator = OperatorUnderTest(port, process, log)
    try:
        yield operator
    finally:
        if process.poll() is None:
            operator.stop()


def _environment(bed: ApiServerBed, port: int, name: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {
        **os.environ,
        "KUBECONFIG": str(bed.kubeconfig_for(USER, ["system:masters"])),
        "POD_NAME": name,
        **settings,
        "GOVERNED_OPERATOR_HTTP_PORT": str(port),
    }


def operator_of_the_bed(bed: ApiServerBed) -> AnsweringOperator:
    """The one operator that all tests on a shared bed work with, leading and in step: nobody stops it, it ends with the
    bed.

    Call it from one worker at a time: whoever comes first starts it.
    """
    noted = bed.folder / "operator.port"
    if not noted.exists():
        port = free_port()
        process = Process("operator", COMMAND, str(bed.folder / "operator.log"))
        bed.add(process, _environment(bed, port, "operator", {}))
        eventually(lambda: AnsweringOperator(port).leading, within=60, what="the operator leads")
        noted.write_text(str(port))
    return AnsweringOperator(int(noted.read_text()))


def install_crds(cluster: Cluster) -> None:
    for name in (document["spec"]["names"]["plural"] for document in crd_documents()):
        cluster.kubectl("apply", "-f", str(CRDS / f"{name}.yaml"))
        cluster.kubectl(
            "wait", "--for=condition=Established", f"crd/{name}.governedmodels.io", "--timeout=90s", timeout=100
        )


def model(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": name},
        "spec": spec,
    }


def imported(name: str = "plain", **predictor: Any) -> dict[str, Any]:
    """A model that needs no training."""
    return model(name, {"predictor": {**predictor, "model": {"storageUri": "pvc://models/m.onnx", "digest": DIGEST}}})


def canary(timeout: int, **predictor: Any) -> dict[str, Any]:
    """An imported model whose revisions, one per `timeout`, are tried on a fifth of the traffic."""
    out = imported(timeout=timeout, **predictor)
    out["spec"]["lifecycle"] = {"rollout": {"strategy": "Canary", "steps": [20], "interval": "1s"}}
    return out


def trained(name: str = "rich") -> dict[str, Any]:
    """A model that makes every owned kind but those of neighbours."""
    training = {"data": {"inline": "x,ok\n0,no\n1,yes\n", "label": "ok", "features": [{"name": "x"}]}}
    return model(
        name,
        {
            "predictor": {"minReplicas": 2, "maxReplicas": 4},
            "lifecycle": {"training": training},
            "explainer": {},
            "quota": {"compute": {"cpu": "8", "memory": "8192Mi"}, "requests": [{"limit": 10}]},
        },
    )


def training_hash(cluster: Cluster, name: str) -> str:
    stored = cluster.get("gmodel", name)
    found = {k: stored[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": stored["metadata"]}
    return ResolvedModel.of(GovernedModel.model_validate(found)).training_hash()


def claim(cluster: Cluster, name: str = "models") -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})


def write_report(cluster: Cluster, name: str, **parts: Any) -> None:
    """As a model's pods would."""
    patch = json.dumps({"status": parts})
    cluster.kubectl("patch", "greport", name, "--subresource=status", "--type=merge", "-p", patch)


def served(requests: int, errors: int, pod: str = "some") -> dict[str, Any]:
    """A pod's entry in a report, written now."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {pod: {"requests": requests, "errors": errors, "observedAt": now}}


def await_ready(cluster: Cluster, name: str, within: float = 400) -> None:
    """A scheduler that missed the binding of a volume looks at the pod again after five minutes."""
    eventually(lambda: condition(cluster, name), lambda c: c[0] == "True", within=within, what=f"{name} is Ready")


def make_trained(cluster: Cluster, name: str = "rich", manifest: dict[str, Any] | None = None) -> None:
    """Create the rich model, or another that is trained, and report that its training succeeded."""
    cluster.apply(manifest or trained(name))
    report_trained(cluster, name)
    await_ready(cluster, name)


def report_trained(cluster: Cluster, name: str) -> None:
    """As the trainer of a model that is there would."""
    eventually(lambda: cluster.get("greport", name), within=90, what="the report")
    trainer = {
        "phase": "Succeeded",
        "trainingHash": training_hash(cluster, name),
        "artefact": {"digest": DIGEST, "blob": "b", "variant": "float"},
    }
    write_report(cluster, name, trainer=trainer)

"""KServe's own controller as the peer: its program, its definitions and its settings from its module, Standard mode, no
ingress.

Its webhooks are not in the way: what they would default is written in the objects, which spares it that work.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from models import Key, Object

from governed_operator.kube.kinds import Kind
from support.apiserver_bed import ApiServerBed
from support.certificates import Authority
from support.cluster_access import Cluster
from support.ports import free_port
from support.processes import Process
from support.programs import module_folder, module_of, program
from support.waiting import eventually

USER = "kserve-controller"
NAMESPACE = "kserve"
SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
RUNTIME = "kserve-sklearnserver"
DEFINED = ("inferenceservices", "servingruntimes", "clusterservingruntimes", "trainedmodels", "inferencegraphs",
           "clusterstoragecontainers")  # fmt: skip
SETTINGS = {"deploy": {"defaultDeploymentMode": "Standard"}, "ingress": {"disableIngressCreation": True, "disableIstioVirtualHost": True}}  # fmt: skip  # noqa: E501
"""What differs from the settings that KServe ships."""


def version() -> str:
    return module_of("kserve-manager").version


def document(key: Key) -> Object:
    """A model on a volume, as its webhook would have completed it: one replica, scaled by an autoscaler."""
    model = {"modelFormat": {"name": "sklearn"}, "runtime": RUNTIME, "storageUri": "pvc://models/m", "protocolVersion": "v1"}  # fmt: skip  # noqa: E501
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {
            "name": key[1],
            "namespace": key[0],
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"minReplicas": 1, "maxReplicas": 1, "model": model}},
    }


def install(cluster: Cluster) -> None:
    """Definitions, settings and the one serving runtime that the models name."""
    shipped = _shipped("kserve-crds.yaml")
    names = {f"{plural}.serving.kserve.io" for plural in DEFINED}
    definitions = [o for o in shipped if o["metadata"]["name"] in names]
    cluster.apply(definitions, "--server-side")  # two megabytes: too large for the annotation of a client-side apply
    for name in sorted(names):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=90s", timeout=100)
    runtime = next(o for o in _shipped("kserve-cluster-resources.yaml") if o["metadata"]["name"] == RUNTIME)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.apply([namespace, runtime])
    cluster.within(NAMESPACE).apply(_settings())


def _settings() -> Object:
    found = next(
        o for o in _shipped("kserve.yaml") if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "inferenceservice-config"  # noqa: E501
    )  # fmt: skip
    data = {key: text for key, text in found["data"].items() if key != "_example"}
    for key, changed in SETTINGS.items():
        data[key] = json.dumps({**json.loads(data[key]), **changed})
    return {**found, "data": data}


def _shipped(name: str) -> list[Any]:
    """One of the manifests of its release."""
    text = (module_folder("kserve") / "install" / version() / name).read_text()
    return [o for o in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if o]


@contextmanager
def running_controller(bed: ApiServerBed) -> Iterator[Process]:
    """Its process, ready and watching; ended with the block."""
    metrics, probe, webhook = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        _webhook_certificate(Path(folder))
        command = [str(program("kserve-manager")), f"-metrics-addr=127.0.0.1:{metrics}",
                   f"-health-probe-addr=127.0.0.1:{probe}", f"-webhook-port={webhook}"]  # fmt: skip
        process = Process("kserve-manager", command, f"{folder}/log")
        kubeconfig = str(bed.kubeconfig_for(USER, ["system:masters"]))
        process.start({**os.environ, "KUBECONFIG": kubeconfig, "POD_NAMESPACE": NAMESPACE, "TMPDIR": folder})
        try:
            eventually(lambda: _ready(process, probe), within=60, what="KServe's controller")
            yield process
        finally:
            process.stop()


def _ready(process: Process, port: int) -> bool:
    if not process.alive:
        raise SystemExit(f"KServe's controller ended at once; its log says:\n{process.tail()}")
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _webhook_certificate(folder: Path) -> None:
    """Its server of webhooks doesn't start without one, though nobody calls it here; this is where it looks by
    itself."""
    place = folder / "k8s-webhook-server" / "serving-certs"
    authority = Authority.create(place)
    authority.issue("tls", "kserve", hosts=["127.0.0.1"])

"""A GovernedModel on a real cluster as its users meet it: apply, wait, ask, read the ledger, send traffic."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from governed_operator.local.sample import load_sample
from support import workloads
from support.cluster_access import Cluster, KubectlError, Object
from support.images import IMAGES
from support.places import ROOT, SUPPORT
from support.programs import program
from support.waiting import eventually

SAMPLES = ROOT / "crds" / "samples"
ARCHIVE_POD = "governed-archive-0"
CLIENT = "client"
WORK = "/work"
"""Folder of the client pod that outlives a process."""


def condition(cluster: Cluster, name: str, kind: str = "Ready") -> tuple[str, str, str]:
    """(status, reason, message) of a model's condition."""
    model = cluster.get("gmodel", name)
    (named,) = [c for c in model["status"]["conditions"] if c["type"] == kind]
    return named["status"], named["reason"], named["message"]


def await_condition(
    cluster: Cluster, name: str, kind: str = "Ready", status: str = "True", within: float = 240
) -> tuple[str, str, str]:
    return eventually(
        lambda: condition(cluster, name, kind), lambda c: c[0] == status, within=within, what=f"{name}: {kind}={status}"
    )


def change(cluster: Cluster, name: str, spec: Mapping[str, Any]) -> None:
    """kubectl patch of a model's spec."""
    cluster.kubectl("patch", "gmodel", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def pods(cluster: Cluster, model: str, track: str = "stable") -> list[Object]:
    """Serving pods of a track that aren't going away."""
    selector = f"governedmodels.io/model={model},governedmodels.io/component=predictor,governedmodels.io/track={track}"
    return [p for p in cluster.list("pods", "-l", selector) if "deletionTimestamp" not in p["metadata"]]


# ------------------------------------------------------------------ clients


def row(**features: str) -> Object:
    """A V2 request of one row of text features."""
    return {"inputs": [{"name": k, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for k, v in features.items()]}


def start_client(cluster: Cluster, name: str = CLIENT) -> None:
    """A pod of another team: no label of ours, no token, Python's standard library and nothing else."""
    image = next(image.name for image in IMAGES if image.role == "server")
    scripts = {"traffic_client.py": (SUPPORT / "traffic_client.py").read_text()}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": scripts})
    mounts = [{"name": "scripts", "mountPath": "/scripts"}, {"name": "work", "mountPath": "/work"}]
    main = workloads.container(workloads.IDLE, image=image, volumeMounts=mounts)
    volumes = [{"name": "scripts", "configMap": {"name": name}}, {"name": "work", "emptyDir": {}}]
    spec = workloads.pod_spec(main, volumes=volumes)
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=300s", timeout=310)


ASK = """
import json, sys, urllib.error, urllib.request
call = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read() or None, {"content-type": "application/json"})
try:
    answer = urllib.request.urlopen(call, timeout=60)
except urllib.error.HTTPError as refused:
    answer = refused
print(json.dumps({"status": answer.status, "body": answer.read().decode()}))
"""


def ask(cluster: Cluster, url: str, body: Object | None = None) -> tuple[int, Any]:
    """GET, or POST of JSON, from within the client pod: (HTTP status, JSON answer)."""
    command = ["exec", "-i", CLIENT, "--", "python", "-c", ASK, url]
    answer = json.loads(cluster.kubectl(*command, stdin=json.dumps(body) if body else "", timeout=90))
    return answer["status"], json.loads(answer["body"]) if answer["body"].startswith(("{", "[")) else answer["body"]


SEND = """
import json, sys, urllib.request
for body in json.load(sys.stdin):
    call = urllib.request.Request(sys.argv[1], json.dumps(body).encode(), {"content-type": "application/json"})
    print(json.loads(urllib.request.urlopen(call, timeout=60).read())["id"])
"""


def send_sample(cluster: Cluster, url: str, name: str = "admissions", rows: int = 256) -> list[str]:
    """The sample's whole population in requests of ``rows`` rows, through the client pod; the requests' ids."""
    sample = replace(load_sample(SAMPLES / f"{name}.requests.json"), rows=rows)
    bodies = [_columns(batch) for batch in sample.batches()]
    command = ["exec", "-i", CLIENT, "--", "python", "-c", SEND, f"{url}/infer"]
    return cluster.kubectl(*command, stdin=json.dumps(bodies), timeout=180).split()


def _columns(rows: Sequence[Mapping[str, str]]) -> Object:
    return {
        "inputs": [
            {"name": name, "shape": [len(rows), 1], "datatype": "BYTES", "data": [row[name] for row in rows]}
            for name in rows[0]
        ]
    }


@dataclass
class Traffic:
    """What a client pod's closed-loop requests came to."""

    answered: list[str] = field(default_factory=list)
    """Ids of answered requests."""
    lost: int = 0
    """Requests whose connection ended before an answer came, on a connection that had served before: sent again."""
    refused: list[Object] = field(default_factory=list)
    """Answers other than 200."""
    failed: list[Object] = field(default_factory=list)
    """Requests that ended in an error."""


@contextmanager
def traffic(cluster: Cluster, url: str, bodies: Sequence[Object], connections: int = 4) -> Iterator[Traffic]:
    """Requests from the client pod for the length of a with block; what came of them is known after it.

    The block begins once a request was answered. The client runs detached in its pod: no connection to the API server
    or to a kubelet carries it, and tests may take both away.
    """
    cluster.execute(CLIENT, "sh", "-c", f"rm -f {WORK}/stop {WORK}/flowing {WORK}/answers.jsonl")
    cluster.kubectl("exec", "-i", CLIENT, "--", "sh", "-c", f"cat > {WORK}/rows.json", stdin=json.dumps(list(bodies)))
    program = f"python /scripts/traffic_client.py {url}/infer {connections} {WORK}/rows.json {WORK}"
    cluster.execute(CLIENT, "sh", "-c", f"setsid {program} </dev/null >{WORK}/client.log 2>&1 &")
    _await_client(cluster, "flowing", within=60)
    counted = Traffic()
    try:
        yield counted
    finally:
        eventually(lambda: cluster.execute(CLIENT, "touch", f"{WORK}/stop") == "", within=60)
        _await_client(cluster, "answers.jsonl", within=150)
    for line in cluster.execute(CLIENT, "cat", f"{WORK}/answers.jsonl").splitlines():
        row = json.loads(line)
        if "id" in row:
            counted.answered.append(row["id"])
        elif "lost" in row:
            counted.lost += 1
        else:
            (counted.refused if "status" in row else counted.failed).append(row)


def _await_client(cluster: Cluster, name: str, within: float) -> None:
    """Wait for a file that the traffic client leaves; what it printed is part of the error if none comes."""
    try:
        eventually(lambda: cluster.execute(CLIENT, "cat", f"{WORK}/{name}") is not None, within=within)
    except AssertionError as missing:
        said = cluster.execute(CLIENT, "cat", f"{WORK}/client.log")
        raise AssertionError(f"the traffic client left no {name} within {within:.0f} s; it said: {said!r}") from missing


# ------------------------------------------------------------------- ledger


def export_ledger(cluster: Cluster, path: Path) -> Path:
    """The archive's whole ledger as a bundle that verifies anywhere, taken out through kubectl."""
    folder, bundle = "/var/lib/governed/archive", "/tmp/ledger.tar"
    cluster.execute(
        ARCHIVE_POD,
        "python",
        "-m",
        "governed_serving.archive",
        "export",
        folder,
        bundle,
        timeout=120,
        container="archive",
    )
    command = cluster.command("exec", ARCHIVE_POD, "-c", "archive", "--", "cat", bundle)
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if done.returncode:
        raise KubectlError(done.stderr.decode())
    path.write_bytes(done.stdout)
    return path


def verify(bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`governed verify`, as a person runs it, nothing of the cluster at hand."""
    command = [str(Path(sys.executable).with_name("governed")), "verify", str(bundle), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def from_outside(cluster: Cluster, *words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A `governed` command about a model of the cluster's namespace, as a person runs it who has a kubeconfig."""
    command = [str(Path(sys.executable).with_name("governed")), *words, "--namespace", cluster.namespace]
    path = f"{program('kubectl').parent}:{cluster.environment['PATH']}"
    environment = cluster.environment | {"PATH": path}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=folder
    )


def entries(bundle: Path) -> list[Object]:
    """All entries of an exported ledger, in order."""
    with tarfile.open(bundle) as tar:
        member = tar.extractfile("entries.jsonl")
        assert member is not None
        return [json.loads(line) for line in member.read().splitlines()]


def predictions(bundle: Path) -> set[str]:
    """Ids of the predictions in an exported ledger."""
    return {entry["id"] for entry in entries(bundle) if entry["type"] == "prediction"}

"""How GitOps tools read objects: Flux and kpt through kstatus, Argo CD through gitops-engine's diff and Lua
(tests/support/go/gitops)."""

import json
import subprocess
from pathlib import Path
from typing import Any

from support.cluster_access import Cluster
from support.places import ROOT
from support.programs import program
from support.waiting import eventually

Object = dict[str, Any]
HEALTH = ROOT / "charts" / "governed-models" / "gitops" / "health.lua"


def _judge(*args: str, given: object) -> Any:
    command = [str(program("gitops-judge")), *args]
    result = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr.strip())
    return json.loads(result.stdout)


def kstatus(found: Object) -> tuple[str, str]:
    """(InProgress | Current | Failed | Terminating, message) of an object as it is in a cluster."""
    answer = _judge("kstatus", given=found)
    return answer["status"], answer["message"]


def argo_health(found: Object, script: Path = HEALTH) -> tuple[str, str]:
    """(Healthy | Progressing | Degraded | Suspended…, message), by a health script in Argo CD's Lua."""
    answer = _judge("health", str(script), given=found)
    return answer["status"], answer.get("message", "")


def reading(cluster: Cluster, name: str) -> tuple[str, str]:
    """(kstatus, Argo CD's health) of a model as it is now."""
    model = cluster.get("gmodel", name)
    return kstatus(model)[0], argo_health(model)[0]


def await_reading(cluster: Cluster, name: str, *wanted: str, within: float = 60) -> None:
    """Wait until a model reads as wanted: (kstatus, Argo CD's health)."""
    eventually(lambda: reading(cluster, name), lambda r: r == wanted, within=within, what=f"{name} reads {wanted}")


def drift(target: Object, live: Object) -> list[str]:
    """Paths at which Argo CD's three-way diff would change a live object, given what Git says; empty: in sync."""
    answer = _judge("diff", given={"target": target, "live": live})
    return sorted(_differences(answer["live"], answer["predicted"])) if answer["modified"] else []


def authored(cluster: Cluster, *what: str) -> dict[str, str]:
    """All of objects but their status, with who wrote it when, by name: the same before and after means nobody
    wrote."""
    objects = json.loads(cluster.kubectl("get", *what, "-o", "json", "--show-managed-fields"))
    return {f"{o['kind']}/{o['metadata']['name']}": _authored(o) for o in objects.get("items", [objects])}


def _authored(found: Object) -> str:
    metadata = found["metadata"]
    fields = [m for m in metadata.get("managedFields", []) if m.get("subresource") != "status"]
    content = {k: v for k, v in found.items() if k not in ("metadata", "status")}
    return json.dumps(
        [metadata.get("generation"), metadata.get("labels"), metadata.get("annotations"), fields, content]
    )


def _differences(left: Any, right: Any, path: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        keys = left.keys() | right.keys()
        return [d for key in keys for d in _differences(left.get(key), right.get(key), f"{path}.{key}")]
    return [] if left == right else [f"{path}: {left!r} → {right!r}"]

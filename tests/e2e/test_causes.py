"""Why a model isn't Ready: the cause that a kubelet, a scheduler or a Job found is in the condition within 15
seconds."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from support.cluster_access import Cluster, Object
from support.governed import condition
from support.node_image import TOOLS
from support.waiting import eventually

PROMPTLY = 15.0  # seconds from the cause in the pod's status to the cause in the model's


def foreign(name: str, image: str = TOOLS, script: str = "sleep 3600", **resources: Any) -> Object:
    """A model whose runtime does as the script says."""
    runtime = {"image": image, "command": ["sh", "-c", script], "port": 9000}
    model = {"modelFormat": {"name": "runtime"}, "runtime": runtime, "resources": resources}
    return _model(name, {"predictor": {"model": model}})


def untrainable(name: str) -> Object:
    rows = "x,ok\n" + "1,yes\n" * 40
    data = {"inline": rows, "label": "ok", "features": [{"name": "x"}]}
    return _model(name, {"lifecycle": {"training": {"data": data}}})


def _model(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": name},
        "spec": spec,
    }


def _waiting(reasons: set[str]) -> Callable[[Object], bool]:
    def seen(pod: Object) -> bool:
        statuses = pod["status"].get("containerStatuses", [])
        return any(s["state"].get("waiting", {}).get("reason") in reasons for s in statuses)

    return seen


def _killed_for_memory(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    ends = [s[which].get("terminated") or {} for s in statuses for which in ("state", "lastState")]
    return any(end.get("reason") == "OOMKilled" for end in ends)


def _unschedulable(pod: Object) -> bool:
    return any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", []))


def ready_conditions(cluster: Cluster) -> dict[str, tuple[str, str, str]]:
    """Model → status, reason and message of Ready, of all models in one look."""
    return {
        model["metadata"]["name"]: (one["status"], one["reason"], one["message"])
        for model in cluster.list("gmodel")
        for one in model.get("status", {}).get("conditions", [])
        if one["type"] == "Ready"
    }


PULL = {"ErrImagePull", "ImagePullBackOff"}
CASES = {
    "pull": (foreign("pull", image="registry.invalid/none:1"), _waiting(PULL), PULL),
    "crash": (foreign("crash", script="exit 3"), _waiting({"CrashLoopBackOff"}), {"CrashLoopBackOff"}),
    "memory": (
        foreign("memory", script="tail /dev/zero", limits={"memory": "32Mi"}, requests={"memory": "32Mi"}),
        _killed_for_memory,
        {"OOMKilled"},
    ),
    "room": (foreign("room", requests={"cpu": "900"}), _unschedulable, {"Unschedulable"}),
}


@pytest.mark.usefixtures("sample", "granting")  # which train meanwhile
def test_cause_is_named_within_15_seconds(kind_namespace: Cluster) -> None:
    kind_namespace.apply([manifest for manifest, _, _ in CASES.values()] + [untrainable("data")])
    happened: dict[str, float] = {}
    unnamed: dict[str, float] = {}
    named: dict[str, str] = {}

    def look() -> set[str]:
        """``unnamed``: seconds from when a cause was certain to the last look that found the model without it, so that
        slow looks accuse nobody."""
        asked, ready = time.monotonic(), ready_conditions(kind_namespace)
        for name, (_, _, reasons) in CASES.items():
            status, reason, message = ready.get(name, ("", "", ""))
            if name not in named and status == "False" and reason in reasons:
                named[name] = message
            elif name not in named and name in happened:
                unnamed[name] = asked - happened[name]
        pods = kind_namespace.list("pods", "-l", "governedmodels.io/component=predictor")
        for name, (_, seen, _) in CASES.items():
            if any(seen(pod) for pod in pods if pod["metadata"]["labels"]["governedmodels.io/model"] == name):
                happened.setdefault(name, time.monotonic())
        return set(CASES) - set(named)

    eventually(look, lambda missing: not missing, within=300, every=0.5, what="every cause is named")
    for name, message in named.items():
        assert unnamed.get(name, 0.0) <= PROMPTLY, name
        assert name in message, "the pod belongs to the message"
    assert "used more memory than its limit" in named["memory"]
    assert "exited with code 3" in named["crash"]
    assert "Insufficient cpu" in named["room"]

    def warnings() -> set[tuple[str, str]]:
        warned = [e for e in kind_namespace.list("events") if e["type"] == "Warning"]
        return {(e["involvedObject"]["name"], e["reason"]) for e in warned}

    wanted = {("crash", "CrashLoopBackOff"), ("room", "Unschedulable")}
    # posted after the status
    eventually(warnings, lambda events: wanted <= events, within=90, what="events for people")

    failed = eventually(
        lambda: condition(kind_namespace, "data", "TrainingSucceeded"), lambda c: c[0] == "False", within=600, every=1
    )
    assert "yes" in failed[2], f"the trainer's own words name the only class: {failed}"
    assert condition(kind_namespace, "data")[1:] == failed[1:]

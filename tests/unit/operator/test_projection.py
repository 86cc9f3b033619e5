"""Drift detection: what is ours in an observed object."""

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from governed_api.quantities import quantity
from governed_operator.desired.canonical import canonical
from governed_operator.kube.projection import desired_fingerprint, observed_fingerprint, project
from governed_operator.watch.facts import PodProblem, pod_problem

DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "n", "labels": {"a": "1"}},
    "spec": {
        "template": {
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}
        }
    },
}
CONTAINER = {
    ".": {},
    "f:image": {},
    "f:name": {},
    "f:ports": {'k:{"containerPort":1,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:protocol": {}}},
}
FIELDS = {
    "f:metadata": {"f:labels": {"f:a": {}}},
    "f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': CONTAINER}}}},
}


def observed() -> dict[str, Any]:
    found = copy.deepcopy(DESIRED)
    found["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "managedFields": [{"manager": "governed-operator", "operation": "Apply", "fieldsV1": FIELDS}],
    }
    found["spec"]["replicas"] = 3
    found["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    found["status"] = {"replicas": 3}
    return found


def test_defaults_foreign_fields_and_status_are_not_drift() -> None:
    found = observed()
    found["metadata"]["labels"]["theirs"] = "x"
    found["metadata"]["annotations"] = {"theirs": "x"}
    found["spec"]["template"]["spec"]["containers"].append({"name": "injected"})
    assert observed_fingerprint(found) == desired_fingerprint(DESIRED)


def test_a_changed_field_that_left_our_ownership_is_drift() -> None:
    found = observed()
    fields = json.loads(json.dumps(FIELDS))
    del fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:image"]
    found["metadata"]["managedFields"][0]["fieldsV1"] = fields
    assert observed_fingerprint(found) != desired_fingerprint(DESIRED)


def test_a_removed_object_part_is_drift() -> None:
    found = observed()
    found["spec"]["template"]["spec"]["containers"] = []
    assert observed_fingerprint(found) != desired_fingerprint(DESIRED)


def test_what_we_never_applied_has_no_fingerprint() -> None:
    found = observed()
    found["metadata"]["managedFields"][0]["manager"] = "kubectl"
    assert observed_fingerprint(found) is None


def test_sets_and_atomic_lists() -> None:
    value = {"finalizers": ["a", "b"], "args": ["x", "y"]}
    assert project(value, {"f:finalizers": {'v:"b"': {}}, "f:args": {}}) == {"finalizers": ["b"], "args": ["x", "y"]}


@given(st.decimals(min_value=0, max_value=10**6, places=3), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
def test_canonical_quantities_keep_their_value_and_are_stable(number: Any, unit: str) -> None:
    text = f"{number}{unit}"
    once = canonical(text)
    assert canonical(once) == once
    assert 0 <= quantity(once) - quantity(text) < 1 or unit == ""
    assert "." not in once


def test_pod_problems_name_container_and_cause() -> None:
    crash = {
        "name": "server",
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
    }
    assert pod_problem("p", {}, [crash]) == PodProblem(
        "CrashLoopBackOff", "container server of pod p: back-off 40s; it exited with code 3"
    )
    killed = {**crash, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    found = pod_problem("p", {}, [killed])
    assert found is not None
    assert found.reason == "OOMKilled"
    unscheduled = {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]
    }
    assert pod_problem("p", unscheduled, []) == PodProblem("Unschedulable", "pod p: 0/3")
    starting = {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}
    assert pod_problem("p", {}, [starting]) is None

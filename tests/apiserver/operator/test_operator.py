"""What the operator keeps true on a real API server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from operator_bed import make_trained

from support.cluster_access import Cluster
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

OWNED = "greport,sa,role,rolebinding,netpol,resourcequota,svc,deploy,hpa,pdb,cm,sts,secret,pvc,job"


def drift(cluster: Cluster, kind: str, name: str, patch: dict[str, Any]) -> None:
    cluster.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))


DRIFTS: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "deploy": ("rich-predictor", {"spec": {"revisionHistoryLimit": 9}}, lambda o: o["spec"]["revisionHistoryLimit"] == 3),  # noqa: E501
    "svc": ("rich", {"spec": {"selector": {"governedmodels.io/model": "x"}}}, lambda o: o["spec"]["selector"]["governedmodels.io/model"] == "rich"),  # noqa: E501
    "role": ("rich-pods", {"rules": []}, lambda o: o["rules"]),
    "rolebinding": ("rich-pods", {"subjects": []}, lambda o: o.get("subjects")),
    "netpol": ("rich", {"spec": {"ingress": [{}]}}, lambda o: o["spec"]["ingress"][0].get("ports")),
    "hpa": ("rich-predictor", {"spec": {"maxReplicas": 9}}, lambda o: o["spec"]["maxReplicas"] == 4),
    "pdb": ("rich-predictor", {"spec": {"maxUnavailable": 2}}, lambda o: o["spec"]["maxUnavailable"] == 1),
    "resourcequota": ("rich-compute", {"spec": {"hard": {"requests.cpu": "99"}}}, lambda o: o["spec"]["hard"]["requests.cpu"] == "8"),  # noqa: E501
    "sa": ("rich-pods", {"metadata": {"labels": {"governedmodels.io/model": "x"}}}, lambda o: o["metadata"]["labels"]["governedmodels.io/model"] == "rich"),  # noqa: E501
    "greport": ("rich", {"metadata": {"ownerReferences": None}}, lambda o: o["metadata"].get("ownerReferences")),
    "sts": ("governed-archive", {"spec": {"replicas": 0}}, lambda o: o["spec"]["replicas"] == 1),
}  # fmt: skip


def test_every_owned_field_that_drifts_comes_back(namespace: Cluster) -> None:
    make_trained(namespace)
    for kind, (name, patch, _) in DRIFTS.items():
        drift(namespace, kind, name, patch)
    for kind, (name, _, restored) in DRIFTS.items():
        eventually(lambda k=kind, n=name: namespace.get(k, n), restored, within=90, what=f"{kind} is restored")  # type: ignore[misc]
    for kind in ("svc/rich", "netpol/rich", "deploy/rich-predictor", "sa/rich-pods", "hpa/rich-predictor"):
        namespace.kubectl("delete", kind)
    for kind, name in (("svc", "rich"), ("netpol", "rich"), ("deploy", "rich-predictor"), ("sa", "rich-pods")):
        eventually(lambda k=kind, n=name: namespace.get(k, n), within=90, what=f"{kind} is made again")  # type: ignore[misc]


def test_what_others_own_stays(namespace: Cluster) -> None:
    make_trained(namespace)
    namespace.kubectl("label", "deploy", "rich-predictor", "team=risk")
    namespace.kubectl("annotate", "svc", "rich", "theirs=yes")
    namespace.kubectl("scale", "deploy", "rich-predictor", "--replicas=3")
    drift(namespace, "hpa", "rich-predictor", {"spec": {"maxReplicas": 9}})
    eventually(lambda: namespace.get("hpa", "rich-predictor")["spec"]["maxReplicas"], lambda n: n == 4, within=90)
    deployment = namespace.get("deploy", "rich-predictor")
    assert deployment["metadata"]["labels"]["team"] == "risk"
    assert deployment["spec"]["replicas"] == 3
    assert namespace.get("svc", "rich")["metadata"]["annotations"]["theirs"] == "yes"

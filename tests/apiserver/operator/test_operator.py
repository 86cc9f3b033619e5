"""What the operator keeps true on a real API server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from operator_bed import (
    USER,
    OperatorUnderTest,
    await_ready,
    claim,
    imported,
    make_trained,
    running_operator,
)

from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.cluster_access import Cluster
from support.waiting import comes_to_rest, consistently, eventually

pytestmark = pytest.mark.usefixtures("operator")

OWNED = "greport,sa,role,rolebinding,netpol,resourcequota,svc,deploy,hpa,pdb,cm,sts,secret,pvc,job"


def drift(cluster: Cluster, kind: str, name: str, patch: dict[str, Any]) -> None:
    cluster.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))


DRIFTS: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "deploy": ("rich-predictor", {"spec": {"revisionHistoryLimit": 9}}, lambda o: o["spec"]["revisionHistoryLimit"] == 3),
    "svc": ("rich", {"spec": {"selector": {"governedmodels.io/model": "x"}}}, lambda o: o["spec"]["selector"]["governedmodels.io/model"] == "rich"),
    "role": ("rich-pods", {"rules": []}, lambda o: o["rules"]),
    "rolebinding": ("rich-pods", {"subjects": []}, lambda o: o.get("subjects")),
    "netpol": ("rich", {"spec": {"ingress": [{}]}}, lambda o: o["spec"]["ingress"][0].get("ports")),
    "hpa": ("rich-predictor", {"spec": {"maxReplicas": 9}}, lambda o: o["spec"]["maxReplicas"] == 4),
    "pdb": ("rich-predictor", {"spec": {"maxUnavailable": 2}}, lambda o: o["spec"]["maxUnavailable"] == 1),
    "resourcequota": ("rich-compute", {"spec": {"hard": {"requests.cpu": "99"}}}, lambda o: o["spec"]["hard"]["requests.cpu"] == "8"),
    "sa": ("rich-pods", {"metadata": {"labels": {"governedmodels.io/model": "x"}}}, lambda o: o["metadata"]["labels"]["governedmodels.io/model"] == "rich"),
    "greport": ("rich", {"metadata": {"ownerReferences": None}}, lambda o: o["metadata"].get("ownerReferences")),
    "sts": ("governed-archive", {"spec": {"replicas": 0}}, lambda o: o["spec"]["replicas"] == 1),
}  # fmt: skip


def test_every_owned_field_that_drifts_comes_back(namespace: Cluster) -> None:
    make_trained(namespace)
    for kind, (name, patch, _) in DRIFTS.items():
        drift(namespace, kind, name, patch)
    for kind, (name, _, restored) in DRIFTS.items():
        eventually(lambda k=kind, n=name: namespace.get(k, n), restored, within=30, what=f"{kind} is restored")  # type: ignore[misc]
    for kind in ("svc/rich", "netpol/rich", "deploy/rich-predictor", "sa/rich-pods", "hpa/rich-predictor"):
        namespace.kubectl("delete", kind)
    for kind, name in (("svc", "rich"), ("netpol", "rich"), ("deploy", "rich-predictor"), ("sa", "rich-pods")):
        eventually(lambda k=kind, n=name: namespace.get(k, n), within=30, what=f"{kind} is made again")  # type: ignore[misc]


def test_what_others_own_stays(namespace: Cluster) -> None:
    make_trained(namespace)
    namespace.kubectl("label", "deploy", "rich-predictor", "team=risk")
    namespace.kubectl("annotate", "svc", "rich", "theirs=yes")
    namespace.kubectl("scale", "deploy", "rich-predictor", "--replicas=3")
    drift(namespace, "hpa", "rich-predictor", {"spec": {"maxReplicas": 9}})
    eventually(lambda: namespace.get("hpa", "rich-predictor")["spec"]["maxReplicas"], lambda n: n == 4, within=30)
    deployment = namespace.get("deploy", "rich-predictor")
    assert deployment["metadata"]["labels"]["team"] == "risk"
    assert deployment["spec"]["replicas"] == 3
    assert namespace.get("svc", "rich")["metadata"]["annotations"]["theirs"] == "yes"


def test_a_converged_system_writes_nothing_and_neither_does_a_restart(
    namespace: Cluster, api_bed: ApiServerBed, audit: AuditLog, operator: OperatorUnderTest, tmp_path: Any
) -> None:
    make_trained(namespace)
    claim(namespace)
    namespace.apply(imported())
    await_ready(namespace, "plain")
    scaled = "the autoscaler has set its two replicas"
    eventually(
        lambda: namespace.get("deploy", "rich-predictor")["status"]["availableReplicas"], lambda n: n == 2, what=scaled
    )

    def writes(since: int) -> list[Any]:
        return [w for w in audit.writes(since, user=USER) if w.namespace == namespace.namespace]

    begun = audit.mark()
    comes_to_rest(lambda: writes(begun), during=5, what="what the operator writes")
    mark = audit.mark()
    consistently(lambda: writes(mark), lambda w: not w, during=60, every=5, what="no writes")
    with running_operator(api_bed, tmp_path, "second") as second:
        operator_leads = operator.leading
        assert operator_leads
        eventually(lambda: second.get("/healthz/ready").status_code, lambda s: s == 200, within=60)
        mark = audit.mark()
        operator.stop()
        eventually(lambda: second.leading, within=60, what="the standby leads")
        consistently(lambda: writes(mark), lambda w: not w, during=10, every=2, what="no writes after a hand-over")
        namespace.kubectl("delete", "svc", "rich")
        eventually(lambda: namespace.get("svc", "rich"), within=30, what="the new leader repairs")


@pytest.fixture
def plain(namespace: Cluster) -> Cluster:
    claim(namespace)
    namespace.apply(imported())
    await_ready(namespace, "plain")
    return namespace

"""A converged system writes nothing, and neither does an operator that takes over."""

from typing import Any

from operator_bed import USER, OperatorUnderTest, await_ready, claim, imported, make_trained, running_operator

from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.cluster_access import Cluster
from support.waiting import comes_to_rest, consistently, eventually

QUIET = 10.0
"""Seconds without a write, after writes have come to rest."""


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
    consistently(lambda: writes(mark), lambda w: not w, during=QUIET, every=1, what="no writes")
    with running_operator(api_bed, tmp_path, "second") as second:
        operator_leads = operator.leading
        assert operator_leads
        eventually(lambda: second.get("/healthz/ready").status_code, lambda s: s == 200, within=60)
        mark = audit.mark()
        operator.stop()
        eventually(lambda: second.leading, within=60, what="the standby leads")
        consistently(lambda: writes(mark), lambda w: not w, during=QUIET, every=1, what="no writes after a hand-over")
        namespace.kubectl("delete", "svc", "rich")
        eventually(lambda: namespace.get("svc", "rich"), within=90, what="the new leader repairs")

"""The neighbours' own schemas judge what the operator makes for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_bed import USER, await_ready, claim, imported, running_operator

from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.cluster_access import Cluster
from support.places import ROOT
from support.waiting import comes_to_rest, consistently, eventually

RENDERED = ROOT / "tests" / "golden" / "neighbours-present" / "output.yaml"
KINDS = ("HTTPRoute", "ScaledObject", "ServiceMonitor")
SCALED = {"minReplicas": 1, "maxReplicas": 3, "scaleMetric": "concurrency", "scaleTarget": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_is_taken_as_it_is(namespace: Cluster, kind: str) -> None:
    """A default that a definition fills in, in a list that is owned whole, would be drift to repair after every
    restart."""
    (rendered,) = (o for o in yaml.safe_load_all(RENDERED.read_text()) if o["kind"] == kind)
    rendered["metadata"]["namespace"] = namespace.namespace
    taken = namespace.apply(rendered, "--server-side", "--dry-run=server", "-o", "json")
    assert json.loads(taken)["spec"] == rendered["spec"]


def test_a_live_model_has_them_and_neither_rest_nor_a_restart_writes(
    namespace: Cluster, api_bed: ApiServerBed, audit: AuditLog, settings: dict[str, str], tmp_path: Path
) -> None:
    def writes(since: int) -> list[Any]:
        return [w for w in audit.writes(since, user=USER) if w.namespace == namespace.namespace]

    claim(namespace)
    with running_operator(api_bed, tmp_path, "first", settings):
        namespace.apply(imported(**SCALED))
        await_ready(namespace, "plain")
        begun = audit.mark()
        comes_to_rest(lambda: writes(begun), during=5, what="what the operator writes")
    assert {o["kind"] for o in namespace.list(",".join(KINDS))} == set(KINDS)
    mark = audit.mark()
    with running_operator(api_bed, tmp_path, "second", settings) as second:
        eventually(lambda: second.leading, within=60, what="the second leads")
        eventually(lambda: "governed_operator_reconcile_seconds_count" in second.get("/metrics").text, within=90)
        consistently(lambda: writes(mark), lambda w: not w, during=10, every=1, what="no writes after a restart")


@pytest.fixture
def model(namespace: Cluster, api_bed: ApiServerBed, settings: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """The namespace of a model that is Ready under a running operator."""
    claim(namespace)
    with running_operator(api_bed, tmp_path, settings=settings):
        namespace.apply(imported(**SCALED))
        await_ready(namespace, "plain")
        yield namespace


def test_prometheus_is_sent_to_each_pod_once(model: Cluster) -> None:
    """By way of the clients' Service and of its track's, a pod's requests in flight would count twice for KEDA."""
    monitor = eventually(lambda: model.get("servicemonitor", "plain"), within=60)
    eventually(lambda: model.get("svc", "plain-stable"), within=60)
    selector = monitor["spec"]["selector"]
    equal = [f"{k}={v}" for k, v in selector["matchLabels"].items()]
    absent = [f"!{e['key']}" for e in selector["matchExpressions"] if e["operator"] == "DoesNotExist"]
    scraped = model.list("svc", "-l", ",".join(equal + absent))
    assert [s["metadata"]["name"] for s in scraped] == ["plain"]


def test_the_autoscaler_that_keda_makes_is_left_alone(model: Cluster) -> None:
    """KEDA copies a ScaledObject's labels, which are ours, to the autoscaler that it makes and keeps
    (controllers/keda/hpa.go)."""
    scaled = model.get("scaledobject", "plain-predictor")
    owner = {k: scaled[k] for k in ("apiVersion", "kind")} | {k: scaled["metadata"][k] for k in ("name", "uid")}
    name = "keda-hpa-plain-predictor"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "plain-predictor"}
    model.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": name,
                "labels": scaled["metadata"]["labels"],
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
        }
    )
    before = model.get("gmodel", "plain")["status"]["stable"]["name"]
    model.apply(imported(timeout=61, **SCALED))
    eventually(lambda: model.get("gmodel", "plain")["status"]["stable"]["name"] != before, within=90)
    await_ready(model, "plain")
    assert model.get("hpa", name)["metadata"].get("deletionTimestamp") is None


def test_a_keda_that_does_not_scale_is_told_and_comes_back(model: Cluster) -> None:
    """Its conditions (apis/keda/v1alpha1/condition_types.go) are written by hand; by KEDA itself in test_keda.py, which
    is opt-in."""

    def said(status: str, reason: str, message: str) -> None:
        ready = {"type": "Ready", "status": status, "reason": reason, "message": message}
        patch = json.dumps({"status": {"conditions": [ready]}})
        model.kubectl("patch", "scaledobject", "plain-predictor", "--subresource=status", "--type=merge", "-p", patch)

    def degraded() -> tuple[str, str, str]:
        found = next(c for c in model.get("gmodel", "plain")["status"]["conditions"] if c["type"] == "Degraded")
        return found["status"], found["reason"], found["message"]

    said("False", "ScaledObjectCheckFailed", "error parsing prometheus metadata: no serverAddress given")
    expected = "KEDA does not scale it: error parsing prometheus metadata: no serverAddress given"
    eventually(lambda: degraded() == ("True", "ScaledObjectCheckFailed", expected), within=90)
    said("True", "ScaledObjectReady", "ScaledObject is defined correctly and is ready for scaling")
    eventually(lambda: degraded()[0] == "False", within=90)

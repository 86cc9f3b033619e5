"""Flux, kpt and Argo CD read our status rightly, and see nothing of ours in what the user wrote."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_bed import (
    await_ready,
    claim,
    condition,
    imported,
    make_trained,
    report_trained,
    trained,
    write_report,
)

from governed_api.names import CLUSTER_POLICY_KIND, CONSUMER_KIND, FIELD_MANAGER, KIND
from support.cluster_access import Cluster
from support.consumer_manifests import consumer
from support.gitops import argo_health, authored, await_reading, drift, kstatus, reading
from support.model_manifests import valid
from support.places import ROOT
from support.waiting import comes_to_rest, consistently, eventually

pytestmark = pytest.mark.usefixtures("operator")

SAMPLES = sorted((ROOT / "crds" / "samples").glob("*.yaml"))
OWNED = "greport,sa,role,rolebinding,netpol,resourcequota,svc,deploy,hpa,pdb,cm,sts,secret,job"
FLUX, ARGO = "kustomize-controller", "argocd-controller"


# ---------------------------------------------------------------- status


def test_what_time_may_mend_is_in_progress_and_what_it_cannot_has_failed(namespace: Cluster) -> None:
    namespace.apply(imported())
    eventually(lambda: condition(namespace, "plain"), lambda c: c[1] == "PersistentVolumeClaimNotFound", within=90)
    assert reading(namespace, "plain") == ("InProgress", "Progressing"), "Git may bring the claim in the next moment"
    claim(namespace)
    await_ready(namespace, "plain")
    assert reading(namespace, "plain") == ("Current", "Healthy")
    (pod,) = namespace.list("pod", "-l", "governedmodels.io/component=predictor")
    statuses = pod["status"]["containerStatuses"]
    statuses[0] |= {"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}}
    patch_status(namespace, "pod", pod["metadata"]["name"], {"containerStatuses": statuses})
    await_reading(namespace, "plain", "Failed", "Degraded", within=90)
    _, message = kstatus(namespace.get("gmodel", "plain"))
    assert pod["metadata"]["name"] in message
    assert argo_health(namespace.get("gmodel", "plain"))[1].startswith("CrashLoopBackOff: ")


def patch_status(cluster: Cluster, kind: str, name: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)


def test_a_failed_training_has_failed_and_a_mended_one_goes_on(namespace: Cluster) -> None:
    manifest = trained()
    manifest["spec"]["predictor"]["nodeSelector"] = {"no": "such-node"}
    namespace.apply(manifest)
    eventually(lambda: condition(namespace, "rich"), lambda c: c[1] == "Unschedulable", within=90)
    assert reading(namespace, "rich") == ("InProgress", "Progressing"), "a node may still come"
    (pod,) = namespace.list("pod", "-l", "governedmodels.io/component=trainer")
    ended = {"name": "trainer", "ready": False, "restartCount": 0, "image": "i", "imageID": "i"}
    ended |= {"state": {"terminated": {"exitCode": 2, "reason": "Error", "startedAt": None, "finishedAt": None}}}
    patch_status(namespace, "pod", pod["metadata"]["name"], {"phase": "Failed", "containerStatuses": [ended]})
    await_reading(namespace, "rich", "Failed", "Degraded", within=90)
    (job,) = namespace.list("job")
    assert kstatus(job)[0] == "Failed", "as kstatus reads the Job itself"

    mended = trained()
    mended["spec"]["lifecycle"]["training"]["data"]["inline"] += "2,yes\n"
    namespace.apply(mended)
    await_reading(namespace, "rich", "InProgress", "Progressing")
    report_trained(namespace, "rich")
    await_reading(namespace, "rich", "Current", "Healthy", within=90)


def test_a_canary_on_trial_is_in_progress_and_one_rolled_back_has_failed(namespace: Cluster) -> None:
    claim(namespace)
    namespace.apply(canary(60))
    await_ready(namespace, "plain")
    namespace.apply(canary(61))
    trial = eventually(lambda: namespace.get("gmodel", "plain")["status"]["canary"]["name"], within=90)
    assert reading(namespace, "plain") == ("InProgress", "Progressing")
    write_report(namespace, "plain", revisions={trial: {"server": {"p": {"requests": 100, "errors": 50}}}})
    await_reading(namespace, "plain", "Failed", "Degraded")
    assert "50 of 100 requests failed" in kstatus(namespace.get("gmodel", "plain"))[1]
    namespace.apply(canary(60))  # Git goes back to what serves
    await_reading(namespace, "plain", "Current", "Healthy")


def canary(timeout: int) -> dict[str, Any]:
    out = imported(timeout=timeout)
    out["spec"]["lifecycle"] = {"rollout": {"strategy": "Canary", "steps": [20], "interval": "1s"}}
    return out


def test_a_verdict_against_the_model_is_told_and_is_no_ill_health(namespace: Cluster) -> None:
    manifest = trained()
    bias = {"protectedAttributes": [{"name": "x"}], "favorableOutcome": {"label": "yes"}}
    manifest["spec"]["governance"] = {
        "bias": bias | {"metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}]}
    }
    make_trained(namespace, manifest=manifest)
    auditor = {"verdict": "Fail", "summary": "disparateImpactRatio .58", "samples": 500}
    write_report(namespace, "rich", auditor=auditor)
    eventually(lambda: condition(namespace, "rich", "BiasWithinThresholds"), lambda c: c[0] == "False", within=90)
    status, message = argo_health(namespace.get("gmodel", "rich"))
    assert status == "Healthy"
    assert message == "BeyondThreshold: disparateImpactRatio .58"


def test_health_script_survives_what_it_has_never_seen(tmp_path: Path) -> None:
    """Objects at the edge of existence, and a script that is wrong: the bench must show the difference."""
    bare: dict[str, Any] = {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "m"},
    }
    assert argo_health(bare)[0] == "Progressing"
    assert argo_health(bare | {"metadata": {"name": "m", "generation": 1}, "status": {}})[0] == "Progressing"
    none_yet = {"metadata": {"name": "m", "generation": 1}, "status": {"observedGeneration": 1}}
    assert argo_health(bare | none_yet)[0] == "Progressing"
    wrong = tmp_path / "wrong.lua"
    wrong.write_text("return {status = 'Fine'}")
    with pytest.raises(RuntimeError, match='returned the status "Fine"'):
        argo_health(bare, wrong)


# ---------------------------------------------------------------- what the user wrote


def manifests() -> list[dict[str, Any]]:
    """The samples, and some of the tests' own."""
    samples = [yaml.safe_load_all(path.read_text()) for path in SAMPLES]
    return [*itertools.chain(*samples), consumer(), valid(), trained(), imported()]


def placed(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A manifest for the namespace of a test. A policy of the whole cluster gets a name of the test's own, and is about
    no model: those of other tests must roll out."""
    if manifest["kind"] == CLUSTER_POLICY_KIND:
        nobody = {"matchLabels": {"test": namespace}}
        name = f"{manifest['metadata']['name']}-{namespace}"
        return manifest | {"metadata": {"name": name}, "spec": manifest["spec"] | {"selector": nobody}}
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "namespace"}
    return manifest | {"metadata": metadata}


TOLD = frozenset({KIND, CONSUMER_KIND})
"""Kinds whose status the operator writes."""


def settle(cluster: Cluster, kind: str, name: str) -> None:
    """Until the operator has said what it has to say of an object's present generation."""
    if kind not in TOLD:
        return

    def settled(found: dict[str, Any]) -> bool:
        return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])

    eventually(lambda: cluster.get(kind, name), settled, within=60, what=f"{name} is observed")


APPLIES: dict[str, tuple[str, ...]] = {
    "kubectl": (),
    "Argo CD": ("--server-side", f"--field-manager={ARGO}"),
    "Flux": ("--server-side", f"--field-manager={FLUX}"),
}


@pytest.mark.parametrize("how", APPLIES)
def test_git_and_cluster_agree_after_the_operator_has_worked(namespace: Cluster, how: str) -> None:
    arguments = APPLIES[how]
    for manifest in (placed(m, namespace.namespace) for m in manifests()):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        namespace.apply(manifest, *arguments)
        settle(namespace, kind, name)
        live = namespace.get(kind, name)
        assert drift(manifest, live) == [], "gitops-engine sees a difference"
        before = authored(namespace, kind, name)
        namespace.apply(manifest, *arguments)  # server-side without force: a conflict would fail here
        assert authored(namespace, kind, name) == before
        assert owned(namespace, kind, name) == [], "the operator owns nothing but status"
        if kind == CLUSTER_POLICY_KIND:
            namespace.kubectl("delete", kind, name)


def owned(cluster: Cluster, kind: str, name: str) -> list[dict[str, Any]]:
    """What of an object of the user's the operator owns besides its status."""
    found = json.loads(cluster.kubectl("get", kind, name, "-o", "json", "--show-managed-fields"))
    ours = [m for m in found["metadata"]["managedFields"] if m["manager"] == FIELD_MANAGER]
    assert bool(ours) == (kind in TOLD), "the operator has written the status"
    return [m["fieldsV1"] for m in ours if m.get("subresource") != "status" or set(m["fieldsV1"]) != {"f:status"}]


@pytest.mark.parametrize("how", ["kubectl", "Flux"])
def test_a_converged_model_stays_the_same_under_a_second_apply(namespace: Cluster, how: str) -> None:
    """resourceVersion and all: neither the apply nor the operator writes."""

    def version() -> str:
        return str(namespace.get("gmodel", "plain")["metadata"]["resourceVersion"])

    claim(namespace)
    namespace.apply(imported(), *APPLIES[how])
    await_ready(namespace, "plain")
    # Ready comes before the last word: the autoscaler and the archive have things to say after it.
    before = comes_to_rest(version, what="the model")
    namespace.apply(imported(), *APPLIES[how])
    consistently(version, lambda seen: seen == before, during=4, what=f"resourceVersion {before}")


def test_the_bench_sees_a_drift() -> None:
    live = valid()
    live["spec"]["predictor"]["timeout"] = 31
    assert drift(valid(), live) == [".spec.predictor.timeout: 31 → 30"]


def test_nothing_without_an_owner_bears_a_label_that_argo_cd_tracks_by(namespace: Cluster) -> None:
    """An application may bear the model's name. By label, Argo CD then takes for its own, and prunes, what has the
    label and no owner reference (gitops-engine pkg/cache, GetManagedLiveObjs): the keys must not be among it."""
    make_trained(namespace)
    kinds = f"{OWNED},pvc,priorityclass"
    found = namespace.list(kinds, "-l", "app.kubernetes.io/managed-by=governed-operator")
    names = {f"{o['kind']}/{o['metadata']['name']}" for o in found}
    assert {"Secret/rich-kek", "StatefulSet/governed-archive", "Deployment/rich-predictor"} <= names
    assert [k for k in names if k.startswith("PriorityClass/governed-rich-")]
    tracked = [o for o in found if "app.kubernetes.io/instance" in o["metadata"]["labels"]]
    assert tracked, "people find a model's objects by this label"
    assert [o["metadata"]["name"] for o in tracked if not o["metadata"].get("ownerReferences")] == []

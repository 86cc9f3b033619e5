"""Causes in conditions within seconds, canaries, deletion."""

import json
from typing import Any

import pytest
from operator_bed import (
    DIGEST,
    await_ready,
    canary,
    claim,
    condition,
    imported,
    make_trained,
    model,
    served,
    trained,
    write_report,
)

from governed_api.object_names import account
from support.cluster_access import Cluster, KubectlError
from support.waiting import consistently, eventually

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def plain(namespace: Cluster) -> Cluster:
    claim(namespace)
    namespace.apply(imported())
    await_ready(namespace, "plain")
    return namespace


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.list("pod", "-l", "governedmodels.io/model=plain")


def test_a_crash_loop_is_named_within_15_seconds_and_forgotten_when_over(plain: Cluster) -> None:
    (pod,) = pods(plain)
    good = json.dumps({"status": {"containerStatuses": pod["status"]["containerStatuses"]}})
    bad = pod["status"]["containerStatuses"]
    bad[0] |= {
        "ready": False,
        "restartCount": 5,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
    }
    patch = json.dumps({"status": {"containerStatuses": bad}})
    name = pod["metadata"]["name"]
    plain.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)
    found = eventually(lambda: condition(plain, "plain"), lambda c: c[:2] == ("False", "CrashLoopBackOff"), within=90)
    assert name in found[2]
    assert "exited with code 3" in found[2]
    events = plain.list("events", "--field-selector=reason=CrashLoopBackOff")
    assert [e["type"] for e in events] == ["Warning"]
    plain.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", good)
    await_ready(plain, "plain", 15)


def test_missing_secret_and_claim_are_named_and_come_right(namespace: Cluster) -> None:
    spec = imported()["spec"] | {"governance": {"encryption": {"keyRef": {"secretName": "mine"}}}}
    namespace.apply(model("plain", spec))
    found = eventually(lambda: condition(namespace, "plain"), lambda c: c[1] == "SecretNotFound", within=90)
    assert "there is no Secret mine" in found[2]
    namespace.kubectl("create", "secret", "generic", "mine", "--from-literal=kek=" + "k" * 32)
    eventually(lambda: condition(namespace, "plain"), lambda c: c[1] == "PersistentVolumeClaimNotFound", within=90)
    claim(namespace)
    await_ready(namespace, "plain")


def test_a_change_that_the_api_server_refuses_is_told_while_the_old_spec_serves_on(plain: Cluster) -> None:
    """kstatus and a person that waits for this generation must hear of it, not wait for ever."""
    before = plain.get("deploy", "plain-predictor")["spec"]
    hard = {"count/configmaps": str(len(plain.list("configmap")))}
    plain.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": hard}})
    eventually(
        lambda: plain.get("resourcequota", "full").get("status", {}).get("hard"), within=90, what="the quota counts"
    )
    plain.apply(imported(timeout=77))
    found = eventually(lambda: condition(plain, "plain"), lambda c: c[:2] == ("False", "Forbidden"), within=90)
    assert "exceeded quota: full" in found[2]
    told = plain.get("gmodel", "plain")
    assert told["status"]["observedGeneration"] == told["metadata"]["generation"]
    assert condition(plain, "plain", "Degraded")[0] == condition(plain, "plain", "Reconciling")[0] == "True"
    assert plain.get("deploy", "plain-predictor")["spec"] == before
    plain.kubectl("delete", "resourcequota", "full")
    await_ready(plain, "plain", 60)
    after = {x["type"]: x["status"] for x in plain.get("gmodel", "plain")["status"]["conditions"]}
    assert after["Degraded"] == "False"
    assert "Reconciling" not in after
    assert len(plain.list("events", "--field-selector=reason=ReconcileFailed")) == 1


def webhook_that_is_down(namespace: str) -> dict[str, Any]:
    """Of Deployments in one namespace; its port refuses connections."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "down"},
        "webhooks": [
            {
                "name": "down.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [rule],
                "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }
        ],
    }  # fmt: skip


def denied(cluster: Cluster) -> bool:
    try:
        cluster.kubectl("annotate", "deploy", "plain-predictor", "try=1", "--dry-run=server")
    except KubectlError:
        return True
    return False


def test_a_webhook_that_is_down_is_told_once_and_forgotten_when_it_is_gone(plain: Cluster) -> None:
    """500 InternalError: nothing that a quota or a schema says, and no less in the way."""
    plain.apply(webhook_that_is_down(plain.namespace))
    try:
        eventually(lambda: denied(plain), within=90, what="the API server calls the webhook")
        plain.apply(imported(timeout=78))
        found = eventually(lambda: condition(plain, "plain"), lambda c: c[:2] == ("False", "InternalError"), within=90)
        assert "Deployment plain-predictor" in found[2]
        assert "down.example.com" in found[2]
        told = plain.get("gmodel", "plain")
        assert told["status"]["observedGeneration"] == told["metadata"]["generation"]
        assert condition(plain, "plain", "Degraded")[:2] == ("True", "InternalError")
        assert len(plain.list("events", "--field-selector=reason=ReconcileFailed")) == 1
    finally:
        plain.kubectl("delete", "validatingwebhookconfiguration", "down")
    await_ready(plain, "plain", 60)
    eventually(lambda: condition(plain, "plain", "Degraded"), lambda c: c[0] == "False", within=90)
    assert len(plain.list("events", "--field-selector=reason=ReconcileFailed")) == 1


def test_deletion_leaves_only_what_is_retained(namespace: Cluster) -> None:
    make_trained(namespace)
    assert len(classes(namespace)) == 1
    namespace.kubectl("delete", "gmodel", "rich")
    kinds = "sa,role,rolebinding,netpol,resourcequota,svc,deploy,hpa,pdb,cm,secret,pvc,job,greport,pod"

    def left() -> set[str]:
        found = namespace.list(kinds, "-l", "governedmodels.io/model=rich")
        return {f"{o['kind']}/{o['metadata']['name']}" for o in found if "deletionTimestamp" not in o["metadata"]}

    eventually(left, lambda names: names == {"Secret/rich-kek"}, within=60)
    assert namespace.get("sts", "governed-archive")
    assert namespace.get("secret", "governed-archive-keys")
    eventually(lambda: classes(namespace), lambda left: not left, within=90)


def test_the_api_server_refuses_more_than_quota_compute(namespace: Cluster) -> None:
    make_trained(namespace)
    (priority_class,) = classes(namespace)
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    resources = {"requests": {"cpu": "100", "memory": "1Mi"}}
    container = {"name": "c", "image": "i", "resources": resources, "securityContext": restricted}
    pod_security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "greedy"},
        "spec": {
            "priorityClassName": priority_class["metadata"]["name"],
            "securityContext": pod_security,
            "containers": [container],
        },
    }
    with pytest.raises(KubectlError, match="exceeded quota: rich-compute"):
        namespace.apply(pod)


def test_a_priority_may_change_under_a_compute_quota(namespace: Cluster) -> None:
    """The value of a PriorityClass is immutable: another priority is another class, and the old one goes."""
    make_trained(namespace)
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 7}
    namespace.apply(urgent)
    manifest = trained()
    manifest["spec"]["predictor"]["priorityClassName"] = "urgent"
    namespace.apply(manifest)
    eventually(lambda: [c["value"] for c in classes(namespace)], lambda v: v == [7], within=60, what="one class, of 7")
    await_ready(namespace, "rich")
    template = namespace.get("deploy", "rich-predictor")["spec"]["template"]
    assert template["spec"]["priorityClassName"] == classes(namespace)[0]["metadata"]["name"]


def classes(cluster: Cluster) -> list[dict[str, Any]]:
    """Priority classes of the models of a namespace."""
    return cluster.list("priorityclass", "-l", f"governedmodels.io/namespace={cluster.namespace}")


def test_an_import_that_cannot_be_served_is_taken_away_until_the_spec_changes(plain: Cluster) -> None:
    (pod,) = pods(plain)
    name, revision = pod["metadata"]["name"], plain.get("gmodel", "plain")["status"]["stable"]["name"]
    unready = [
        x | {"status": "False"} if x["type"] in ("Ready", "ContainersReady") else x for x in pod["status"]["conditions"]
    ]
    patch = json.dumps({"status": {"conditions": unready}})
    plain.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)
    refused = served(0, 0, name)
    refused[name] |= {"ready": False, "refused": True, "message": "m.onnx: expected a model, found junk"}
    write_report(plain, "plain", revisions={revision: {"server": refused}})
    gone = lambda: plain.list("deploy", "-l", "governedmodels.io/model=plain") == []  # noqa: E731
    eventually(gone, within=90, what="the Deployment is taken away")
    found = eventually(lambda: condition(plain, "plain"), lambda c: c[:2] == ("False", "ImportRefused"), within=90)
    assert "expected a model, found junk" in found[2]
    eventually(lambda: pods(plain) == [], within=90, what="its pods are gone")
    consistently(gone, during=5)
    assert condition(plain, "plain")[:2] == ("False", "ImportRefused")
    changed = json.dumps({"spec": {"quota": {"maxConcurrent": 3}}})
    plain.kubectl("patch", "gmodel", "plain", "--type=merge", "-p", changed)
    await_ready(plain, "plain")


def test_entries_of_pods_that_are_gone_leave_the_report_and_only_they(namespace: Cluster) -> None:
    claim(namespace)
    namespace.apply(imported())
    await_ready(namespace, "plain")
    (pod,) = (p["metadata"]["name"] for p in namespace.list("pod", "-l", "governedmodels.io/component=predictor"))
    revision = namespace.get("gmodel", "plain")["status"]["stable"]["name"]
    long_ago = {"observedAt": "2026-01-01T00:00:00.000Z", "requests": 3}
    old = {"server": {pod: long_ago, "gone": long_ago}, "auditor": {"gone": long_ago}}
    write_report(namespace, "plain", revisions={revision: old, "earlier": {"server": {"gone": long_ago}}})

    def left() -> dict[str, set[str]]:
        found = namespace.get("greport", "plain")["status"]["revisions"]
        return {r: {*parts.get("server", ()), *parts.get("auditor", ())} for r, parts in found.items()}

    eventually(left, lambda found: found == {revision: {pod}}, within=90)


def test_how_long_payloads_are_kept_is_the_operators_to_say(namespace: Cluster) -> None:
    """In the report's metadata: pods may patch its status alone, the archive may read it."""
    manifest = imported()
    manifest["spec"]["governance"] = {"privacy": {"retention": {"payloads": "90d"}}}
    claim(namespace)
    namespace.apply(manifest)
    said = lambda: namespace.get("greport", "plain")["metadata"]["annotations"]["governedmodels.io/lifetimes"]  # noqa: E731
    assert eventually(said, within=60) == '{"keys": null, "payloads": 7776000}'

    def may(account: str, verb: str, what: str, *more: str) -> bool:
        speaker = f"--as=system:serviceaccount:{namespace.namespace}:{account}"
        try:
            return namespace.kubectl("auth", "can-i", verb, what, *more, speaker).strip() == "yes"
        except KubectlError:
            return False

    pods, archive, report = account("plain"), "governed-archive", "governancereports.governedmodels.io/plain"
    eventually(lambda: may(pods, "patch", report, "--subresource=status"), within=30)
    assert may(archive, "get", report)
    assert may(archive, "patch", report.replace("plain", archive), "--subresource=status")
    never = [(pods, report), (archive, report), (archive, report.replace("plain", archive))]
    assert [may(who, "patch", what) for who, what in never] == [False] * 3
    assert not may(archive, "patch", report, "--subresource=status")

    manifest["spec"]["governance"]["privacy"]["retention"]["payloads"] = "7d"
    namespace.apply(manifest)
    eventually(said, lambda text: text == '{"keys": null, "payloads": 604800}', within=60)


def test_a_pods_word_promotes_nothing_that_the_ledger_has_a_failed_verdict_on(namespace: Cluster) -> None:
    """Every pod of the model may write its report, and any index into it; the archive alone writes its own."""
    bias = {"protectedAttributes": [{"name": "x"}], "favorableOutcome": {"label": "yes"}, "action": "Rollback"}
    rules = {"bias": bias | {"metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}]}}

    def revision(timeout: int) -> dict[str, Any]:
        out = canary(timeout)
        out["spec"]["governance"] = rules
        return out

    claim(namespace)
    namespace.apply(revision(60))
    await_ready(namespace, "plain")
    first = namespace.get("gmodel", "plain")["status"]["stable"]["name"]
    namespace.apply(revision(61))
    trial = eventually(lambda: namespace.get("gmodel", "plain")["status"]["canary"]["name"], within=90)
    forged = served(100, 0)["some"] | {"verdict": "Pass", "inForce": "None", "samples": 10**9, "ledgerIndex": 2**62}
    parts = {"server": served(100, 0), "auditor": {"some": forged}}
    write_report(namespace, "plain", revisions={trial: parts})
    consistently(lambda: namespace.get("gmodel", "plain")["status"]["stable"]["name"], lambda n: n == first, during=5)
    failed = {"model": "plain", "revision": trial, "ledgerIndex": 6, "verdict": "Fail", "summary": "DIR .58"}
    write_report(namespace, "governed-archive", archive={"verdicts": [failed]})
    degraded = lambda: condition(namespace, "plain", "Degraded")  # noqa: E731
    found = eventually(degraded, lambda c: c[0] == "True", within=60)
    assert (found[1], "DIR .58" in found[2]) == ("CanaryBiasBeyondThreshold", True)
    status = namespace.get("gmodel", "plain")["status"]
    assert (status["stable"]["name"], status["rejected"]) == (first, trial)


def test_a_canary_is_promoted_when_good_and_rolled_back_when_not(namespace: Cluster) -> None:
    claim(namespace)
    namespace.apply(canary(60))
    await_ready(namespace, "plain")
    first = namespace.get("gmodel", "plain")["status"]["stable"]["name"]

    namespace.apply(canary(61))
    on_trial = eventually(lambda: namespace.get("gmodel", "plain")["status"]["canary"]["name"], within=90)
    eventually(lambda: namespace.get("deploy", "plain-canary"), within=90)
    assert namespace.get("gmodel", "plain")["status"]["stable"]["name"] == first
    write_report(namespace, "plain", revisions={on_trial: {"server": served(100, 0)}})
    eventually(lambda: namespace.get("gmodel", "plain")["status"]["stable"]["name"], lambda n: n == on_trial, within=60)
    eventually(lambda: namespace.list("deploy"), lambda d: len(d) == 1, within=60, what="the canary is gone")
    await_ready(namespace, "plain")

    namespace.apply(canary(62))
    worse = eventually(lambda: namespace.get("gmodel", "plain")["status"]["canary"]["name"], within=90)
    write_report(namespace, "plain", revisions={worse: {"server": served(50, 30) | served(50, 20, "other")}})
    found = eventually(lambda: condition(namespace, "plain", "Degraded"), lambda c: c[0] == "True", within=60)
    assert found[1] == "CanaryErrorRate"
    assert "50 of 100 requests failed" in found[2]
    eventually(lambda: namespace.list("deploy"), lambda d: len(d) == 1, within=60)
    status = namespace.get("gmodel", "plain")["status"]
    assert (status["stable"]["name"], status["rejected"], status.get("canary")) == (on_trial, worse, None)
    environment = namespace.get("deploy", "plain-predictor")["spec"]["template"]["metadata"]["labels"]
    assert environment["governedmodels.io/revision"] == on_trial
    assert DIGEST in json.dumps(namespace.get("deploy", "plain-predictor"))

"""The chart with real Helm: refuses bad values, upgrades, leaves models alone when it goes, and grants what the
operator uses."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client, config
from operator_bed import (
    OperatorUnderTest,
    await_ready,
    claim,
    condition,
    imported,
    model,
    report_trained,
    running_operator,
    trained,
    write_report,
)

from governed_api.names import FIELD_MANAGER
from governed_api.schema import crd_documents
from governed_operator.kube.cluster import Cluster as OperatorCluster
from governed_operator.kube.cluster import WatchTimes
from governed_operator.kube.kinds import SECRET
from governed_operator.watch.reflector import SELECTOR
from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster, KubectlError
from support.consumer_manifests import consumer
from support.fixtures import OPERATOR_NAMESPACE, started_bed
from support.gitops import authored
from support.helm import Helm, HelmError
from support.places import ROOT
from support.ports import free_port
from support.programs import program
from support.progress import Say
from support.waiting import comes_to_rest, eventually

CHART = ROOT / "charts" / "governed-models"
RELEASE, NAME = "governed", "governed-governed-models"
ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{NAME}"
CRDS = tuple(document["metadata"]["name"] for document in crd_documents())


@pytest.fixture(scope="module")
def bed(tell: Say, swept: None) -> Iterator[ApiServerBed]:  # noqa: ARG001
    """A cluster of these tests' own: they take the CRDs away from under everybody."""
    with started_bed(f"chart.{os.getpid()}", tell) as own:
        yield own


@pytest.fixture
def helm(bed: ApiServerBed, tmp_path: Path) -> Helm:
    return Helm(bed.cluster.within(OPERATOR_NAMESPACE), tmp_path)


@contextmanager
def operator_of_the_chart(bed: ApiServerBed, folder: Path, name: str = "operator") -> Iterator[OperatorUnderTest]:
    """The process that the chart's Deployment would run: its environment, its service account."""
    here = bed.cluster.within(OPERATOR_NAMESPACE)
    pod = here.get("deployment", NAME)["spec"]["template"]["spec"]
    settings = {e["name"]: e["value"] for e in pod["containers"][0]["env"] if e.get("value")}
    kubeconfig = with_token(bed, here.kubectl("create", "token", pod["serviceAccountName"], "--duration=2h").strip())
    settings |= {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": OPERATOR_NAMESPACE}
    with running_operator(bed, folder, name, settings) as running:
        eventually(lambda: running.leading, within=60, what="the operator leads")
        yield running


def with_token(bed: ApiServerBed, token: str) -> Path:
    config = yaml.safe_load(bed.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = bed.folder / "kubeconfig-of-the-operator"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def fresh(bed: ApiServerBed, prefix: str) -> Iterator[Cluster]:
    namespace = bed.cluster.within(bed.cluster.create_namespace(prefix))
    try:
        yield namespace
    finally:
        bed.cluster.kubectl("delete", "namespace", namespace.namespace, "--wait=false")


# ---------------------------------------------------------------- what is refused, what is derived

REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a word for a number": (["replicas=two"], ("/replicas", "got string, want integer")),
    "too few": (["replicas=0"], ("/replicas", "got 0, want 1")),
    "no such value": (["colour=red"], ("additional properties 'colour' not allowed",)),
    "a misspelt one below": (["roles.sever=x"], ("/roles", "additional properties 'sever' not allowed")),
    "no such policy": (["image.pullPolicy=Sometimes"], ("/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'")),
    "a tag in the image's name": (["image.repository=a/b:1"], ("/image/repository", "'a/b:1' does not match pattern")),
    "an image without a name": (["roles.server="], ("/roles/server", "'' does not match pattern")),
    "a size in another unit": (["archive.size=10 GB"], ("/archive/size", "'10 GB' does not match pattern")),
    "an address without a port": (["apiServers[0]=10.0.0.1/32"], ("/apiServers/0", "does not match pattern")),
    "a Gateway without a namespace": (["gateway=edge"], ("/gateway", "'edge' does not match pattern")),
    "an interval without a unit": (["serviceMonitor.interval=30"], ("/serviceMonitor/interval",)),
    "no port of the API server": (["networkPolicy.apiServerPorts[0]=0"], ("/networkPolicy/apiServerPorts/0", "got 0")),
    "a pull secret as a word": (["imagePullSecrets[0]=mine"], ("/imagePullSecrets/0", "got string, want object")),
    "half a digest": (["roles.digests.server=sha256:abc"], ("/roles/digests/server", "does not match pattern")),
    "a namespace twice": (["watch.namespaces={a,a}"], ("/watch/namespaces", "items at 0 and 1 are equal")),
    "a foreign account without a name": (["serviceAccount.create=false"], ("serviceAccount.name: expected the name",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_values_are_refused_by_name(name: str, helm: Helm) -> None:
    values, expected = REFUSED[name]
    with pytest.raises(HelmError) as refused:
        helm("template", RELEASE, str(CHART), *(f"--set={value}" for value in values))
    for words in expected:
        assert words in str(refused.value)


def rendered(helm: Helm, *args: str) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(helm("template", RELEASE, str(CHART), *args)) if d]


EVERYTHING = (
    "--set=serviceMonitor.create=true,prometheusRule.create=true,dashboard.create=true,priorityClassName=p,image.tag=v1,gateway=edge/gw",
    "--set=apiServers[0]=10.0.0.1/32:6443,imagePullSecrets[0].name=mine,roles.pullSecrets[0]=theirs,replicas=1",
)


def test_what_is_rendered_is_right_with_any_values(helm: Helm, bed: ApiServerBed) -> None:
    bed.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}})
    eventually(lambda: helm.cluster.get("serviceaccount", "default"), within=90)
    for arguments in ((), EVERYTHING, ("--set=crds.install=false,rbac.create=false,networkPolicy.create=false",)):
        objects = [o for o in rendered(helm, *arguments) if o["kind"] not in ("ServiceMonitor", "PrometheusRule")]
        helm.cluster.apply(objects, "--dry-run=server", "--server-side", "--force-conflicts")
    environment = {e["name"]: e.get("value") for e in container_of(rendered(helm, *EVERYTHING))["env"]}
    assert environment["GOVERNED_OPERATOR_PULL_SECRETS"] == "theirs"
    assert environment["GOVERNED_OPERATOR_API_SERVERS"] == "10.0.0.1/32:6443"


def test_alerts_are_rendered_as_they_were_written(helm: Helm) -> None:
    (rule,) = [o for o in rendered(helm, *EVERYTHING) if o["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load((CHART / "alerts" / "governed-models.yaml").read_text())
    assert not [o for o in rendered(helm) if o["kind"] == "PrometheusRule"]


def container_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def test_images_are_pinned_by_digest_role_by_role(helm: Helm) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    values = f"--set=image.digest={digest},roles.digests.auditor={digest},roles.tag=v1,image.tag=v2"
    objects = rendered(helm, values)
    container = container_of(objects)
    assert container["image"] == f"governed-models/operator@{digest}", "outweighs the tag"
    images = {e["name"].rpartition("_")[2]: e["value"] for e in container["env"] if "IMAGE_" in e["name"]}
    assert images["AUDITOR"] == f"governed-models/auditor@{digest}"
    assert {images[role] for role in ("SERVER", "EXPLAINER", "ARCHIVE", "TRAINER")} == {
        f"governed-models/{role}:v1" for role in ("server", "explainer", "archive", "trainer")
    }
    (test,) = [o for o in objects if o["kind"] == "Pod"]
    assert test["spec"]["containers"][0]["image"] == container["image"]


def test_an_image_without_a_digest_is_refused_where_digests_are_required(helm: Helm) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    roles = ("server", "explainer", "explainerAlibi", "explainerCaptum", "auditor", "archive", "trainer")
    values = {"image.digest": digest, **{f"roles.digests.{role}": digest for role in roles}}

    def chosen(without: str = "") -> str:
        return ",".join(["images.requireDigests=true", *(f"{k}={v}" for k, v in values.items() if k != without)])

    container = container_of(rendered(helm, "--set", chosen()))
    images = [container["image"], *(e["value"] for e in container["env"] if "IMAGE_" in e["name"])]
    assert len(images) == 8
    assert all(image.endswith(f"@{digest}") for image in images), images
    for value in values:
        with pytest.raises(HelmError, match=f"{value}: expected a digest .* since images.requireDigests is true"):
            helm("template", RELEASE, str(CHART), "--set", chosen(without=value))


def egress_of(policy: dict[str, Any]) -> list[tuple[str, int]]:
    """(CIDR, port) of what may be reached by address."""
    return [
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
        for port in rule["ports"]
    ]


def test_derived_files_are_up_to_date_with_helm() -> None:
    command = [sys.executable, str(ROOT / "charts" / "render"), "--check", "--helm", str(program("helm"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- a release's life


def older_chart(helm: Helm, folder: Path) -> Path:
    """A previous version: another number, a CRD without spec.predictor.priorityClassName, an object that is gone by
    now."""
    copy = folder / "older"
    shutil.copytree(CHART, copy)
    chart = copy / "Chart.yaml"
    chart.write_text(chart.read_text().replace("version: 0.1.0", "version: 0.0.9", 1))
    path = copy / "crds-source" / "governedmodels.yaml"
    crd = yaml.safe_load(path.read_text())
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["predictor"]["properties"]["priorityClassName"]
    path.write_text(yaml.safe_dump(crd))
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gone-since"}}
    (copy / "templates" / "old.yaml").write_text(yaml.safe_dump(old))
    helm("package", str(copy), f"--destination={folder}")
    return folder / "governed-models-0.0.9.tgz"


OWNED = "gmodel,greport,deploy,svc,sa,role,rolebinding,netpol,pdb,cm,secret,sts"


def identities(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """(uid, generation) of the models, of all that the operator made for them, and of the CRDs."""
    found = cluster.list(OWNED) + cluster.list("crd")
    ours = [o for o in found if o["kind"] in ("GovernedModel", "CustomResourceDefinition") or _managed(o)]
    assert len(ours) > 10
    return {
        f"{o['kind']}/{o['metadata']['name']}": (o["metadata"]["uid"], o["metadata"].get("generation", 0))
        for o in ours
        if o["kind"] != "CustomResourceDefinition"
    } | {o["metadata"]["name"]: (o["metadata"]["uid"], 0) for o in ours if o["metadata"]["name"] in CRDS}


def _managed(found: dict[str, Any]) -> bool:
    return (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "governed-operator"


def test_models_outlive_an_upgrade_and_the_release_itself(bed: ApiServerBed, helm: Helm, tmp_path: Path) -> None:
    helm("install", RELEASE, str(older_chart(helm, tmp_path)), "--create-namespace", "--wait")
    later = imported("later", priorityClassName="system-cluster-critical")
    with fresh(bed, "outlive") as namespace:
        with operator_of_the_chart(bed, tmp_path):
            claim(namespace)
            namespace.apply(imported())
            await_ready(namespace, "plain")
            with pytest.raises(KubectlError, match=r'unknown field "spec\.predictor\.priorityClassName"'):
                namespace.apply(later)
            before = identities(namespace)
            comes_to_rest(lambda: namespace.get("gmodel", "plain")["metadata"]["resourceVersion"], what="the model")

            helm("upgrade", RELEASE, str(CHART), "--wait")
            namespace.apply(later, "--dry-run=server")
            assert identities(namespace) == before
            with pytest.raises(KubectlError, match="NotFound"):
                helm.cluster.get("configmap", "gone-since")
            assert [r["chart"] for r in json.loads(helm("list", "-o", "json"))] == ["governed-models-0.1.0"]

        kept = helm("uninstall", RELEASE, "--wait")
        assert all(crd in kept for crd in CRDS), "Helm says what it keeps"
        assert identities(namespace) == before
        assert not helm.cluster.list("deployment")
        assert not [r for r in bed.cluster.list("clusterrole") if r["metadata"]["name"].startswith(NAME)]
        namespace.apply(later, "--dry-run=server")

        helm("install", RELEASE, str(CHART), "--wait")
        assert identities(namespace) == before
        mark = bed.audit.mark()
        with operator_of_the_chart(bed, tmp_path, "again"):
            namespace.kubectl("delete", "service", "plain")
            eventually(lambda: namespace.get("service", "plain"), within=90, what="the operator has adopted the model")
            await_ready(namespace, "plain")
        written = {w.resource for w in bed.audit.writes(mark, user=ACCOUNT) if w.namespace == namespace.namespace}
        assert written == {"services"}, "nothing but what was taken away had to be written"
        with pytest.raises(HelmError, match="cannot be imported into the current release"):
            helm("install", "another", str(CHART))


def test_upgrade_to_the_same_changes_nothing(helm: Helm) -> None:
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait")
    kinds = "deploy,svc,sa,role,rolebinding,netpol,pdb,clusterrole,clusterrolebinding,crd"

    def versions() -> dict[str, str]:
        found = authored(helm.cluster, kinds)
        return {k: v for k, v in found.items() if NAME in k or k.partition("/")[2] in CRDS}

    before = versions()
    assert len(before) > 10
    helm("upgrade", RELEASE, str(CHART), "--wait")
    assert versions() == before


# ---------------------------------------------------------------- helm test


def helm_test(helm: Helm, operator: str) -> tuple[int, str, str]:
    """Run `helm test`; the test pod's container runs here, since no kubelet does. (helm's exit code, its output, the
    container's)"""
    process = subprocess.Popen(
        helm.command("test", RELEASE, "--timeout=180s"),
        env=helm.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        look = lambda: helm.cluster.get("pod", f"{NAME}-test")  # noqa: E731
        pod = eventually(look, lambda p: p["status"].get("phase") == "Running", within=90, what="the test pod runs")
        (container,) = pod["spec"]["containers"]
        (named,) = [e["value"] for e in container["env"] if e["name"] == "OPERATOR_URL"]
        assert named == f"http://{NAME}.{OPERATOR_NAMESPACE}.svc:8088"
        assert container["command"][:2] == ["python", "-c"]
        done = subprocess.run(
            [sys.executable, *container["command"][1:]],
            env={**os.environ, "OPERATOR_URL": operator, "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        phase = {"status": {"phase": "Failed" if done.returncode else "Succeeded"}}
        arguments = ["--subresource=status", "--type=merge", "-p", json.dumps(phase)]
        helm.cluster.kubectl("patch", "pod", f"{NAME}-test", *arguments)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output, done.stdout + done.stderr


@contextmanager
def losing_the_first() -> Iterator[str]:
    """Address of what drops its first connection, as a pod that an upgrade has ended, and answers all others."""
    lost: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not lost:
                lost.append(self.path)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"governed_operator_models 1\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
    assert lost == ["/healthz/live"]


def test_helm_test_tells_an_operator_that_works_from_one_that_does_not(
    bed: ApiServerBed, helm: Helm, tmp_path: Path
) -> None:
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait")
    with operator_of_the_chart(bed, tmp_path) as operator:
        code, output, said = helm_test(helm, f"http://127.0.0.1:{operator.port}")
    assert code == 0, output + said
    assert "Succeeded" in output
    with losing_the_first() as address:
        code, output, said = helm_test(helm, address)
    assert code == 0, output + said
    nobody = f"http://127.0.0.1:{free_port()}"
    code, output, said = helm_test(helm, nobody)
    assert code != 0, output
    assert f"{nobody}/healthz/live: expected an answer, found" in said


# ---------------------------------------------------------------- rights

Right = tuple[str, str, str]
"""(API group, resource with subresource, verb)"""

NEIGHBOURS = (
    ("keda.sh", "v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
)


def neighbour(group: str, version: str, kind: str) -> dict[str, Any]:
    """A CRD of that name that takes anything."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    annotations = {"api-approved.kubernetes.io": "unapproved, for tests"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [served],
        },
    }


UNSEEN: dict[Right, str] = {
    ("governedmodels.io", "governedmodels/finalizers", "update"): "asked for by OwnerReferencesPermissionEnforcement",
    ("governedmodels.io", "governancereports", "get"): "granted to pods, so it must be held",
    ("governedmodels.io", "governancereports/status", "get"): "granted to pods, so it must be held",
    ("", "configmaps", "get"): "looks at one that was there already when it was to be made",
    ("batch", "jobs", "get"): "looks at one that was there already when it was to be made",
}
"""What the ClusterRole grants and an ordinary day doesn't show."""


def granted(cluster: Cluster) -> set[Right]:
    rules = cluster.get("clusterrole", NAME)["rules"] + cluster.get("role", f"{NAME}-leader")["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def an_ordinary_day(namespace: Cluster) -> None:
    """Every kind is made, changed and taken away: training, serving, canary, scaling to zero, suspension, deletion."""
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 7}
    encrypted = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "sealed"}}
    encrypted |= {"provisioner": "kubernetes.io/host-path", "parameters": {"encrypted": "true"}}
    namespace.apply([urgent, encrypted])
    namespace.kubectl("create", "secret", "generic", "mine", "--from-literal=kek=" + "k" * 32)
    claim(namespace)

    rich = trained()
    rich["spec"]["predictor"]["priorityClassName"] = "urgent"
    namespace.apply(rich)
    eventually(lambda: namespace.list("job"), within=90, what="the trainer Job")
    report_trained(namespace, "rich")
    await_ready(namespace, "rich")

    sealed = imported("sealed", scaleMetric="concurrency", minReplicas=1, maxReplicas=3)
    sealed["spec"]["governance"] = {"encryption": {"mode": "storageClass", "storageClassName": "sealed"}}
    keyed = imported("keyed")
    keyed["spec"]["governance"] = {"encryption": {"keyRef": {"secretName": "mine"}}}
    namespace.apply([sealed, keyed, canary(60)])
    for name in ("sealed", "keyed", "plain"):
        await_ready(namespace, name)

    namespace.apply(canary(61))
    trial = eventually(lambda: namespace.get("gmodel", "plain")["status"]["canary"]["name"], within=90)
    eventually(lambda: namespace.get("deploy", "plain-canary"), within=90)
    bad = {"server": {"p": {"requests": 100, "errors": 50}}}
    write_report(namespace, "plain", revisions={trial: bad})
    eventually(lambda: condition(namespace, "plain", "Degraded"), lambda c: c[1] == "CanaryErrorRate", within=60)

    namespace.apply(consumer(models={"names": ["plain"]}))
    eventually(lambda: namespace.get("gconsumer", "mobile-app")["status"], lambda s: "conditions" in s, within=60)

    plain = imported("rich")  # no longer trained: Job and data volume go
    namespace.apply(plain)
    await_ready(namespace, "rich")
    namespace.apply([model(n, {**m["spec"], "suspend": True}) for n, m in (("rich", rich), ("sealed", sealed))])
    for name in ("rich", "sealed"):
        eventually(lambda n=name: condition(namespace, n), lambda c: c[1] == "Suspended", within=60)  # type: ignore[misc]
    eventually(lambda: namespace.list("deploy,hpa,scaledobject", "-l", "governedmodels.io/model in (rich, sealed)"),
               lambda left: not left, within=60, what="nothing runs")  # fmt: skip
    namespace.kubectl("delete", "gmodel", "--all")
    eventually(lambda: namespace.list("priorityclass", "-l", f"governedmodels.io/namespace={namespace.namespace}"),
               lambda left: not left, within=60, what="the model's priority class is gone")  # fmt: skip


def canary(timeout: int) -> dict[str, Any]:
    out = imported(timeout=timeout)
    out["spec"]["lifecycle"] = {"rollout": {"strategy": "Canary", "steps": [20], "interval": "1s"}}
    return out


def test_the_operator_is_granted_what_it_uses_and_nothing_else(bed: ApiServerBed, helm: Helm, tmp_path: Path) -> None:
    bed.cluster.apply([neighbour(*n) for n in NEIGHBOURS])
    values = "gateway=edge/gw,prometheusUrl=http://prometheus.monitoring.svc:9090"
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait", f"--set={values}")
    helm.cluster.kubectl("delete", "lease", "governed-operator", "--ignore-not-found")
    mark = bed.audit.mark()
    with fresh(bed, "rights") as namespace, operator_of_the_chart(bed, tmp_path) as operator:
        an_ordinary_day(namespace)
        operator.stop()
        log = operator.log.read_text()
    bed.cluster.kubectl("delete", "crd", *(f"{k.lower()}s.{g}" for g, _, k in NEIGHBOURS))

    asked = bed.audit.requests(ACCOUNT, mark)
    assert [r for r in asked if r.code == 403] == []
    assert "Forbidden" not in log
    used = {(r.group, r.resource, r.verb) for r in asked}
    # an apply that makes an object is a patch in the log, and needs the right to create as well
    used |= {(r.group, r.resource, "create") for r in asked if (r.verb, r.code) == ("patch", 201)}
    held = granted(helm.cluster)
    assert not {right for right in held if "*" in right}
    assert used - held == set(), "the audit log shows what RBAC did not grant"
    assert held - used == set(UNSEEN), "neither more nor less than what has a reason"


def test_a_right_that_is_missing_shows(bed: ApiServerBed, helm: Helm, tmp_path: Path) -> None:
    """The proof above would notice: without one right the audit log holds its refusal."""
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait")
    role = helm.cluster.get("clusterrole", NAME)
    for rule in role["rules"]:
        rule["verbs"] = [v for v in rule["verbs"] if (v, rule["resources"]) != ("create", ["secrets"])]
    helm.cluster.kubectl("replace", "-f", "-", stdin=json.dumps(role))
    mark = bed.audit.mark()
    with fresh(bed, "missing") as namespace, operator_of_the_chart(bed, tmp_path):
        namespace.apply(imported())
        refused = lambda: [r for r in bed.audit.requests(ACCOUNT, mark) if r.code == 403]  # noqa: E731
        found = eventually(refused, within=90, what="a refusal in the audit log")
    assert {(r.resource, r.verb) for r in found} == {("secrets", "create")}
    helm("upgrade", RELEASE, str(CHART), "--force-conflicts")


# ---------------------------------------------------------------- named namespaces


@contextmanager
def installed_for(bed: ApiServerBed, helm: Helm, *namespaces: Cluster) -> Iterator[None]:
    """The chart for these namespaces alone, on a bed where the operator was never granted more."""
    helm("uninstall", RELEASE, "--wait", "--ignore-not-found")
    names = ",".join(namespace.namespace for namespace in namespaces)
    helm("install", RELEASE, str(CHART), "--create-namespace", "--wait", f"--set=watch.namespaces={{{names}}}")
    helm.cluster.kubectl("delete", "lease", "governed-operator", "--ignore-not-found")
    assert not [r for r in bed.cluster.list("clusterrole,clusterrolebinding") if r["metadata"]["name"] == NAME]
    try:
        yield
    finally:
        helm("uninstall", RELEASE, "--wait")


def test_roles_in_named_namespaces_are_all_that_the_operator_needs(
    bed: ApiServerBed, helm: Helm, tmp_path: Path
) -> None:
    with fresh(bed, "ours") as ours, fresh(bed, "also") as also, fresh(bed, "theirs") as theirs:
        for namespace in (ours, also, theirs):
            claim(namespace)
        mark = bed.audit.mark()
        with installed_for(bed, helm, ours, also), operator_of_the_chart(bed, tmp_path) as operator:
            theirs.apply(imported())
            ours.kubectl("create", "secret", "generic", "mine", "--from-literal=kek=" + "k" * 32)
            keyed = imported("keyed")
            keyed["spec"]["governance"] = {"encryption": {"keyRef": {"secretName": "mine"}}}
            urgent = imported("urgent", priorityClassName="system-cluster-critical")
            rich = trained()
            del rich["spec"]["quota"]["compute"]
            ours.apply([rich, keyed, urgent])
            also.apply(imported())
            eventually(lambda: ours.list("job"), within=60, what="the trainer Job")
            report_trained(ours, "rich")
            for namespace, name in ((ours, "rich"), (ours, "keyed"), (ours, "urgent"), (also, "plain")):
                await_ready(namespace, name)
            ours.kubectl("delete", "service", "urgent")
            eventually(lambda: ours.get("service", "urgent"), within=30, what="what was taken away comes back")
            ours.kubectl("delete", "gmodel", "urgent")
            eventually(lambda: ours.list("deploy", "-l", "governedmodels.io/model=urgent"), lambda left: not left,
                       within=60, what="a deleted model's workload is gone")  # fmt: skip
            asked = bed.audit.requests(ACCOUNT, mark)
            assert [r for r in asked if r.code == 403] == []
            mine = [(r.verb, r.name) for r in asked if r.resource == "secrets" and r.verb == "get"]
            assert {name for _, name in mine} <= {"mine", "governed-archive-keys"}, "what must be opened has a name"
            for place in (theirs.namespace, "kube-system", OPERATOR_NAMESPACE):
                assert not [verb for verb in SECRET_VERBS if may(bed.cluster, verb, place)], place
            held = {verb for verb in SECRET_VERBS if may(bed.cluster, verb, ours.namespace)}
            assert held == {"get", "list", "watch", "create"}
            everywhere = {r.resource for r in asked if r.resource and not r.namespace}
            assert everywhere == {"clustergovernancepolicies"}, "what every model must meet is in no namespace"
            reached = {r.namespace for r in asked if r.resource} - {""}
            assert reached <= {ours.namespace, also.namespace, OPERATOR_NAMESPACE}
            status = theirs.get("gmodel", "plain")["status"]
            assert (status["conditions"], status["observedGeneration"]) == ([], -1), "nobody looks after it"
            log = operator.log.read_text()
            assert "Forbidden" not in log
            assert "not found (404)" not in log, "a binding waits for its Role"


SECRET_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


def may(cluster: Cluster, verb: str, namespace: str) -> bool:
    """Whether the operator's account may do this with Secrets."""
    asked = {"user": ACCOUNT, "resourceAttributes": {"verb": verb, "resource": "secrets", "namespace": namespace}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": asked}
    answer = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


async def connected(bed: ApiServerBed, token: str) -> OperatorCluster:
    """The operator's own client, as its account."""
    settings = client.Configuration.get_default_copy()
    await config.load_kube_config(config_file=str(with_token(bed, token)), client_configuration=settings)
    return OperatorCluster(client.ApiClient(settings))


async def test_no_key_material_is_read_that_is_not_asked_for_by_name(bed: ApiServerBed, helm: Helm) -> None:
    """Lists, watches and answers to what is made have metadata alone: the operator never holds a model's key."""
    with fresh(bed, "ours") as ours, installed_for(bed, helm, ours):
        token = helm.cluster.within(OPERATOR_NAMESPACE).kubectl("create", "token", NAME, "--duration=1h").strip()
        place, operator = ours.namespace, await connected(bed, token)
        label = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": place, "labels": label}}
        answer = await operator.create(SECRET, made | {"data": {"kek": "c2VjcmV0"}})
        assert answer is not None
        listed = [item async for items, _ in operator.pages(SECRET, SELECTOR, namespace=place) for item in items]
        head = await operator.head(SECRET, place, "s")
        watched = operator.watch(SECRET, SELECTOR, "0", WatchTimes(5, 5.0), namespace=place)
        first = await anext(watched)
        await watched.aclose()
        await operator.close()
        for seen in (answer, *listed, json.dumps(head).encode(), first):
            assert b'"s"' in seen
            assert b"c2VjcmV0" not in seen, seen
            assert b"f:kek" in seen, "which keys there are is told by managedFields"
        assert len(listed) == 1


def test_what_is_in_no_namespace_is_refused_with_the_reason(bed: ApiServerBed, helm: Helm, tmp_path: Path) -> None:
    with fresh(bed, "ours") as ours, installed_for(bed, helm, ours), operator_of_the_chart(bed, tmp_path):
        claim(ours)
        limited = imported("limited")
        limited["spec"]["quota"] = {"compute": {"cpu": "2", "memory": "4Gi"}}
        sealed = imported("sealed")
        sealed["spec"]["governance"] = {"encryption": {"mode": "storageClass", "storageClassName": "sealed"}}
        ours.apply([limited, sealed])
        for name, kind, words in (
            ("limited", "QuotaEnforced", "needs a PriorityClass"),
            ("sealed", "EncryptionReady", "may not look whether StorageClass sealed declares encryption"),
        ):
            told = eventually(lambda n=name, k=kind: condition(ours, n, k), within=60)  # type: ignore[misc]
            assert told[0] == "False"
            message = next(c["message"] for c in ours.get("gmodel", name)["status"]["conditions"] if c["type"] == kind)
            assert words in message
        assert ours.list("deploy") == []


def test_a_namespace_that_may_not_be_read_any_more_stops_no_other(
    bed: ApiServerBed, helm: Helm, tmp_path: Path
) -> None:
    """Its Role went, as with a namespace that is deleted."""
    with fresh(bed, "stays") as stays, fresh(bed, "goes") as goes, installed_for(bed, helm, goes, stays):
        claim(stays)
        goes.kubectl("delete", "rolebinding", NAME)
        with operator_of_the_chart(bed, tmp_path) as operator:
            stays.apply(imported())
            await_ready(stays, "plain")
            assert f"in namespace {goes.namespace} broke" in operator.log.read_text()


def endpoints_of_the_api_server(*addresses: str) -> dict[str, Any]:
    metadata = {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    }


def test_the_api_servers_addresses_are_found_at_install(bed: ApiServerBed, helm: Helm) -> None:
    default = bed.cluster.within("default")
    behind = ("172.18.0.3", "172.18.0.2")
    default.apply(endpoints_of_the_api_server(*behind))  # a server on loopback publishes none
    clustered = (default.get("service", "kubernetes")["spec"]["clusterIP"], 443)
    found = [*((address, 6443) for address in behind), clustered]
    want = sorted((f"{address}/32", port) for address, port in found)
    find = "--set=networkPolicy.findApiServers=true"
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait", find)
    assert sorted(egress_of(helm.cluster.get("netpol", NAME))) == want
    container = helm.cluster.get("deployment", NAME)["spec"]["template"]["spec"]["containers"][0]
    (told,) = [e["value"] for e in container["env"] if e["name"] == "GOVERNED_OPERATOR_API_SERVERS"]
    assert sorted(told.split(",")) == sorted(f"{cidr}:{port}" for cidr, port in want), (
        "and the models' policies as well"
    )

    (offline,) = [o for o in rendered(helm, find) if o["kind"] == "NetworkPolicy"]
    assert egress_of(offline) == [], "helm template asks nobody"
    assert {p["port"] for rule in offline["spec"]["egress"] if "to" not in rule for p in rule["ports"]} == {
        53,
        443,
        6443,
    }
    helm("upgrade", RELEASE, str(CHART), find, "--set=apiServers={10.9.8.7/32:7443}")
    assert egress_of(helm.cluster.get("netpol", NAME)) == [("10.9.8.7/32", 7443)], "what is set outweighs"
    helm("upgrade", RELEASE, str(CHART), "--reset-values")
    assert egress_of(helm.cluster.get("netpol", NAME)) == []
    default.kubectl("delete", "endpointslice", "kubernetes")
    helm("uninstall", RELEASE, "--wait")

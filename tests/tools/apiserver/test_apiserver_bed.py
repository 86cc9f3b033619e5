"""The API-server bed itself: each of its parts does its work, and the tools that observe and break it tell the
truth."""

import json
import subprocess
import sys
import urllib.request
from datetime import timedelta

import pytest

from support import pod_network
from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.cluster_access import Cluster, KubectlError
from support.host import is_root
from support.leftovers import Leftovers
from support.places import ROOT
from support.processes import Process
from support.programs import kubernetes_version
from support.waiting import consistently, eventually

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: example.invalid/web:1
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}}


def test_server_runs_the_pinned_version(api_bed: ApiServerBed) -> None:
    assert f'"gitVersion": "{kubernetes_version()}"' in api_bed.cluster.raw("/version")


def test_deployment_becomes_ready_on_kwok_nodes(namespace: Cluster) -> None:
    namespace.apply(DEPLOYMENT)
    namespace.rollout("deployment/web")
    pods = namespace.list("pods", "-l", "app=web")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 3, "the scheduler spreads over the three nodes"


def test_claim_is_bound_by_the_default_storage_class(namespace: Cluster) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    namespace.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    eventually(lambda: namespace.get("pvc", "data")["status"].get("phase") == "Bound", within=90)


def test_restricted_pod_security_is_enforced(namespace: Cluster) -> None:
    pod = {"containers": [{"name": "a", "image": "example.invalid/a", "securityContext": {"privileged": True}}]}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod})


def test_rbac_refuses_a_stranger_and_obeys_a_binding(api_bed: ApiServerBed, namespace: Cluster) -> None:
    stranger = Cluster(api_bed.kubeconfig_for("stranger"), namespace.namespace)
    with pytest.raises(KubectlError, match='User "stranger" cannot'):
        stranger.apply(CONFIG_MAP)
    namespace.kubectl("create", "role", "writer", "--verb=create,get,patch", "--resource=configmaps")
    namespace.kubectl("create", "rolebinding", "writer", "--role=writer", "--user=stranger")
    eventually(lambda: stranger.apply(CONFIG_MAP), within=90)


def test_audit_log_counts_writes_per_user(api_bed: ApiServerBed, namespace: Cluster, audit: AuditLog) -> None:
    alice = Cluster(api_bed.kubeconfig_for("alice", ["system:masters"]), namespace.namespace)
    mark = audit.mark()
    alice.apply(CONFIG_MAP)
    alice.apply({**CONFIG_MAP, "data": {"a": "2"}})
    alice.get("configmap", "one")
    alice.apply({**CONFIG_MAP, "data": {"a": "3"}}, "--dry-run=server")
    assert [(w.verb, w.resource, w.name) for w in audit.writes(mark, user="alice")] == [
        ("create", "configmaps", "one"),
        ("patch", "configmaps", "one"),
    ]
    assert audit.writes_per_user(mark)["alice"] == 2
    consistently(lambda: audit.writes_per_user(audit.mark())["alice"], lambda count: count == 0, during=1)


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver"])
def test_data_survives_a_killed(name: str, api_bed: ApiServerBed, namespace: Cluster) -> None:
    namespace.apply(CONFIG_MAP)
    before = api_bed.process(name).pid
    api_bed.restart(name)
    assert api_bed.process(name).pid != before
    assert eventually(lambda: namespace.get("configmap", "one"))["data"] == {"a": "1"}


def test_paused_api_server_answers_nothing_then_everything(api_bed: ApiServerBed, namespace: Cluster) -> None:
    with api_bed.paused("kube-apiserver"), pytest.raises(KubectlError, match=r"no answer|timeout|Timeout|deadline"):
        namespace.kubectl("get", "configmaps", "--request-timeout=2s", timeout=4)
    eventually(lambda: namespace.kubectl("get", "configmaps"), within=90)


def test_expired_client_certificate_is_refused(api_bed: ApiServerBed) -> None:
    late = Cluster(api_bed.kubeconfig_for("late", ["system:masters"], lifetime=timedelta(minutes=-1)))
    with pytest.raises(KubectlError, match=r"Unauthorized|logged in|provide credentials"):
        late.kubectl("get", "namespaces")


def test_expired_serving_certificate_is_refused_by_clients(api_bed: ApiServerBed) -> None:
    with api_bed.expired_serving_certificate(), pytest.raises(AssertionError, match="certificate has expired"):
        eventually(lambda: api_bed.cluster.raw("/readyz"), within=3)
    assert api_bed.cluster.raw("/readyz") == "ok"


def test_command_brings_a_bed_up_and_leaves_nothing_behind() -> None:
    bed = ApiServerBed.named("leaves-nothing")
    before = Leftovers.now(bed.folder)
    options = ["--bed", "apiserver", "--name", "leaves-nothing"]

    def cluster_command(*args: str) -> str:
        command = [sys.executable, "-m", "support.command", *args, *options]
        result = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True, timeout=120)
        return result.stdout

    try:
        assert cluster_command("up", "--nodes=0").startswith("export KUBECONFIG=")
        assert "up at https://127.0.0.1:" in cluster_command("status")
        assert Leftovers.now(bed.folder).processes, "the snapshot must see a running bed, or it proves nothing"
        started = [Process.from_state(p.state()) for p in ApiServerBed.named("leaves-nothing").processes]
        assert all(process.alive for process in started)
    finally:
        cluster_command("down")
    assert not any(process.alive for process in started)
    before.assert_same_now()


@pytest.mark.skipif(not is_root(), reason="only root may add a local route")
def test_every_address_of_a_pod_network_says_which_it_is_until_it_is_taken_away() -> None:
    network = pod_network.own_network()
    routes = ["ip", "route", "show", "table", "local", str(network)]
    with pod_network.answering(str(network), 8080):
        for address in (network[1], network[-2]):
            with urllib.request.urlopen(f"http://{address}:8080/a/b?c", timeout=5) as answer:
                assert json.load(answer) == {"address": str(address), "path": "/a/b?c"}
        assert subprocess.run(routes, capture_output=True, text=True, check=True).stdout
    assert not subprocess.run(routes, capture_output=True, text=True, check=True).stdout

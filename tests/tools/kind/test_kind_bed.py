"""The kind bed itself: what a user's cluster does, it does. Each test fails when its part of the bed is missing."""

import base64
import json
import re
import urllib.request

from support import workloads
from support.cluster_access import Cluster
from support.kind_bed import KindBed
from support.programs import kubernetes_version
from support.waiting import eventually


def test_nodes_run_the_pinned_version(kind_bed: KindBed) -> None:
    versions = [node["status"]["nodeInfo"]["kubeletVersion"] for node in kind_bed.cluster.list("nodes")]
    assert versions == [kubernetes_version()] * 3


def test_service_answers_through_dns_and_cluster_ip_across_nodes(kind_namespace: Cluster) -> None:
    kind_namespace.apply([*workloads.web(replicas=2), workloads.pod("client")])
    kind_namespace.rollout("deployment/web")
    kind_namespace.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s", timeout=130)
    servers = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in kind_namespace.list("pods", "-l", "app=web")}
    assert len(set(servers.values())) == 2, "the two servers must be on two nodes, or nothing crosses between nodes"
    address = kind_namespace.get("service", "web")["spec"]["clusterIP"]
    for url in ("http://web/", f"http://web.{kind_namespace.namespace}.svc.cluster.local/", f"http://{address}/"):
        seen: set[str | None] = set()

        def ask(url: str = url, seen: set[str | None] = seen) -> set[str | None]:
            seen.add(workloads.fetch(kind_namespace, "client", url))
            return seen - {None}

        eventually(
            ask, lambda found: found == set(servers), within=60, what=f"an answer from both servers through {url}"
        )


def test_claim_keeps_its_data_for_the_next_pod(kind_namespace: Cluster) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]

    def once(name: str, script: str) -> None:
        spec = workloads.pod_spec(workloads.container(script, **mount), volumes=volumes, restartPolicy="Never")
        kind_namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        phase = "jsonpath={.status.phase}=Succeeded"
        kind_namespace.kubectl("wait", f"--for={phase}", f"pod/{name}", "--timeout=90s", timeout=100)

    kind_namespace.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}
    )
    once("writer", "echo kept > /data/file")
    kind_namespace.kubectl("delete", "pod", "writer")
    once("reader", "cat /data/file")
    assert kind_namespace.kubectl("logs", "reader") == "kept\n"


def test_job_completes_and_failed_job_says_so(kind_namespace: Cluster) -> None:
    for name, script in (("good", "exit 0"), ("bad", "exit 3")):
        template = {"spec": workloads.pod_spec(workloads.container(script), restartPolicy="Never")}
        spec = {"backoffLimit": 0, "template": template}
        kind_namespace.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
    kind_namespace.kubectl("wait", "--for=condition=Complete", "job/good", "--timeout=120s", timeout=130)
    kind_namespace.kubectl("wait", "--for=condition=Failed", "job/bad", "--timeout=120s", timeout=130)


def test_logs_exec_and_port_forward(kind_namespace: Cluster) -> None:
    kind_namespace.apply(workloads.web())
    kind_namespace.rollout("deployment/web")
    name = kind_namespace.execute("deployment/web", "hostname").strip()
    with kind_namespace.port_forward("service/web", 80) as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode().strip() == name
    eventually(lambda: "response:200" in kind_namespace.kubectl("logs", name), within=90, what="the request in the log")


def test_node_port_answers_on_loopback(kind_bed: KindBed, kind_namespace: Cluster) -> None:
    kind_namespace.apply(workloads.web())
    patch = {"spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}]}}
    kind_namespace.kubectl("patch", "service", "web", "--patch", json.dumps(patch))
    kind_namespace.rollout("deployment/web")
    url = f"http://127.0.0.1:{kind_bed.host_port(30080)}/"
    answer = eventually(lambda: urllib.request.urlopen(url, timeout=3).read().decode(), within=90)
    assert answer.startswith("web-")


def test_secrets_are_ciphertext_in_etcd(kind_bed: KindBed, kind_namespace: Cluster) -> None:
    kind_namespace.kubectl("create", "secret", "generic", "hidden", "--from-literal=word=plaintextmarker")
    kind_namespace.kubectl("create", "configmap", "open", "--from-literal=word=plaintextmarker")
    stored = {kind: _etcd_value(kind_bed, kind, kind_namespace.namespace, name)
              for kind, name in (("secrets", "hidden"), ("configmaps", "open"))}  # fmt: skip
    assert stored["secrets"].startswith(b"k8s:enc:secretbox:v1:")
    assert b"plaintextmarker" not in stored["secrets"]
    assert b"plaintextmarker" in stored["configmaps"], "the reader must find plaintext where there is some"


def _etcd_value(bed: KindBed, resource: str, namespace: str, name: str) -> bytes:
    """A raw value, read past the API server through etcd's own JSON gateway."""
    key = base64.b64encode(f"/registry/{resource}/{namespace}/{name}".encode()).decode()
    pki = "/etc/kubernetes/pki"
    identity = ["--cacert", f"{pki}/etcd/ca.crt", "--cert", f"{pki}/apiserver-etcd-client.crt"]
    identity += ["--key", f"{pki}/apiserver-etcd-client.key", "--data", json.dumps({"key": key})]
    answer = json.loads(bed.on_node(bed.control_plane, "curl", "-sS", *identity, "https://127.0.0.1:2379/v3/kv/range"))
    return base64.b64decode(answer["kvs"][0]["value"])


def test_audit_log_counts_writes(kind_bed: KindBed, kind_namespace: Cluster) -> None:
    mark = kind_bed.audit.mark()
    kind_namespace.kubectl("create", "configmap", "counted")
    ours = kind_bed.audit.writes(mark, user="kubernetes-admin")  # the control plane furnishes a new namespace meanwhile
    writes = [w for w in ours if w.namespace == kind_namespace.namespace]
    assert [(w.verb, w.resource, w.name) for w in writes] == [("create", "configmaps", "counted")]


def test_dump_holds_pods_logs_and_events(kind_namespace: Cluster) -> None:
    kind_namespace.apply(workloads.pod("talks", "echo said aloud; sleep 3600"))
    kind_namespace.kubectl("wait", "--for=condition=Ready", "pod/talks", "--timeout=120s", timeout=130)
    dump = eventually(kind_namespace.dump, lambda text: "said aloud" in text, within=90)
    assert re.search(r"Scheduled.*talks|talks.*Scheduled", dump), "events are part of it"
    assert "Node:             " in dump, "so is the description"

"""Every fault tool of the kind bed breaks what it names, and the cluster mends as it should."""

import pytest

from support import workloads
from support.cluster_access import Cluster, KubectlError
from support.faults import Faults
from support.kind_bed import KindBed
from support.waiting import eventually


def _ready(cluster: Cluster, kind: str, name: str) -> bool:
    conditions = cluster.get(kind, name)["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _await_pod(cluster: Cluster, *names: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=90s", timeout=100)


@pytest.fixture
def server(kind_namespace: Cluster) -> str:
    """The name of a running web server's pod behind the Service `web`; `client` stands beside it."""
    kind_namespace.apply([*workloads.web(), workloads.pod("client")])
    kind_namespace.rollout("deployment/web")
    _await_pod(kind_namespace, "client")
    name: str = kind_namespace.list("pods", "-l", "app=web")[0]["metadata"]["name"]
    return name


def _asks(cluster: Cluster) -> bool:
    return (workloads.fetch(cluster, "client", "http://web/") or "").startswith("web-")


def test_killed_container_is_started_again(faults: Faults, kind_namespace: Cluster, server: str) -> None:
    faults.kill_container(server, "main")
    status = eventually(
        lambda: kind_namespace.get("pod", server)["status"]["containerStatuses"][0],
        lambda s: s["restartCount"] == 1 and s["ready"],
        within=60,
    )
    assert status["lastState"]["terminated"]["exitCode"] == 137


def test_paused_process_is_silent_and_comes_back(faults: Faults, kind_namespace: Cluster, server: str) -> None:
    eventually(lambda: _asks(kind_namespace), within=90)
    with faults.paused_process(server, "main"):
        eventually(lambda: not _ready(kind_namespace, "pod", server), within=60, what="the failing probe")
        assert not _asks(kind_namespace)
    eventually(lambda: _asks(kind_namespace), within=60)
    assert kind_namespace.get("pod", server)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_cut_network_is_mended(faults: Faults, kind_namespace: Cluster, server: str) -> None:
    eventually(lambda: _asks(kind_namespace), within=90)
    with faults.cut_network(server):
        assert not _asks(kind_namespace)
        eventually(lambda: not _ready(kind_namespace, "pod", server), within=60, what="the failing probe")
    eventually(lambda: _asks(kind_namespace), within=60)


def test_killed_kubelet_and_containerd_leave_containers_alone(
    faults: Faults, kind_bed: KindBed, kind_namespace: Cluster, server: str
) -> None:
    node = kind_namespace.get("pod", server)["spec"]["nodeName"]
    eventually(lambda: _asks(kind_namespace), within=90)
    faults.kill_kubelet(node)
    faults.kill_containerd(node)
    eventually(lambda: _asks(kind_namespace), within=90)
    eventually(
        lambda: kind_namespace.execute(server, "hostname").strip() == server, within=60, what="exec through both"
    )
    # A kubelet that comes back before its containerd reports the node unready until its next look.
    eventually(lambda: _ready(kind_bed.cluster, "node", node), within=120, what="the node to be ready again")
    assert kind_namespace.get("pod", server)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_full_volume_refuses_writes_until_emptied(faults: Faults, kind_bed: KindBed, kind_namespace: Cluster) -> None:
    node = next(name for name in kind_bed.nodes() if name != kind_bed.control_plane)
    faults.bounded_volume("small", 4, node)
    try:
        main = workloads.container(workloads.IDLE, volumeMounts=[{"name": "data", "mountPath": "/data"}])
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "small"}}]
        spec = workloads.pod_spec(main, volumes=volumes)
        kind_namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": spec})
        _await_pod(kind_namespace, "writer")
        kind_namespace.execute("writer", "sh", "-c", "echo before > /data/file")
        with faults.filled_volume("small", node), pytest.raises(KubectlError, match="No space left on device"):
            kind_namespace.execute("writer", "dd", "if=/dev/zero", "of=/data/more", "bs=8192", "count=4")
        kind_namespace.execute("writer", "sh", "-c", "echo after >> /data/file")
        assert kind_namespace.execute("writer", "cat", "/data/file") == "before\nafter\n"
        kind_namespace.kubectl("delete", "pod", "writer")
    finally:
        faults.drop_volume("small", node)


def test_traffic_survives_restarts_of_etcd_and_the_api_server(
    faults: Faults, kind_namespace: Cluster, server: str
) -> None:
    faults.restart_etcd()
    faults.restart_api_server()
    assert eventually(lambda: kind_namespace.get("pod", server)["metadata"]["name"], within=60) == server
    eventually(lambda: _asks(kind_namespace), within=60)


def test_expired_certificate_locks_clients_out_until_renewed(faults: Faults, kind_namespace: Cluster) -> None:
    with faults.expired_serving_certificate():

        def refused() -> str:
            try:
                return kind_namespace.raw("/version")
            except KubectlError as error:
                return str(error)

        eventually(refused, lambda text: "certificate has expired" in text, within=90, every=1)
    eventually(lambda: kind_namespace.raw("/readyz") == "ok", within=60)

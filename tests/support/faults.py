"""What happens to clusters, on purpose: each tool breaks one thing on the kind bed and says how it mends.

The API-server bed has its own (`ApiServerBed.restart`, `.paused`, `.expired_serving_certificate`).
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath

from support.certificates import expired_copy
from support.cluster_access import Cluster, Object
from support.kind_bed import KindBed
from support.waiting import comes_to_rest, eventually

PKI = PurePosixPath("/etc/kubernetes/pki")
UNFIT = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
LARGEST_FILL = 1 << 30  # bytes: only volumes made to be filled are that small


@dataclass(frozen=True)
class Faults:
    """Fault tools of one kind bed. Pods are named within `cluster`'s namespace."""

    bed: KindBed
    cluster: Cluster
    disturbed: list[str] = field(default_factory=list)

    # ------------------------------------------------------------ containers

    def kill_container(self, pod: str, container: str) -> None:
        """SIGKILL the container's first process; the kubelet starts it again (restartCount grows)."""
        node, identity = self._container(pod, container)
        self.bed.on_node(node, "kill", "-KILL", str(self._pid(node, identity)))

    @contextmanager
    def paused_process(self, pod: str, container: str) -> Iterator[None]:
        """SIGSTOP the container's first process for the length of a with block: alive, connected, silent."""
        node, identity = self._container(pod, container)
        pid = str(self._pid(node, identity))
        self.bed.on_node(node, "kill", "-STOP", pid)
        try:
            yield
        finally:
            self.bed.on_node(
                node, "sh", "-c", f"kill -CONT {pid} 2>/dev/null || true"
            )  # the kubelet may have replaced it

    @contextmanager
    def cut_network(self, pod: str) -> Iterator[None]:
        """Drop every packet from and to a pod for the length of a with block, the kubelet's probes included."""
        target = self.cluster.get("pod", pod)
        node, address = target["spec"]["nodeName"], target["status"]["podIP"]
        table = f"cut_{target['metadata']['uid'].replace('-', '')}"
        hooks = "\n".join(
            f"chain {hook} "
            f"{{ type filter hook {hook} priority -300; ip saddr {address} drop; ip daddr {address} drop; }}"
            for hook in ("input", "forward", "output")
        )
        self.bed.on_node(node, "nft", "-f", "-", stdin=f"table ip {table} {{\n{hooks}\n}}\n")
        try:
            yield
        finally:
            self.bed.on_node(node, "nft", "delete", "table", "ip", table)

    # ----------------------------------------------------------------- nodes

    def kill_kubelet(self, node: str) -> None:
        """SIGKILL the kubelet; systemd starts it again, containers go on."""
        self._kill_unit(node, "kubelet")

    def kill_containerd(self, node: str) -> None:
        """SIGKILL containerd; systemd starts it again, the shims keep the containers."""
        self._kill_unit(node, "containerd")

    @contextmanager
    def stopped_kubelet(self, node: str) -> Iterator[None]:
        """No kubelet on a node for the length of a with block: after 40 s the node turns NotReady."""
        self.bed.on_node(node, "systemctl", "stop", "kubelet")
        try:
            yield
        finally:
            self.bed.on_node(node, "systemctl", "start", "kubelet")
            self.disturbed.append(node)

    # --------------------------------------------------------- control plane

    def restart_etcd(self) -> None:
        """SIGKILL etcd; the kubelet starts it again. Returns when the API server answers again."""
        self._restart_static("etcd")

    def restart_api_server(self) -> None:
        """SIGKILL kube-apiserver; the kubelet starts it again. Returns when it is ready."""
        self._restart_static("kube-apiserver")

    @contextmanager
    def expired_serving_certificate(self) -> Iterator[None]:
        """The API server's certificate has run out for the length of a with block; it rereads the file by itself."""
        good, ca, key = (self._read(PKI / name) for name in ("apiserver.crt", "ca.crt", "ca.key"))
        self._write_certificate(expired_copy(good, ca, key).decode())
        self._kill_static("kube-apiserver")
        try:
            yield
        finally:
            self._write_certificate(good.decode())
            self.restart_api_server()

    def await_nodes(self) -> None:
        """Wait until pods may go to every node again; at once where nothing disturbed a node since the last call.

        A kubelet that missed its API server for 40 s finds its node tainted after everything answers: the node
        controller acts on leases it has yet to see renewed. So leases newer than now come first, then no taint for
        longer than the controller's period of 5 s.
        """
        if not self.disturbed:
            return
        now = datetime.now(UTC)
        leases = self.cluster.within("kube-node-lease")

        def stale() -> list[str]:
            return [x["metadata"]["name"] for x in leases.list("leases") if _time(x["spec"]["renewTime"]) <= now]

        def tainted() -> list[str]:
            nodes = self.cluster.list("nodes")
            names = [x["metadata"]["name"] for x in nodes for t in x["spec"].get("taints", []) if t["key"] in UNFIT]
            assert not names, f"nodes that take no pods: {names}"
            return names

        eventually(stale, lambda names: not names, within=120, every=1, what="leases that kubelets renewed")
        comes_to_rest(tainted, during=6, within=120, what="nodes without a taint")
        self.disturbed.clear()

    # --------------------------------------------------------------- volumes

    def bounded_volume(self, name: str, megabytes: int, node: str) -> Object:
        """A claim of `megabytes` on a node, backed by memory and truly that small; returns the claim. For
        `fill_volume`.

        The kind bed's own storage class gives folders on this machine's disk, which nobody may fill. Undo with
        `drop_volume`.
        """
        path = f"/mnt/bounded/{self.cluster.namespace}-{name}"
        mount = f"mkdir -p {path} && mount -t tmpfs -o size={megabytes}m,mode=0777 bounded {path}"
        self.bed.on_node(node, "sh", "-c", mount)
        host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        volume = f"{self.cluster.namespace}-{name}"
        common = {"accessModes": ["ReadWriteOnce"], "storageClassName": "bounded"}
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": f"{megabytes}Mi"}}},
        }
        persistent = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                "capacity": {"storage": f"{megabytes}Mi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
            },
        }
        self.cluster.apply([persistent, claim])
        return self.cluster.get("pvc", name)

    def drop_volume(self, name: str, node: str) -> None:
        """Take a bounded volume away again, with whatever it held."""
        volume = f"{self.cluster.namespace}-{name}"
        self.cluster.kubectl("delete", "pvc", name, "--wait=false", "--ignore-not-found")
        self.cluster.kubectl("delete", "pv", volume, "--wait=false", "--ignore-not-found")
        self.bed.on_node(node, "sh", "-c", f"umount -l /mnt/bounded/{volume} && rmdir /mnt/bounded/{volume}")

    @contextmanager
    def filled_volume(self, name: str, node: str) -> Iterator[None]:
        """Not a byte left on a bounded volume for the length of a with block: writers get ENOSPC."""
        path = f"/mnt/bounded/{self.cluster.namespace}-{name}"
        size = int(self.bed.on_node(node, "stat", "--file-system", "--format=%b", path)) * 4096
        if size > LARGEST_FILL:
            raise ValueError(
                f"{path} holds {size} bytes; only a volume made by bounded_volume (up to {LARGEST_FILL}) is filled"
            )
        filler = shlex.quote(f"{path}/.filler")
        self.bed.on_node(node, "sh", "-c", f"dd if=/dev/zero of={filler} bs=4096 2>/dev/null; test -s {filler}")
        try:
            yield
        finally:
            self.bed.on_node(node, "rm", "-f", f"{path}/.filler")

    # -------------------------------------------------------------- internals

    def _container(self, pod: str, container: str) -> tuple[str, str]:
        owner = self.cluster.get("pod", pod)
        every = [*owner["status"]["containerStatuses"], *owner["status"].get("initContainerStatuses", [])]  # sidecars
        status = next(s for s in every if s["name"] == container)
        return owner["spec"]["nodeName"], status["containerID"].rpartition("/")[2]

    def _pid(self, node: str, identity: str) -> int:
        """The container's first process, as the node numbers it."""
        return int(json.loads(self.bed.on_node(node, "crictl", "inspect", identity))["info"]["pid"])

    def _kill_unit(self, node: str, unit: str) -> None:
        before = self._main_pid(node, unit)
        self.bed.on_node(node, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)
        eventually(
            lambda: self._main_pid(node, unit) not in ("0", before), within=60, what=f"{unit}'s restart on {node}"
        )
        self.disturbed.append(node)

    def _main_pid(self, node: str, unit: str) -> str:
        return self.bed.on_node(node, "systemctl", "show", "--property=MainPID", "--value", unit).strip()

    def _static(self, name: str) -> str:
        listed = self.bed.on_node(self.bed.control_plane, "crictl", "ps", "--name", f"^{name}$", "--quiet").split()
        return listed[0]

    def _kill_static(self, name: str) -> str:
        identity = self._static(name)
        pid = self._pid(self.bed.control_plane, identity)
        self.bed.on_node(self.bed.control_plane, "kill", "-KILL", str(pid))
        return identity

    def _restart_static(self, name: str) -> None:
        before = self._kill_static(name)
        eventually(lambda: self._static(name) != before, within=120, every=1, what=f"a new {name} container")
        eventually(lambda: self.cluster.raw("/readyz") == "ok", within=120, every=1, what="the API server's /readyz")
        self.disturbed.append(name)

    def _read(self, path: PurePosixPath) -> bytes:
        return self.bed.on_node(self.bed.control_plane, "cat", str(path)).encode()

    def _write_certificate(self, text: str) -> None:
        self.bed.on_node(self.bed.control_plane, "sh", "-c", f"cat > {PKI}/apiserver.crt", stdin=text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

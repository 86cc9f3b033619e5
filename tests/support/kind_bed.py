"""The kind bed: kubelets, containerd, DNS, volumes, metrics and enforced NetworkPolicies in Docker containers of this
machine."""

import base64
import json
import os
import secrets
import shutil
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from support import docker_daemon
from support.audit_log import AuditLog, whole_lines
from support.cluster_access import Cluster
from support.docker_client import docker_lines, run_docker
from support.host import require_packages
from support.node_image import (
    METRICS_SERVER,
    TOOLS,
    ensure_metrics_server_image,
    ensure_node_image,
    ensure_tools_image,
    is_local,
)
from support.places import ROOT, SUPPORT, cache
from support.processes import Process
from support.programs import ensure, program
from support.progress import BedError, Say, say
from support.waiting import eventually

AUDIT = "/var/log/kubernetes/audit.log"


@dataclass
class KindBed:
    """A kind cluster from the project's kind-config.yaml, in one folder. Start it, use `cluster`, stop it: nothing is
    left."""

    name: str

    # ------------------------------------------------------------------ life

    @property
    def folder(self) -> Path:
        return cache("beds") / f"kind-{self.name}"

    @property
    def kind_name(self) -> str:
        return f"governed-{self.name}"

    @property
    def running(self) -> bool:
        return self.kubeconfig.exists() and bool(self.nodes())

    def start(self, tell: Say = say) -> None:
        """Bring the cluster up until core pods, metrics-server and NetworkPolicy enforcement work; removes a broken one
        first."""
        require_packages({"docker": "docker.io", "dockerd": "docker.io", "nft": "nftables"}, tell)
        self.stop()
        docker_daemon.acquire(self.folder.name, tell)
        try:
            ensure(["kind", "kubectl"], tell)
            image = ensure_node_image(tell)
            started = time.monotonic()
            self._create(image)
            tell(f"kind cluster {self.kind_name} created in {time.monotonic() - started:.0f} s")
            self._complete(tell)
            tell(f"kind bed ready in {time.monotonic() - started:.0f} s: KUBECONFIG={self.kubeconfig}")
        except BaseException:
            self._keep_logs(tell)
            self.stop()
            raise

    def stop(self) -> None:
        """Delete the cluster, end the policy enforcer, and the Docker daemon where it was started for this bed."""
        for process in self._processes():
            process.stop()
        if docker_lines("ps", "-aq", f"--filter=label=io.x-k8s.kind.cluster={self.kind_name}"):
            self._kind("delete", "cluster")
        shutil.rmtree(self.folder, ignore_errors=True)
        docker_daemon.release(self.folder.name)

    # ---------------------------------------------------------------- access

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.kubeconfig)

    @property
    def control_plane(self) -> str:
        return f"{self.kind_name}-control-plane"

    def nodes(self) -> list[str]:
        """Node names, which are also the names of their Docker containers."""
        return sorted(
            docker_lines("ps", f"--filter=label=io.x-k8s.kind.cluster={self.kind_name}", "--format", "{{.Names}}")
        )

    def workers(self) -> list[str]:
        """The nodes that take pods: the control plane is tainted where there are others."""
        return [node for node in self.nodes() if node != self.control_plane] or self.nodes()

    def on_node(self, node: str, *command: str, stdin: str | None = None) -> str:
        """Run a command on a node as root and return its stdout."""
        return run_docker("exec", *(["-i"] if stdin is not None else []), node, *command, stdin=stdin, timeout=600)

    @property
    def audit(self) -> AuditLog:
        def lines(since: int) -> Iterator[str]:
            text = self.on_node(self.control_plane, "tail", f"--bytes=+{max(since, 1)}", AUDIT)
            yield from whole_lines(text.splitlines(keepends=True), since)

        return AuditLog(lines, lambda: int(self.on_node(self.control_plane, "stat", "--format=%s", AUDIT)))

    def host_port(self, node_port: int) -> int:
        """The loopback port behind which NodePort 30080 or 30081 answers."""
        return int(docker_lines("port", self.control_plane, f"{node_port}/tcp")[0].rpartition(":")[2])

    def load_images(self, images: Iterable[str], tell: Say = say) -> None:
        """Copy images from the Docker daemon to every worker; one that holds the very image already is left alone."""
        wanted = {name: docker_lines("image", "inspect", "--format", "{{.Id}}", name)[0] for name in images}
        started = time.monotonic()
        missing = {node: [n for n, key in wanted.items() if not self._holds(node, n, key)] for node in self.workers()}
        names = sorted({name for absent in missing.values() for name in absent})
        if not names:
            return
        with tempfile.TemporaryDirectory(dir=self.folder / "images") as folder:
            archive = Path(folder) / "images.tar"
            run_docker("save", "--output", str(archive), *names)  # one archive, so that shared layers travel once
            path = f"/mnt/images/{archive.relative_to(self.folder / 'images')}"
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: self._import(node, path), [n for n, absent in missing.items() if absent]))
        tell(f"loaded {', '.join(names)} in {time.monotonic() - started:.0f} s")

    # -------------------------------------------------------------- internals

    def _kind(self, *args: str) -> str:
        path = f"{Path(program('kind')).parent}:{os.environ.get('PATH', os.defpath)}"
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}
        command = [str(program("kind")), *args, "--name", self.kind_name]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
        if result.returncode:
            raise BedError(f"kind {' '.join(args)} failed:\n{result.stderr[-4000:]}")
        return result.stdout

    def _create(self, image: str) -> None:
        apiserver = self.folder / "apiserver"
        apiserver.mkdir(parents=True)
        (self.folder / "images").mkdir()
        shutil.copy(SUPPORT / "audit-policy.yaml", apiserver / "audit-policy.yaml")
        encryption = apiserver / "encryption.yaml"
        encryption.touch(mode=0o600)
        encryption.write_text(yaml.safe_dump(_encryption_at_rest()))
        config = self.folder / "kind-config.yaml"
        config.write_text(
            string.Template((ROOT / "kind-config.yaml").read_text()).safe_substitute(BED=str(self.folder))
        )
        self._kind("create", "cluster", "--image", image, "--config", str(config), "--wait", "120s")

    def _complete(self, tell: Say) -> None:
        """What a user's cluster has and kind's hasn't: metrics, and NetworkPolicies that hold."""
        if not is_local():
            self.load_images([ensure_tools_image(tell), ensure_metrics_server_image(tell)], tell)
        text = (SUPPORT / "manifests" / "metrics-server.yaml").read_text()
        self.cluster.within("kube-system").apply(text.replace("${METRICS_SERVER}", METRICS_SERVER))
        if is_local():  # kind's own network, in a pulled node image, enforces policies itself
            enforcer = Process(
                "network-policy",
                [sys.executable, "-m", "support.network_policy", self.name],
                str(self.folder / "network-policy.log"),
            )
            enforcer.start({**os.environ, "PYTHONPATH": str(ROOT / "tests")})
            (self.folder / "processes.json").write_text(json.dumps([enforcer.state()]))
        for namespace in ("kube-system", "local-path-storage"):
            self.cluster.within(namespace).kubectl(
                "wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s", timeout=130
            )
        eventually(lambda: self.cluster.get("serviceaccount", "default"), within=90)

    def _processes(self) -> list[Process]:
        path = self.folder / "processes.json"
        return [Process.from_state(state) for state in json.loads(path.read_text())] if path.exists() else []

    def _holds(self, node: str, image: str, key: str) -> bool:
        listed = json.loads(self.on_node(node, "crictl", "images", "--output=json"))["images"]
        names = {image, f"docker.io/{image}"}
        return any(entry["id"] == key and names & set(entry["repoTags"]) for entry in listed)

    def _import(self, node: str, archive: str) -> None:
        """Through the mount of kind-config.yaml: a gigabyte through `docker exec -i` takes minutes."""
        self.on_node(
            node, "ctr", "--namespace=k8s.io", "images", "import", "--digests", "--snapshotter=overlayfs", archive
        )

    def _keep_logs(self, tell: Say) -> None:
        """A cluster that would not start is gone in a moment: say why while it is there."""
        for node in self.nodes():
            tell(f"{node}: {run_docker('logs', '--tail=20', node)[-1500:]}")


def _encryption_at_rest() -> dict[str, object]:
    """Secrets encrypted in etcd (NaCl secretbox) under a key made here and now."""
    key = {"name": "bed", "secret": base64.b64encode(secrets.token_bytes(32)).decode()}
    providers = [{"secretbox": {"keys": [key]}}, {"identity": {}}]
    resources = [{"resources": ["secrets"], "providers": providers}]
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}


def tools_image() -> str:
    """The busybox image that every bed's nodes hold."""
    return TOOLS

"""The API-server bed: etcd, kube-apiserver (RBAC, audit log), kube-controller-manager, scheduler, kwok nodes on
loopback."""

import json
import os
import shutil
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import yaml

from support.audit_log import AuditLog, whole_lines
from support.certificates import LIFETIME, Authority, service_account_keys
from support.cluster_access import Cluster
from support.places import SUPPORT, cache
from support.ports import free_port
from support.processes import Process, stop_all
from support.programs import API_BED, ensure, kwok_stages, program
from support.progress import BedError, Say, say
from support.waiting import eventually

# The defaults of 20 and 30 would measure the controllers' own throttle instead of what is under test.
FAST_CLIENT = ("--kube-api-qps=2000", "--kube-api-burst=4000")
SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.0.0.1/24"
"""Where kwok takes addresses of pods from; nobody answers there."""
HOST_PATHS = Path("/tmp/hostpath_pv")  # fixed in kube-controller-manager's own provisioner


@dataclass
class ApiServerBed:
    """A control plane without kubelets, in one folder. Start it, use `cluster`, stop it: nothing is left behind."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    nodes: int = 0

    # ------------------------------------------------------------------ life

    @classmethod
    def named(cls, name: str) -> "ApiServerBed":
        """The bed of that name, running or not."""
        folder = cache("beds") / f"apiserver-{name}"
        state = folder / "state.json"
        if not state.exists():
            return cls(folder)
        saved = json.loads(state.read_text())
        return cls(folder, saved["ports"], [Process.from_state(p) for p in saved["processes"]], saved["nodes"])

    @property
    def running(self) -> bool:
        return bool(self.processes) and all(process.alive for process in self.processes)

    def start(self, nodes: int = 0, tell: Say = say, controllers: Sequence[str] = (), pod_cidr: str = POD_CIDR) -> None:
        """Bring the control plane up with `nodes` kwok nodes; a broken or half-started one of the same name is removed
        first.

        `controllers`: further flags of kube-controller-manager.
        """
        ensure(API_BED, tell)
        self.stop()
        self.folder.mkdir(parents=True)
        started = time.monotonic()
        self.ports = {name: free_port() for name in ("etcd", "etcd-peer", "kube-apiserver", "kwok")}
        self.nodes = nodes
        self._write_identities()
        try:
            self._start_processes(controllers, pod_cidr)
            self._create_defaults()
        except BaseException:
            self.stop()
            raise
        tell(f"API-server bed ready in {time.monotonic() - started:.1f} s: KUBECONFIG={self.kubeconfig}")

    def stop(self) -> None:
        """End every process of the bed and remove its folder and what its volumes left."""
        volumes = self._volume_folders() if self.processes else []
        stop_all(self.processes)
        self.processes = []
        for path in volumes:
            shutil.rmtree(path, ignore_errors=True)
        if HOST_PATHS.is_dir() and not any(HOST_PATHS.iterdir()):
            HOST_PATHS.rmdir()
        with suppress(FileNotFoundError):  # its own run may be taking it away just now
            shutil.rmtree(self.folder)

    # ---------------------------------------------------------------- access

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (system:masters)."""
        return self.folder / "kubeconfig"

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.kubeconfig)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.ports['kube-apiserver']}"

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), lifetime: timedelta = LIFETIME) -> Path:
        """A kubeconfig for a user of that name, RBAC applies; a negative lifetime gives a certificate that has run
        out."""
        name = user.replace(":", "-").replace("/", "-")
        certificate, key = Authority(self.folder).issue(f"user-{name}", user, groups, lifetime=lifetime)
        path = self.folder / f"kubeconfig-{name}"
        self._write_kubeconfig(path, user, certificate, key)
        return path

    @property
    def audit(self) -> AuditLog:
        log = self.folder / "audit.log"

        def lines(since: int) -> Iterator[str]:
            with open(log, errors="replace") as handle:
                handle.seek(max(since - 1, 0))
                yield from whole_lines(handle, since)

        return AuditLog(lines, lambda: log.stat().st_size)

    def process(self, name: str) -> Process:
        """One of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok."""
        for candidate in self.processes:
            if candidate.name == name:
                return candidate
        raise LookupError(f"this bed runs {', '.join(p.name for p in self.processes) or 'nothing'}; there is no {name}")

    def add(self, process: Process, environment: dict[str, str]) -> None:
        """Start a process that leans on this bed and is ended with it, before those that it leans on."""
        process.start(environment)
        self.processes.append(process)
        self._save()

    def logs(self, lines: int = 40) -> str:
        return "\n".join(f"----- {p.name} ({'alive' if p.alive else 'gone'})\n{p.tail(lines)}" for p in self.processes)

    # ---------------------------------------------------------------- faults

    def restart(self, name: str, hard: bool = True) -> None:
        """Kill a process (SIGKILL unless `hard` is false) and start it again; returns when the API server is ready
        again."""
        self.kill(name, hard)
        self.revive(name)

    def kill(self, name: str, hard: bool = True) -> None:
        """End a process and leave it gone until `revive`."""
        self.process(name).stop(hard=hard)

    def revive(self, name: str) -> None:
        """Start a killed process again; returns when the API server is ready and a write has come through."""
        process = self.process(name)
        process.start()
        self._save()

        def writes() -> bool:
            """/readyz may tell of a moment ago; a write can't."""
            mark = f"governedmodels.io/revived={process.pid}"
            command = ("annotate", "--overwrite", "namespace", "default", mark)
            return self.ready() and bool(self.cluster.kubectl(*command, timeout=10))

        eventually(lambda: not process.alive or writes(), within=60, what=f"a write after {name} was started again")
        if not process.alive:
            raise BedError(f"{name} ended as soon as it was started again; its log says:\n{process.tail()}")

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP for the length of a with block: connections stay open and nobody answers, unlike after a kill."""
        self.process(name).signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process(name).signal(signal.SIGCONT)

    @contextmanager
    def expired_serving_certificate(self) -> Iterator[None]:
        """The API server's own certificate has run out for the length of a with block: every client must refuse it."""
        self._issue_serving(timedelta(minutes=-1))
        self.process("kube-apiserver").stop()
        self.process("kube-apiserver").start()
        self._save()
        try:
            yield
        finally:
            self._issue_serving(LIFETIME)
            self.restart("kube-apiserver", hard=False)

    # -------------------------------------------------------------- internals

    def ready(self) -> bool:
        """Whether /readyz says so, asked as the administrator."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _issue_serving(self, lifetime: timedelta) -> None:
        hosts = ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1"]
        Authority(self.folder).issue("apiserver", "kube-apiserver", hosts=hosts, lifetime=lifetime)

    def _write_identities(self) -> None:
        authority = Authority.create(self.folder)
        service_account_keys(self.folder)
        self._issue_serving(LIFETIME)
        users = {"admin": ("admin", ["system:masters"]), "kwok": ("kwok", ["system:masters"])}
        for name in ("kube-controller-manager", "kube-scheduler"):
            users[name] = (f"system:{name}", [])
        for name, (user, groups) in users.items():
            certificate, key = authority.issue(name, user, groups)
            path = self.kubeconfig if name == "admin" else self.folder / f"kubeconfig-{name}"
            self._write_kubeconfig(path, user, certificate, key)

    def _write_kubeconfig(self, path: Path, user: str, certificate: Path, key: Path) -> None:
        name = self.folder.name
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}}
            ],
            "users": [{"name": user, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))

    def _arguments(self) -> dict[str, list[str]]:
        at, ports = self.folder, self.ports
        etcd = f"http://127.0.0.1:{ports['etcd']}"
        controller = f"--kubeconfig={at}/kubeconfig-kube-controller-manager"
        return {
            "etcd": [
                f"--data-dir={at}/etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{ports['etcd-peer']}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{ports['etcd-peer']}",
                f"--initial-cluster=default=http://127.0.0.1:{ports['etcd-peer']}",
                "--unsafe-no-fsync", "--quota-backend-bytes=8589934592", "--log-level=warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                f"--secure-port={ports['kube-apiserver']}", "--endpoint-reconciler-type=none",
                f"--tls-cert-file={at}/apiserver.crt", f"--tls-private-key-file={at}/apiserver.key",
                f"--client-ca-file={at}/ca.crt", "--authorization-mode=RBAC", "--allow-privileged=true",
                f"--service-cluster-ip-range={SERVICE_CIDR}", "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={at}/sa.key", f"--service-account-key-file={at}/sa.pub",
                f"--audit-policy-file={SUPPORT}/audit-policy.yaml", f"--audit-log-path={at}/audit.log",
                "--audit-log-mode=blocking", "--audit-log-maxsize=100000", "--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",  # noqa: E501
            ],
            "kube-controller-manager": [
                controller, controller.replace("--", "--authentication-", 1), controller.replace("--", "--authorization-", 1),  # noqa: E501
                f"--service-account-private-key-file={at}/sa.key", f"--root-ca-file={at}/ca.crt",
                "--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0",  # noqa: E501
                "--enable-hostpath-provisioner", "--pvclaimbinder-sync-period=2s", "--concurrent-deployment-syncs=20",
                "--concurrent-replicaset-syncs=20", "--concurrent-job-syncs=20", "--concurrent-gc-syncs=40",
                *FAST_CLIENT,
            ],
            "kube-scheduler": [
                f"--kubeconfig={at}/kubeconfig-kube-scheduler", "--leader-elect=false", "--secure-port=0",
                "--bind-address=127.0.0.1", *FAST_CLIENT,
            ],
            "kwok": [
                f"--kubeconfig={at}/kubeconfig-kwok", f"--config={kwok_stages()}", "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds=40",
                f"--server-address=127.0.0.1:{ports['kwok']}",
            ],
        }  # fmt: skip

    def _start_processes(self, controllers: Sequence[str], pod_cidr: str) -> None:
        arguments = self._arguments()
        arguments["kube-controller-manager"] += controllers
        arguments["kwok"].append(f"--cidr={pod_cidr}")
        if not self.nodes:
            del arguments["kwok"]
        for name, args in arguments.items():
            process = Process(name, [str(program(name)), *args], str(self.folder / f"{name}.log"))
            self.processes.append(process)
            process.start()
            self._save()
            if name == "kube-apiserver":
                self._await_ready()

    def _await_ready(self) -> None:
        def up() -> bool:
            gone = [p for p in self.processes if not p.alive]
            if gone:
                raise BedError(f"{gone[0].name} of the API-server bed ended at once; its log says:\n{gone[0].tail()}")
            return self.ready()

        deadline = time.monotonic() + 180
        while not up():
            if time.monotonic() > deadline:
                raise BedError(f"kube-apiserver was not ready within 180 s; logs:\n{self.logs(10)}")
            time.sleep(0.05)

    def _create_defaults(self) -> None:
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        storage = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "standard", "annotations": annotations},
            "provisioner": "kubernetes.io/host-path",
        }
        self.cluster.apply([storage, *(_kwok_node(i) for i in range(self.nodes))])
        eventually(
            lambda: self.cluster.get("serviceaccount", "default"),
            within=90,
            every=0.1,
            what="controller-manager's work",
        )
        if self.nodes:
            self.cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=90s", timeout=100)

    def _save(self) -> None:
        state = {"ports": self.ports, "nodes": self.nodes, "processes": [p.state() for p in self.processes]}
        scratch = self.folder / f".state.{os.getpid()}"
        scratch.write_text(json.dumps(state))
        scratch.rename(self.folder / "state.json")

    def _volume_folders(self) -> list[Path]:
        """Folders that controller-manager's host-path provisioner made for this bed's volumes."""
        if not (
            HOST_PATHS.is_dir() and any(p.alive for p in self.processes if p.name == "kube-apiserver") and self.ready()
        ):
            return []
        paths = [Path(v["spec"].get("hostPath", {}).get("path", "/")) for v in self.cluster.list("persistentvolumes")]
        return [path for path in paths if path.parent == HOST_PATHS]


def _kwok_node(index: int) -> dict[str, object]:
    name = f"kwok-{index}"
    room = {"cpu": "1000", "memory": "4Ti", "pods": "10000", "ephemeral-storage": "10Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok",  # noqa: E501
                       "topology.kubernetes.io/zone": f"zone-{index % 3}"},
        },
        "status": {"allocatable": room, "capacity": room},
    }  # fmt: skip

"""The Kubernetes programs: found in KUBEBUILDER_ASSETS or PATH at the pinned version, else built once from Go
modules."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path

from support.places import SUPPORT, cache, locked
from support.progress import BedError, Say, say

MINIMUM_GO = (1, 26)


@dataclass(frozen=True)
class GoModule:
    """One tools module (`go/<name>/go.mod`): etcd, kwok, containerd… disagree in their dependencies, so each has its
    own."""

    name: str
    path: str
    packages: Mapping[str, str]
    tags: str = ""
    stamp: str = ""  # linker flags, {version} replaced

    @property
    def folder(self) -> Path:
        return SUPPORT / "go" / self.name

    @property
    def version(self) -> str:
        return self.pinned(self.path) if self.path else "local"  # the sources lie here

    def pinned(self, path: str) -> str:
        """Version of a module that this one requires."""
        text = (self.folder / "go.mod").read_text()
        match = re.search(rf"^\s*(?:require )?{re.escape(path)} (v\S+)", text, re.MULTILINE)
        if match is None:
            raise BedError(f"{self.folder / 'go.mod'} requires no {path}: restore the file from git")
        return match.group(1)

    @property
    def ldflags(self) -> str:
        return f"-s -w {self.stamp.format(version=self.version)}".strip()

    @property
    def key(self) -> str:
        """Digest of everything that decides the bytes: pins, tags and flags."""
        parts = [path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return hashlib.sha256(b"\0".join([*parts, self.tags.encode(), self.ldflags.encode()])).hexdigest()[:12]

    @property
    def built(self) -> Path:
        return cache("programs", f"{self.name}-{self.version}-{self.key}")


_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kubeadm",
    "kube-proxy",
)
_VERSION = "k8s.io/component-base/version"
_CONTAINERD = "github.com/containerd/containerd/v2"

MODULES: tuple[GoModule, ...] = (
    GoModule(
        "kubernetes",
        "k8s.io/kubernetes",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES},
        stamp=f"-X {_VERSION}.gitVersion={{version}} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37 "
        f"-X {_VERSION}.gitTreeState=clean",
    ),
    GoModule("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    GoModule(
        "kwok",
        "sigs.k8s.io/kwok",
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        stamp="-X sigs.k8s.io/kwok/pkg/consts.Version={version}",
    ),
    GoModule(
        "containerd",
        _CONTAINERD,
        {name: f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        tags="no_btrfs no_zfs no_devmapper no_aufs",
        stamp=f"-X {_CONTAINERD}/version.Version={{version}}",
    ),
    GoModule("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
    GoModule(
        "local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
    ),
    GoModule("crictl", "sigs.k8s.io/cri-tools", {"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"}),
    GoModule("kind", "sigs.k8s.io/kind", {"kind": "sigs.k8s.io/kind"}),
    GoModule(
        "metrics-server",
        "sigs.k8s.io/metrics-server",
        {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
    ),
    GoModule(
        "helm",
        "helm.sh/helm/v4",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        stamp="-X helm.sh/helm/v4/internal/version.version={version}",
    ),
    GoModule("pause", "", {"pause": "."}),
    GoModule("ledger-verifier", "", {"ledger-verifier": "."}),
    GoModule("versitygw", "github.com/versity/versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    GoModule(
        "registry",
        "github.com/distribution/distribution/v3",
        {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
    ),
    GoModule("gitops", "github.com/argoproj/gitops-engine", {"gitops-judge": "."}),
    GoModule("kserve", "github.com/kserve/kserve", {"kserve-manager": "github.com/kserve/kserve/cmd/manager"}),
    GoModule(
        "traefik",
        "github.com/traefik/traefik/v3",
        {"traefik": "github.com/traefik/traefik/v3/cmd/traefik"},
        stamp="-X github.com/traefik/traefik/v3/pkg/version.Version={version}",
    ),
    GoModule("keda", "github.com/kedacore/keda/v2", {"keda-operator": "github.com/kedacore/keda/v2/cmd/operator"}),
    GoModule("prometheus-operator", "github.com/prometheus-operator/prometheus-operator", {}),
)

API_BED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd", "kwok")
NODE_IMAGE = (
    *_KUBERNETES,
    *("etcd", "containerd", "containerd-shim-runc-v2", "ctr", "coredns", "local-path-provisioner", "crictl", "kind"),
    *("pause", "metrics-server"),
)

# How a program found elsewhere says its version; programs without an entry are always taken from the cache.
_ASK: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kwok"), ("--version",)),
    "kubectl": ("version", "--client"),
    "helm": ("version", "--short"),
    "kind": ("version",),
}


def module_of(program: str) -> GoModule:
    return next(module for module in MODULES if program in module.packages)


def kubernetes_version() -> str:
    """The pinned Kubernetes version, for example ``v1.37.2``."""
    return module_of("kubelet").version


@remembered
def program(name: str) -> Path:
    """Path of a program at the pinned version; builds it when neither the host nor the cache has it."""
    return _on_host(name) or build([name])[name]


def ensure(names: Iterable[str], tell: Say = say) -> None:
    """Have these programs, with progress through `tell`; what the host offers at the pinned version is not built."""
    build([name for name in names if not _on_host(name)], tell)


def _on_host(name: str) -> Path | None:
    """KUBEBUILDER_ASSETS first, then PATH; only at the pinned minor version, so that results mean the same
    everywhere."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for candidate in (Path(assets) / name if assets else None, shutil.which(name)):
        if candidate and name in _ASK and os.access(candidate, os.X_OK) and _answers(Path(candidate), name):
            return Path(candidate)
    return None


def _answers(path: Path, name: str) -> bool:
    wanted = module_of(name).version.rpartition(".")[0].lstrip("v")
    try:
        text = subprocess.run([path, *_ASK[name]], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    match = re.search(r"v?(\d+\.\d+)\.\d+", text)
    return match is not None and match.group(1) == wanted


def build(names: Iterable[str], tell: Say = say) -> dict[str, Path]:
    """Build programs into the cache, each once; answers where each lies."""
    paths = {}
    for name in names:
        module = module_of(name)
        target = module.built / name
        if not target.exists():
            with locked(f"{module.name}-{module.key}"):
                if not target.exists():
                    _go_build(module, name, target, tell)
        paths[name] = target
    return paths


def _go_build(module: GoModule, name: str, target: Path, tell: Say) -> None:
    go = _go()
    tell(f"building {name} {module.version} from its Go module …")
    started = time.monotonic()
    scratch = target.with_name(f".{name}.{os.getpid()}")
    command = [
        go,
        "build",
        "-mod=readonly",
        "-trimpath",
        "-buildvcs=false",
        "-tags",
        module.tags,
        "-ldflags",
        module.ldflags,
    ]
    result = subprocess.run(
        [*command, "-o", str(scratch), module.packages[name]], cwd=module.folder, env=_go_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        raise BedError(f"go build of {name} failed; it needs the Go module proxy (GOPROXY):\n{result.stderr[-2000:]}")
    if name == "kwok":
        _keep_kwok_stages(module)
    scratch.rename(target)
    tell(f"built {name} in {time.monotonic() - started:.0f} s")


def _go_environment() -> dict[str, str]:
    # The compiler is short-lived and allocates much: collecting later spares a sixth of its CPU time (measured with
    # kind).
    return {"GOGC": "400", **os.environ, "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": ""}


def _go() -> str:
    go = shutil.which("go") or next(
        (p for p in ("/usr/local/go/bin/go", "/usr/lib/go/bin/go") if os.access(p, os.X_OK)), None
    )
    if go is None:
        raise BedError("the Kubernetes programs are built with Go >= 1.26, and no `go` is on PATH: install Go "
                       "(https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with "
                       f"kube-apiserver, kube-controller-manager, etcd and kubectl {kubernetes_version()}")  # fmt: skip
    text = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"go(\d+)\.(\d+)", text)
    if match and (int(match.group(1)), int(match.group(2))) < (1, 21):
        raise BedError(f"Go >= 1.26 (or >= 1.21, which fetches it) is needed; {go} is {text.strip()}")
    return go


def module_folder(name: str, path: str = "") -> Path:
    """Where Go keeps the sources of the module behind tools module `name` (kind's own Dockerfiles, kwok's stages), or
    of one that it requires."""
    module = next(m for m in MODULES if m.name == name)
    path = path or module.path
    command = [_go(), "mod", "download", "-json", f"{path}@{module.pinned(path)}"]
    text = subprocess.run(
        command, cwd=module.folder, env=_go_environment(), capture_output=True, text=True, check=True
    ).stdout
    return Path(json.loads(text)["Dir"])


KWOK_STAGES = ("node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
               "pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml")  # fmt: skip


def _keep_kwok_stages(module: GoModule) -> None:
    """kwok does nothing without its stages, which lie in its module and not in the program."""
    source = module_folder("kwok") / "kustomize" / "stage"
    (module.built / "stages.yaml").write_text("\n---\n".join((source / name).read_text() for name in KWOK_STAGES))


def kwok_stages() -> Path:
    path = module_of("kwok").built / "stages.yaml"
    if not path.exists():
        _keep_kwok_stages(module_of("kwok"))
    return path

"""A kind node image from Go modules and Debian packages alone: no image registry. KIND_NODE_IMAGE, where set, wins."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import docker_daemon
from support.docker_client import build_image, image_exists, image_size, run_docker
from support.host import require_packages
from support.places import SUPPORT, cache, locked
from support.programs import MODULES, NODE_IMAGE, build, kubernetes_version, module_folder, module_of
from support.progress import Say, say

SUITE = "bookworm"  # systemd 252: the last Debian whose systemd starts on cgroup v1
TOOLS = "localhost/tools:1"  # a shell with busybox's applets: the pod network, volume helper and tests use it
METRICS_SERVER = f"localhost/metrics-server:{module_of('metrics-server').version}"
NODE = SUPPORT / "node"
_NODE_PACKAGES = "ca-certificates,runc,containernetworking-plugins,busybox,nftables,conntrack"
_COMPONENTS = ("pause", "coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy",
               "local-path-provisioner", "local-path-helper", "metrics-server")  # fmt: skip


def node_image() -> str:
    """Name of the node image: KIND_NODE_IMAGE, or the local one under a tag that holds the digest of its pins."""
    return os.environ.get("KIND_NODE_IMAGE") or f"local/governed-node:{kubernetes_version()}-{_key()}"


def is_local() -> bool:
    return not os.environ.get("KIND_NODE_IMAGE")


def ensure_node_image(tell: Say = say) -> str:
    """The node image, built when it is the local one and missing. A Docker daemon must answer
    (`docker_daemon.acquire`)."""
    name = node_image()
    if not is_local():
        if not image_exists(name):
            tell(f"pulling {name} (KIND_NODE_IMAGE)")
            run_docker("pull", name)
        return name
    with locked("node-image"):
        if not image_exists(name):
            _build(name, tell)
    return name


def debian_root(name: str, packages: str, tell: Say = say) -> str:
    """A minimal Debian with packages as a local image, made by mmdebstrap: what a registry would give, without one."""
    if not image_exists(name):
        with locked(name.replace("/", "-")):
            if not image_exists(name):
                require_packages({"mmdebstrap": "mmdebstrap"}, tell)
                started = time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    tarball = f"{folder}/root.tar"
                    subprocess.run(
                        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", SUITE, tarball],
                        check=True,
                    )
                    run_docker("import", tarball, name)
                tell(f"made {name} from Debian packages in {time.monotonic() - started:.0f} s")
    return name


def _key() -> str:
    digest = hashlib.sha256()
    for module in MODULES:
        if set(module.packages) & set(NODE_IMAGE):
            digest.update(module.key.encode())
    for path in sorted(NODE.iterdir()):
        digest.update(path.read_bytes())
    digest.update(f"{SUITE} {_NODE_PACKAGES}".encode())
    return digest.hexdigest()[:10]


def _build(name: str, tell: Say) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:  # Go compiles while Debian downloads
        root = pool.submit(_stage, tell)
        programs = pool.submit(build, NODE_IMAGE, tell)
        stage, paths = root.result(), programs.result()
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        context = Path(scratch) / "context"
        (context / "bin").mkdir(parents=True)
        for program, path in paths.items():
            os.link(path, context / "bin" / program)
        base = f"local/kind-base:{_key()}"
        build_image(base, context, file=NODE / "base.Dockerfile", arguments={"KIND_STAGE": stage}, buildkit=False)
        tags = _component_tags(paths["kubeadm"])
        for target in _COMPONENTS:
            build_image(
                tags[target], context, file=NODE / "components.Dockerfile", target=target, buildkit=False,
                arguments={"DEBIAN": _debian()},
            )  # fmt: skip
        run_docker("tag", tags["local-path-helper"], TOOLS)
        release = _release_tarball(Path(scratch), tags, paths)
        tell("kind build node-image …")
        built = f"local/kind-built:{_key()}"
        kind = [
            str(paths["kind"]),
            "build",
            "node-image",
            "--type=file",
            str(release),
            "--base-image",
            base,
            "--image",
            built,
        ]
        result = subprocess.run(kind, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"kind build node-image failed:\n{result.stderr[-3000:]}")
    build_image(name, NODE, file=NODE / "final.Dockerfile", arguments={"BUILT": built}, buildkit=False)
    run_docker("rmi", "--no-prune", built)
    tell(f"node image {name}, {image_size(name) / 1e6:.0f} MB, built in {time.monotonic() - started:.0f} s")


def _debian() -> str:
    return f"local/governed-debian:{SUITE}-{hashlib.sha256(_NODE_PACKAGES.encode()).hexdigest()[:8]}"


def _stage(tell: Say) -> str:
    """kind's base stage, built straight from the Dockerfile in its Go module, on our Debian root."""
    name = f"local/kind-stage:{module_of('kind').version}"
    root = debian_root(_debian(), _NODE_PACKAGES, tell)
    if not image_exists(name):
        build_image(name, module_folder("kind") / "images" / "base", target="base", arguments={"BASE_IMAGE": root})
    return name


def ensure_tools_image(tell: Say = say) -> str:
    """The busybox image of tests; it comes with the local node image and is made alone where KIND_NODE_IMAGE is
    used."""
    if not image_exists(TOOLS):
        root = debian_root(_debian(), _NODE_PACKAGES, tell)
        with tempfile.TemporaryDirectory() as empty:
            build_image(TOOLS, Path(empty), file=NODE / "components.Dockerfile", target="local-path-helper",
                        arguments={"DEBIAN": root})  # fmt: skip
    return TOOLS


def ensure_metrics_server_image(tell: Say = say) -> str:
    if not image_exists(METRICS_SERVER):
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            (Path(scratch) / "bin").mkdir()
            os.link(build(["metrics-server"], tell)["metrics-server"], Path(scratch) / "bin" / "metrics-server")
            build_image(METRICS_SERVER, Path(scratch), file=NODE / "components.Dockerfile", target="metrics-server",
                        arguments={"DEBIAN": "scratch"})  # fmt: skip
    return METRICS_SERVER


def _component_tags(kubeadm: Path) -> dict[str, str]:
    """Which name each component image must bear: kubeadm is asked for its own, kind's source for the others."""
    command = [str(kubeadm), "config", "images", "list", "--kubernetes-version", kubernetes_version()]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    tags = {image.rpartition("/")[2].partition(":")[0]: image for image in listed}
    source = module_folder("kind")
    config = (source / "images/base/files/etc/containerd/config.toml").read_text()
    tags["pause"] = _constant(config, r'sandbox_image = "(.*)"')
    storage = (source / "pkg/build/nodeimage/const_storage.go").read_text()
    tags["local-path-provisioner"] = _constant(storage, r'const storageProvisionerImage = "(.*)"')
    tags["local-path-helper"] = _constant(storage, r'const storageHelperImage = "(.*)"')
    tags["metrics-server"] = METRICS_SERVER
    return tags


def _constant(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"kind's source holds nothing like {pattern}: its layout changed with the version")
    return match.group(1)


def _release_tarball(scratch: Path, tags: dict[str, str], paths: dict[str, Path]) -> Path:
    """The layout of a Kubernetes server release, which `kind build node-image --type file` takes.

    Images beyond the usual four ride in kube-apiserver.tar. kind looks up what an archive holds in the first of
    "repositories" and "manifest.json" and pulls what it finds nowhere, so full names come first.
    """
    server = scratch / "kubernetes" / "server" / "bin"
    server.mkdir(parents=True)
    (scratch / "kubernetes" / "version").write_text(kubernetes_version() + "\n")
    for program in ("kubeadm", "kubelet", "kubectl"):
        os.link(paths[program], server / program)
    alone = ("kube-controller-manager", "kube-scheduler", "kube-proxy")
    for component in alone:
        run_docker("save", "--output", str(server / f"{component}.tar"), tags[component])
    rest = scratch / "rest"
    rest.mkdir()
    names = [tags[component] for component in _COMPONENTS if component not in alone]
    run_docker("save", "--output", str(scratch / "rest.tar"), *names, TOOLS)
    with tarfile.open(scratch / "rest.tar") as archive:
        archive.extractall(rest, filter="data")
    cni = (module_folder("kind") / "pkg/build/nodeimage/const_cni.go").read_text()
    kindnet = _constant(cni, r'const kindnetdImage = "(.*)"')
    (rest / "repositories").write_text(json.dumps(_repositories([*tags.values(), TOOLS, kindnet])))
    with tarfile.open(server / "kube-apiserver.tar", "w") as archive:
        archive.add(rest / "repositories", "repositories")
        for path in sorted(rest.iterdir()):
            if path.name != "repositories":
                archive.add(path, path.name)
    release = scratch / "release.tar.gz"
    with tarfile.open(release, "w:gz", compresslevel=1) as archive:
        archive.add(scratch / "kubernetes", "kubernetes")
    shutil.rmtree(rest)
    return release


def _repositories(images: Iterable[str]) -> dict[str, dict[str, str]]:
    tags: dict[str, dict[str, str]] = {}
    for image in images:
        repository, _, tag = image.rpartition(":")
        tags.setdefault(repository, {})[tag] = ""
    return tags


def main() -> None:
    """Build the node image by hand: python -m support.node_image."""
    docker_daemon.acquire("node-image")
    try:
        say(ensure_node_image())
    finally:
        docker_daemon.release("node-image")


if __name__ == "__main__":
    main()

"""`tests/cluster`: beds, images and programs by hand; the same code stands behind the pytest fixtures."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from support import docker_daemon
from support.apiserver_bed import ApiServerBed
from support.cluster_access import KubectlError
from support.docker_client import image_exists
from support.images import IMAGES, OPTIONAL, build_images
from support.kind_bed import KindBed
from support.language_runtime import language_runtime
from support.node_image import ensure_node_image, node_image
from support.programs import API_BED, ensure
from support.progress import BedError, say


def _bed(options: argparse.Namespace) -> ApiServerBed | KindBed:
    return ApiServerBed.named(options.name) if options.bed == "apiserver" else KindBed(options.name)


def up(options: argparse.Namespace) -> None:
    """Bring a bed up; stdout is the line to paste."""
    bed = _bed(options)
    if bed.running:
        say(f"the {options.bed} bed {options.name} is already up")
    elif isinstance(bed, ApiServerBed):
        bed.start(nodes=options.nodes)
    else:
        bed.start()
    print(f"export KUBECONFIG={bed.kubeconfig}")


def down(options: argparse.Namespace) -> None:
    """Take a bed down and leave nothing behind."""
    _bed(options).stop()
    say(f"the {options.bed} bed {options.name} is down")


def status(options: argparse.Namespace) -> None:
    """Say what runs."""
    api = ApiServerBed.named(options.name)
    print(f"apiserver bed {options.name}: {'up at ' + api.url if api.running else 'down'}")
    for process in api.processes:
        print(f"  {process.name:24} pid {process.pid:<8} {'alive' if process.alive else 'gone'}")
    kind = KindBed(options.name)
    print(f"kind bed {options.name}: {'up' if kind.running else 'down'}")
    for node in kind.nodes():
        print(f"  {node}")
    if kind.running:
        print(f"  NodePort 30080 at 127.0.0.1:{kind.host_port(30080)}, 30081 at 127.0.0.1:{kind.host_port(30081)}")
    print(f"dockerd started here for: {', '.join(docker_daemon.users()) or 'nobody'}")
    print(f"node image: {node_image()} ({'there' if image_exists(node_image()) else 'not there'})")


def kubeconfig(options: argparse.Namespace) -> None:
    """Print the path of a bed's kubeconfig."""
    bed = _bed(options)
    if not bed.running:
        raise BedError(f"the {options.bed} bed {options.name} is not up: run tests/cluster up --bed {options.bed}")
    print(bed.kubeconfig)


def build_all_images(options: argparse.Namespace) -> None:
    """Build the project's images from their Dockerfiles, with sizes and SBOMs; names limit it to some roles."""
    docker_daemon.acquire("build-images")
    try:
        build_images(options.roles)
    finally:
        docker_daemon.release("build-images")


def load_images(options: argparse.Namespace) -> None:
    """Copy the project's images into the nodes of a kind bed; builds those that are missing."""
    bed = KindBed(options.name)
    if not bed.running:
        raise BedError(f"the kind bed {options.name} is not up: run tests/cluster up")
    named = [image for image in (*IMAGES, *OPTIONAL) if image.role in options.roles]
    chosen = named or list(IMAGES)
    missing = [image.role for image in chosen if not image_exists(image.name)]
    if missing:
        build_images(missing)
    bed.load_images([name for image in chosen for name in (image.name, image.alias)])


def _told(build: Callable[[], object]) -> None:
    """Work beside the main thread: its failure is said when it happens, not when all else is done."""
    try:
        build()
    except BaseException as error:
        say(f"failed: {error}")
        raise


def prepare(_: argparse.Namespace) -> None:
    """Make all that the tests need and a cold machine lacks: programs, node image, project images, a language-model
    runtime."""
    docker_daemon.acquire("prepare")
    try:
        with ThreadPoolExecutor() as pool:  # Go compiles while wheels come down
            others = [pool.submit(_told, build) for build in (language_runtime, build_images)]
            ensure(API_BED)
            ensure_node_image()
            ensure(["versitygw", "registry", "helm", "gitops-judge", "traefik"])
            for one in others:
                one.result()
    finally:
        docker_daemon.release("prepare")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "up": up,
    "down": down,
    "status": status,
    "kubeconfig": kubeconfig,
    "build-images": build_all_images,
    "load-images": load_images,
    "prepare": prepare,
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="tests/cluster", description="Real Kubernetes to test on, without a registry.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, action in COMMANDS.items():
        one = commands.add_parser(name, help=action.__doc__)
        one.add_argument("--name", default="default", help="several beds of a kind may run side by side")
        if name not in ("prepare", "build-images"):
            one.add_argument("--bed", choices=("apiserver", "kind"), default="kind")
        if name == "up":
            one.add_argument("--nodes", type=int, default=3, help="kwok nodes of the apiserver bed (0: none)")
        if name.endswith("images"):
            one.add_argument(
                "roles", nargs="*", choices=[[], *(image.role for image in (*IMAGES, *OPTIONAL))], metavar="ROLE"
            )
    return root


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half-done work is cleared away
    try:
        COMMANDS[options.command](options)
    except (BedError, KubectlError) as error:
        print(f"tests/cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`tests/cluster`: beds, images and programs by hand; the same code stands behind the pytest fixtures."""

import argparse
import sys
from collections.abc import Callable, Sequence

from support.apiserver_bed import ApiServerBed
from support.progress import BedError, say

BEDS = ("apiserver", "kind")


def up(options: argparse.Namespace) -> None:
    """Bring a bed up; the last line on stdout is the line to paste."""
    if options.bed == "apiserver":
        bed = ApiServerBed.named(options.name)
        if bed.running and bed.ready():
            say(f"API-server bed {options.name} is already up")
        else:
            bed.start(nodes=options.nodes)
        print(f"export KUBECONFIG={bed.kubeconfig}")


def down(options: argparse.Namespace) -> None:
    """Take a bed down and leave nothing behind."""
    if options.bed == "apiserver":
        ApiServerBed.named(options.name).stop()
    say(f"{options.bed} bed {options.name} is down")


def status(options: argparse.Namespace) -> None:
    """Say what runs."""
    if options.bed in (None, "apiserver"):
        bed = ApiServerBed.named(options.name)
        print(f"apiserver bed {options.name}: {'up at ' + bed.url if bed.running else 'down'}")
        for process in bed.processes:
            print(f"  {process.name:24} pid {process.pid:<8} {'alive' if process.alive else 'gone'}")


def kubeconfig(options: argparse.Namespace) -> None:
    """Print the path of a bed's kubeconfig."""
    bed = ApiServerBed.named(options.name)
    if not bed.kubeconfig.exists():
        raise BedError(f"the {options.bed} bed {options.name} is not up: run tests/cluster up --bed {options.bed}")
    print(bed.kubeconfig)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "up": up,
    "down": down,
    "status": status,
    "kubeconfig": kubeconfig,
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="tests/cluster", description="Real Kubernetes to test on, without a registry.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, action in COMMANDS.items():
        one = commands.add_parser(name, help=(action.__doc__ or "").split("\n")[0])
        one.add_argument("--bed", choices=BEDS, default=None if name == "status" else "kind")
        one.add_argument("--name", default="default", help="several beds of a kind may run side by side")
        if name == "up":
            one.add_argument("--nodes", type=int, default=3, help="kwok nodes of the apiserver bed (0: none)")
    return root


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        COMMANDS[options.command](options)
    except BedError as error:
        print(f"tests/cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

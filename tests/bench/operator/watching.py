"""What it costs to watch children: our reflector beside kopf, each in an operator that leads nothing, on one bed.

    python tests/bench/operator/watching.py --models 200 --events 2000

The Lease is somebody else's, so that nothing is written and all that is spent is watching: the objects of all models
are listed, then annotations of children are changed from here. Measured are the operator's CPU and memory, with turns
taken in between.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "apiserver" / "operator")]

from creation import cpu_seconds, memory_mib, peak_mib  # noqa: E402
from models import Key, applied, document, keys, make_namespaces, objects_of, shared_objects, together  # noqa: E402
from operator_bed import USER, OperatorUnderTest, install_crds, running_operator  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from standby import hold_the_lease  # noqa: E402

from governed_operator.kube.cluster import MERGE, Cluster  # noqa: E402
from governed_operator.kube.kinds import BY_NAME, MODEL  # noqa: E402
from support.apiserver_bed import ApiServerBed  # noqa: E402

WAYS: dict[str, Sequence[str]] = {
    "our reflector": ("-m", "governed_operator"),
    "kopf.on.event": (str(Path(__file__).with_name("kopf_children.py")),),
}
CHANGED = ("Service", "Deployment", "ConfigMap", "NetworkPolicy", "ServiceAccount")
TURNS = 3
REST = 8
"""Seconds for which a process must have been at rest."""
SETTLED = 0.05
"""CPU seconds below which it counts as that."""


class Turn(NamedTuple):
    """One process's life."""

    start: float
    """CPU seconds until it was at rest."""
    event: float
    """CPU milliseconds an event."""
    memory: float
    peak: float


async def at_rest(operator: OperatorUnderTest) -> float:
    """CPU seconds of a process that has listed all, once it has spent next to nothing for a while: a busy machine makes
    pauses."""
    pid, spent = operator.process.pid, [-1.0]
    for _ in range(180):
        await asyncio.sleep(1.0)
        spent.append(cpu_seconds(pid))
        if len(spent) > REST and spent[-1] - spent[-REST] < SETTLED and await asyncio.to_thread(listed, operator):
            return spent[-1]
    raise TimeoutError(f"process {pid} didn't come to rest within 180 s")


def listed(operator: OperatorUnderTest) -> bool:
    try:
        return operator.get("/healthz/ready").status_code == 200
    except OSError:
        return False


async def change(cluster: Cluster, objects: list[tuple[str, str, str]], events: int, mark: str) -> None:
    """``events`` changes of one annotation each, over all objects in turn."""

    async def one(number: int) -> None:
        kind, namespace, name = objects[number % len(objects)]
        patch = {"metadata": {"annotations": {"bench": f"{mark}-{number}"}}}
        await cluster.request("PATCH", BY_NAME[kind].path(namespace, name), patch, media=MERGE)

    await together(one(n) for n in range(events))


async def turn(bed: ApiServerBed, cluster: Cluster, way: str, objects: list[tuple[str, str, str]], events: int) -> Turn:
    with tempfile.TemporaryDirectory() as folder, running_operator(bed, Path(folder), program=WAYS[way]) as operator:
        pid = operator.process.pid
        start = await at_rest(operator)
        await change(cluster, objects, events, f"{way}-{time.monotonic()}")
        return Turn(start, (await at_rest(operator) - start) / events * 1000, memory_mib(pid), peak_mib(pid))


async def fill(cluster: Cluster, models: list[Key]) -> list[tuple[str, str, str]]:
    """All objects of all models; (kind, namespace, name) of those that are changed."""
    await make_namespaces(cluster, models)
    spaces = sorted({namespace for namespace, _ in models})
    objects = [o for space in spaces for o in shared_objects(space)] + [o for key in models for o in objects_of(key)]
    await together(cluster.create(MODEL, document(key)) for key in models)
    await together(applied(cluster, o) for o in objects)
    named = [(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects]
    return [n for n in named if n[0] in CHANGED]


async def measured(bed: ApiServerBed, models: list[Key], events: int) -> dict[str, list[Turn]]:
    cluster = await Cluster.connect()
    out: dict[str, list[Turn]] = {way: [] for way in WAYS}
    try:
        objects = await fill(cluster, models)
        for _ in range(TURNS):
            for way, turns in out.items():
                turns.append(await turn(bed, cluster, way, objects, events))
                print(way, turns[-1], file=sys.stderr)
    finally:
        await cluster.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--events", type=int, default=2000)
    arguments = parser.parse_args()
    models = keys(arguments.models)
    bed = ApiServerBed.named(f"bench-watching-{os.getpid()}")
    bed.start()
    try:
        install_crds(bed.cluster)
        hold_the_lease(bed)
        os.environ["KUBECONFIG"] = str(bed.kubeconfig_for(USER, ["system:masters"]))
        found = asyncio.run(measured(bed, models, arguments.events))
    finally:
        bed.stop()
    table = Table(
        "", "CPU s until listed", "CPU ms an event", "RSS MiB", "peak MiB",
        title=f"{len(models)} models, {arguments.events} events, medians of {TURNS}, load {os.getloadavg()[0]:.0f}",
    )  # fmt: skip
    for way, turns in found.items():
        start, event, memory, peak = (statistics.median(column) for column in zip(*turns, strict=True))
        table.add_row(way, f"{start:.2f}", f"{event:.2f}", f"{memory:.0f}", f"{peak:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

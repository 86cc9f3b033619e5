"""N models created at once: time to Ready, writes, CPU and memory, beside the API server's own ceiling in the same
run."""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "apiserver" / "operator")]

import kserve_peer  # noqa: E402
from creation import QUIET, Controller, Creation, cpu_seconds, create_all, idle_writes, memory_mib  # noqa: E402
from models import (  # noqa: E402
    Key,
    Watch,
    applied,
    change_seconds,
    document,
    keys,
    make_namespaces,
    objects_of,
    sample,
    shared_objects,
    together,
)
from operator_bed import USER, OperatorUnderTest, install_crds, running_operator  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from governed_operator.kube.cluster import Cluster  # noqa: E402
from governed_operator.kube.kinds import DEPLOYMENT, MODEL  # noqa: E402
from support.apiserver_bed import ApiServerBed  # noqa: E402
from support.audit_log import Request  # noqa: E402
from support.cluster_access import Cluster as KubectlCluster  # noqa: E402
from support.programs import program  # noqa: E402

CONTROLLERS = ("--horizontal-pod-autoscaler-sync-period=1h",)
"""The bed serves no metrics, so every autoscaler would fail every 15 s with three requests: at 1,000 models 200 a
second, at 10,000 more than the bed can carry. Each is still looked at when it is made or changed."""
OPERATOR = ("-m", "governed_operator")
OTHERS = ("kopf_children", "aiohttp_requests")
"""Programs beside this file."""
PAUSE = 0.2
"""Seconds between two changes of specs."""


@dataclass
class Result:
    """All that one run measured; times in seconds."""

    models: int
    bare: float = float("nan")
    bare_writes: int = 0
    ours: Creation = field(default_factory=Creation)
    kserve: Creation | None = None
    changes: list[float] = field(default_factory=list)
    leading: float = float("nan")
    working: float = float("nan")
    resynced: float = float("nan")
    resync_writes: float = float("nan")
    slowest: float = float("nan")
    """Longest that a restarted operator took to answer over HTTP while it looked at every model."""
    resync_cpu: float = float("nan")
    resync_memory: float = float("nan")


@contextmanager
def fresh_bed(
    name: str, models: int, install: Callable[[KubectlCluster], None] = install_crds
) -> Iterator[ApiServerBed]:
    """Each part on an empty API server: none works beside the other's leftovers."""
    bed = ApiServerBed.named(f"bench-{name}-{os.getpid()}")
    bed.start(nodes=max(3, -(-models // 100)), controllers=CONTROLLERS)
    try:
        install(bed.cluster)
        os.environ["KUBECONFIG"] = str(bed.kubeconfig_for("bench", ["system:masters"]))
        yield bed
    finally:
        bed.stop()


async def ceiling(models: list[Key], out: Result) -> None:
    """A bare loop that applies the same objects, each once, and waits for nothing."""
    cluster = await Cluster.connect()
    await make_namespaces(cluster, models)
    spaces = sorted({namespace for namespace, _ in models})
    objects = [o for space in spaces for o in shared_objects(space)] + [o for key in models for o in objects_of(key)]
    began = time.perf_counter()
    await together(applied(cluster, o) for o in objects)
    out.bare, out.bare_writes = time.perf_counter() - began, len(objects)
    await cluster.close()


async def until_leading(operator: OperatorUnderTest) -> None:
    while True:
        try:
            if await asyncio.to_thread(lambda: operator.leading):
                return
        except OSError:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)


async def until_idle(operator: OperatorUnderTest, patience: float) -> float:
    """Until no model waits for a reconcile; the longest that an answer took meanwhile."""
    deadline, slowest = time.perf_counter() + patience, 0.0
    while (asked := time.perf_counter()) < deadline:
        text = (await asyncio.to_thread(operator.get, "/metrics", patience)).text
        slowest = max(slowest, time.perf_counter() - asked)
        if "governed_operator_queue_depth 0.0" in text:
            break
        await asyncio.sleep(0.25)
    return slowest


async def many(
    bed: ApiServerBed, models: list[Key], out: Result, patience: float, changes: int, program: Sequence[str]
) -> None:
    """Create, wait for Ready, keep still, change specs, restart."""
    cluster = await Cluster.connect()
    await make_namespaces(cluster, models)
    seen, deployments = Watch(cluster, MODEL), Watch(cluster, DEPLOYMENT)
    watches = [asyncio.create_task(w.run()) for w in (seen, deployments)]
    with tempfile.TemporaryDirectory() as folder:
        with running_operator(bed, Path(folder), program=program) as operator:
            await until_leading(operator)
            documents = {key: document(key) for key in models}
            controller = Controller(operator.process.pid, USER, MODEL)
            out.ours = await create_all(bed, cluster, controller, documents, (seen, deployments), patience)
            if not out.ours.unready:
                out.ours.idle = await idle_writes(bed, USER)
                for number, key in enumerate(sample(models, changes)):
                    out.changes.append(await change_seconds(cluster, deployments, key, 61 + number))
                    await asyncio.sleep(PAUSE)
                await until_idle(operator, 60)
                await asyncio.sleep(10)
        if not out.ours.unready:
            await restart(bed, cluster, Path(folder), models[0], deployments, out, program)
        tell_complaints(folder)
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    await cluster.close()


def tell_complaints(folder: str) -> None:
    """What the operator's logs say beyond the ordinary."""
    for log in Path(folder).glob("*.log"):
        lines = [line for line in log.read_text().splitlines() if " INFO " not in line]
        print(f"{log.name}: {len(lines)} lines above INFO", *lines[:5], sep="\n  ", file=sys.stderr)


async def restart(
    bed: ApiServerBed,
    cluster: Cluster,
    folder: Path,
    key: Key,
    deployments: Watch,
    out: Result,
    program: Sequence[str],
) -> None:
    """A new process: how soon it carries out a change, and what it writes besides."""
    mark, began = bed.audit.mark(), time.perf_counter()

    def others(w: Request) -> bool:
        return w.namespace != key[0] or not w.name.startswith(key[1])

    with running_operator(bed, folder, "restarted", program=program) as operator:
        change = asyncio.create_task(change_seconds(cluster, deployments, key, 59))
        await until_leading(operator)
        out.leading = time.perf_counter() - began
        out.working = await change
        out.slowest = await until_idle(operator, 300)
        out.resynced = time.perf_counter() - began
        out.resync_cpu, out.resync_memory = cpu_seconds(operator.process.pid), memory_mib(operator.process.pid)
        out.resync_writes = len([w for w in bed.audit.writes(mark, user=USER) if others(w)])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def peer(bed: ApiServerBed, models: list[Key], out: Result, patience: float) -> None:
    """KServe's controller, as many models, measured as ours is."""
    cluster = await Cluster.connect()
    await make_namespaces(cluster, models)
    kind = kserve_peer.SERVICE
    seen, deployments = Watch(cluster, kind), Watch(cluster, DEPLOYMENT)
    watches = [asyncio.create_task(w.run()) for w in (seen, deployments)]
    with kserve_peer.running_controller(bed) as process:
        controller = Controller(process.pid, kserve_peer.USER, kind)
        documents = {key: kserve_peer.document(key) for key in models}
        out.kserve = await create_all(bed, cluster, controller, documents, (seen, deployments), patience)
        if not out.kserve.unready:
            out.kserve.idle = await idle_writes(bed, kserve_peer.USER)
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    await cluster.close()


def show(out: Result) -> None:
    n = out.models
    table = Table(
        "", "measured", "target", title=f"{n} models at once, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    if out.bare_writes:
        table.add_row("bare loop, same objects", f"{out.bare:.1f} s, {out.bare_writes / out.bare:.0f} writes/s", "")
    targets = ("", "10,000: ≤ 1,200 s", "≤ 20", "≤ 15 ms", "10,000: ≤ 600 MiB", "0")
    show_creation(table, "ours", out.ours, n, targets)
    if out.bare_writes:
        table.add_row("share of the ceiling (time)", f"{out.bare / out.ours.ready:.2f}", "≥ .70")
    half, most = percentile(out.changes, 0.5), percentile(out.changes, 0.99)
    table.add_row(
        f"spec change → Deployment, {len(out.changes)} times", f"p50 {half:.2f} s, p99 {most:.2f} s", "p99 ≤ 2 s"
    )
    table.add_row("restart: leading again", f"{out.leading:.1f} s", "")
    table.add_row("restart: a change carried out", f"{out.working:.1f} s", "10,000: ≤ 30 s")
    table.add_row(
        "restart: every model looked at",
        f"{out.resynced:.1f} s, {out.resync_cpu:.1f} CPU s, {out.resync_memory:.0f} MiB",
        "",
    )
    table.add_row("restart: slowest answer to a probe meanwhile", f"{out.slowest:.2f} s", "5 s: its probes")
    table.add_row("restart: writes for other models", f"{out.resync_writes:.0f}", "0")
    table.add_section()
    if out.kserve is None:
        table.add_row(
            "published, other run: KServe 0.20, 1,000 InferenceServices,\na quarter of the objects, quiet 2-core "
            "machine",
            "children 74 s, Ready 100 s,\n18 CPU s, 159 MB",
            "ours sooner",
        )
    else:
        ours = ("ours sooner", "ours sooner", "", "", "", "")
        show_creation(table, f"KServe {kserve_peer.version()}", out.kserve, n, ours)
        table.add_row("CPU, ours ÷ KServe's", f"{out.ours.cpu / out.kserve.cpu:.2f}", "15 ÷ 18 = .83")
    Console(width=140).print(table)
    for who, creation in {"ours": out.ours, "kserve": out.kserve}.items():
        if creation is not None:
            print(who, json.dumps(creation.kinds.most_common(), ensure_ascii=False))


def show_creation(table: Table, who: str, creation: Creation, models: int, targets: tuple[str, ...]) -> None:
    """The rows that everyone has; ``targets`` in their order."""
    children, ready, writes, cpu, memory, idle = targets
    spent, owned = creation.cpu / models * 1000, creation.created / models
    table.add_row(f"{who}, children there ({owned:.1f} objects per model)", f"{creation.children:.1f} s", children)
    table.add_row(
        f"{who}, all Ready", f"{creation.ready:.1f} s, {creation.writes / creation.ready:.0f} writes/s", ready
    )
    if creation.unready:
        table.add_row(f"{who}, not Ready in time", str(creation.unready), "0")
    table.add_row(f"{who}, writes per model", f"{creation.writes / models:.1f}", writes)
    each = f", {spent / owned:.1f} ms per object" if owned else ""
    table.add_row(f"{who}, CPU per model", f"{spent:.1f} ms{each}", cpu)
    table.add_row(f"{who}, RSS", f"{creation.memory:.0f} MiB", memory)
    table.add_row(f"{who}, writes in {QUIET:.0f} quiet seconds", str(creation.idle), idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--patience", type=float, default=420, help="seconds for all to become Ready")
    parser.add_argument("--changes", type=int, default=150, help="how many specs are changed, one after the other")
    parser.add_argument(
        "--no-ceiling", action="store_true", help="leave out the bare loop, half the time of a long run"
    )
    parser.add_argument("--kserve", action="store_true", help="KServe's controller as well, on a bed of its own")
    parser.add_argument("--with", dest="other", choices=OTHERS, help="the operator with that part exchanged")
    parser.add_argument(
        "--smoke", action="store_true", help="a few models, to see that it runs: its numbers mean nothing"
    )
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.models, arguments.changes, arguments.patience = 3, 2, 120
    ours = (str(Path(__file__).with_name(f"{arguments.other}.py")),) if arguments.other else OPERATOR
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    models, out = keys(arguments.models), Result(arguments.models)
    if arguments.kserve:
        program("kserve-manager")  # compiled before anything is measured
    try:
        if not arguments.no_ceiling:
            with fresh_bed("bare", arguments.models):
                asyncio.run(ceiling(models, out))
        with fresh_bed("ours", arguments.models) as bed:
            asyncio.run(many(bed, models, out, arguments.patience, arguments.changes, ours))
        if arguments.kserve:
            with fresh_bed("kserve", arguments.models, kserve_peer.install) as bed:
                asyncio.run(peer(bed, models, out, arguments.patience))
    finally:  # what was measured before an interruption counts as well
        show(out)


if __name__ == "__main__":
    main()

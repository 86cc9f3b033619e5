"""N models created at once: time to Ready, writes, CPU and memory, beside the API server's own ceiling in the same run."""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "apiserver" / "operator")]

from operator_bed import DIGEST, USER, install_crds, model, running_operator  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from governed_api.model import GovernedModel  # noqa: E402
from governed_api.resolved import ResolvedModel  # noqa: E402
from governed_operator.cluster import ApiError, Cluster  # noqa: E402
from governed_operator.decision import Decision, Revision  # noqa: E402
from governed_operator.desired import Subject, model_objects  # noqa: E402
from governed_operator.key_material import draw  # noqa: E402
from governed_operator.kinds import BY_NAME, MODEL  # noqa: E402
from support.apiserver_bed import ApiServerBed  # noqa: E402

PER_NAMESPACE = 100
PARALLEL = 32
ROOT = b"r" * 32


def document(name: str, namespace: str) -> dict[str, Any]:
    """A model that brings its own artefact from an S3-like volume: ten children, no training."""
    out = model(name, {"predictor": {"model": {"storageUri": "pvc://models/m.onnx", "digest": DIGEST}}})
    out["metadata"]["namespace"] = namespace
    return out


async def gathered(work: list[Any]) -> float:
    """Run coroutines, PARALLEL at a time; seconds taken."""
    slots = asyncio.Semaphore(PARALLEL)

    async def one(coroutine: Any) -> None:
        async with slots:
            await coroutine

    began = time.perf_counter()
    await asyncio.gather(*(one(c) for c in work))
    return time.perf_counter() - began


async def applied(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Apply; an unreachable server is tried again, as the operator does."""
    while True:
        try:
            await cluster.apply(BY_NAME[manifest["kind"]], manifest)
        except ApiError as error:
            if error.status:
                raise
        else:
            return


async def namespaces(cluster: Cluster, prefix: str, models: int) -> list[str]:
    names = [f"{prefix}-{i}" for i in range(-(-models // PER_NAMESPACE))]
    for name in names:
        await cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": "models", "namespace": name}, "spec": spec}
        await cluster.request("POST", f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
    return names


def bare_objects(namespace: str, name: str) -> list[dict[str, Any]]:
    """The very objects of one model, its keys filled in."""
    resolved = ResolvedModel.of(GovernedModel.model_validate(document(name, namespace)))
    found = model_objects(Subject(resolved), Decision(stable=Revision.of(resolved, DIGEST)))
    for secret in (o for o in found if o["kind"] == "Secret"):
        secret["stringData"] = {k: v.hex() for k, v in draw(secret, ROOT).items()}
    return found


async def ceiling(cluster: Cluster, models: int) -> tuple[float, int]:
    """Seconds and writes of a bare loop that applies the same objects, each once."""
    spaces = await namespaces(cluster, "bare", models)
    objects = [o for i in range(models) for o in bare_objects(spaces[i // PER_NAMESPACE], f"m{i}")]
    return await gathered([applied(cluster, o) for o in objects]), len(objects)


async def ready_models(cluster: Cluster) -> tuple[int, int]:
    """(Ready, all)"""
    found = (await cluster.request("GET", MODEL.path(), resourceVersion="0"))["items"]
    states = [{c["type"]: c["status"] for c in m.get("status", {}).get("conditions", [])} for m in found]
    return sum(s.get("Ready") == "True" for s in states), len(found)


async def ours(cluster: Cluster, models: int, patience: float) -> float:
    """Seconds from the first creation until every model is Ready."""
    spaces = await namespaces(cluster, "ours", models)
    documents = [document(f"m{i}", spaces[i // PER_NAMESPACE]) for i in range(models)]
    began = time.perf_counter()
    await gathered([cluster.create(MODEL, d) for d in documents])
    while True:
        ready, _ = await ready_models(cluster)
        taken = time.perf_counter() - began
        if ready == models or taken > patience:
            if ready < models:
                print(f"only {ready} of {models} are Ready after {taken:.0f} s", file=sys.stderr)
            return taken
        await asyncio.sleep(0.5)


def cpu_and_memory(pid: int) -> tuple[float, float]:
    """CPU seconds and RSS in MiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * resource.getpagesize() / 2**20


async def measure(bed: ApiServerBed, models: int, patience: float) -> dict[str, Any]:
    os.environ["KUBECONFIG"] = str(bed.kubeconfig_for("bench", ["system:masters"]))
    cluster = await Cluster.connect()
    install_crds(bed.cluster)
    bare, bare_writes = await ceiling(cluster, models)
    with tempfile.TemporaryDirectory() as folder, running_operator(bed, Path(folder)) as operator:
        while True:
            try:
                if operator.leading:
                    break
            except OSError:
                await asyncio.sleep(0.2)
        before, mark = cpu_and_memory(operator.process.pid)[0], bed.audit.mark()
        taken = await ours(cluster, models, patience)
        used, memory = cpu_and_memory(operator.process.pid)
        writes = bed.audit.writes(mark, user=USER)
        quiet = bed.audit.mark()
        await asyncio.sleep(20)
        idle = len(bed.audit.writes(quiet, user=USER))
    await cluster.close()
    return {
        "bare": bare,
        "bare_writes": bare_writes,
        "ours": taken,
        "writes": len(writes),
        "by": Counter(f"{w.verb} {w.resource}" for w in writes),
        "cpu": used - before,
        "memory": memory,
        "idle": idle,
    }


def show(models: int, m: dict[str, Any]) -> None:
    ceiling_rate, rate = m["bare_writes"] / m["bare"], m["writes"] / m["ours"]
    table = Table("", "measured", "target", title=f"{models} models at once")
    table.add_row("bare loop, same objects", f"{m['bare']:.1f} s, {ceiling_rate:.0f} writes/s", "")
    table.add_row("ours, all Ready", f"{m['ours']:.1f} s, {rate:.0f} writes/s", "")
    table.add_row("share of the ceiling (time)", f"{m['bare'] / m['ours']:.2f}", "≥ .70")
    table.add_row("writes per model", f"{m['writes'] / models:.1f}", "≤ 20")
    table.add_row("operator CPU per model", f"{m['cpu'] / models * 1000:.1f} ms", "≤ 15 ms")
    table.add_row("operator RSS", f"{m['memory']:.0f} MiB", "≤ 600 MiB at 10,000")
    table.add_row("writes in 20 quiet seconds", str(m["idle"]), "0")
    Console().print(table)
    print(json.dumps(m["by"].most_common(), ensure_ascii=False))
    print(
        "published, quiet machine: KServe 0.20, 1,000 InferenceServices, a quarter of the objects: Ready in 100 s, 18 CPU s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--patience", type=float, default=420)
    arguments = parser.parse_args()
    bed = ApiServerBed.named(f"bench-{os.getpid()}")
    bed.start(nodes=max(3, -(-arguments.models // 100)))
    try:
        show(arguments.models, asyncio.run(measure(bed, arguments.models, arguments.patience)))
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
    finally:
        bed.stop()


if __name__ == "__main__":
    main()

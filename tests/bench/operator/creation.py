"""What it takes to bring models that are created at once to Ready: the same measures whoever the controller is."""

import asyncio
import os
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from models import Key, Object, Watch, together

from governed_operator.kube.cluster import Cluster
from governed_operator.kube.kinds import Kind
from support.apiserver_bed import ApiServerBed

QUIET = 20.0
"""Seconds watched for idle writes."""


@dataclass
class Creation:
    """Of all models together; times in seconds from the first request on, memory in MiB."""

    children: float = float("nan")
    """Until the last Deployment was seen."""
    ready: float = float("nan")
    unready: int = 0
    """Models that weren't Ready in time."""
    writes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    created: int = 0
    """Objects that the controller made, events left out."""
    cpu: float = 0.0
    memory: float = 0.0
    idle: int = 0
    """Writes in QUIET seconds after all was Ready."""


@dataclass(frozen=True)
class Controller:
    """Who is measured: the process, the user that it is to the API server, what it reconciles."""

    pid: int
    user: str
    kind: Kind


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """RSS."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib(pid: int) -> float:
    """The largest RSS that there was."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def create_all(
    bed: ApiServerBed,
    cluster: Cluster,
    controller: Controller,
    documents: dict[Key, Object],
    watches: tuple[Watch, Watch],
    patience: float,
) -> Creation:
    """Create all; wait until each is Ready, ``patience`` seconds at most. ``watches``: of the models and of
    Deployments."""
    seen, deployments = watches
    out = Creation()
    before, mark, began = cpu_seconds(controller.pid), bed.audit.mark(), time.perf_counter()
    await together(cluster.create(controller.kind, document) for document in documents.values())
    await seen.until(lambda: len(seen.ready) == len(documents), patience)
    out.ready = time.perf_counter() - began
    out.unready = len(documents) - len(seen.ready)
    out.children = max(deployments.first.values(), default=began) - began
    out.cpu, out.memory = cpu_seconds(controller.pid) - before, memory_mib(controller.pid)
    writes = bed.audit.writes(mark, user=controller.user)
    out.writes, out.kinds = len(writes), Counter(f"{w.verb} {w.resource}" for w in writes)
    out.created = len({(w.resource, w.namespace, w.name) for w in writes if w.code == 201 and w.resource != "events"})
    return out


async def idle_writes(bed: ApiServerBed, user: str) -> int:
    """Writes while nothing changes."""
    await asyncio.sleep(5)
    quiet = bed.audit.mark()
    await asyncio.sleep(QUIET)
    return len(bed.audit.writes(quiet, user=user))

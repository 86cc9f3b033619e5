"""Memory of an operator that starts among many models and doesn't lead: what listing them takes, at its peak and after
it.

    python tests/bench/operator/standby.py --models 10000

The Lease is somebody else's, so that no child is made: what is seen is the models alone, which every start decodes.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "apiserver" / "operator")]

from creation import memory_mib, peak_mib  # noqa: E402
from models import Key, document, keys, make_namespaces, together  # noqa: E402
from operator_bed import USER, install_crds, running_operator  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from governed_operator.kube.cluster import MERGE, Cluster  # noqa: E402
from governed_operator.kube.kinds import MODEL  # noqa: E402
from governed_operator.kube.leader import LEASE_NAME  # noqa: E402
from support.apiserver_bed import ApiServerBed  # noqa: E402

TYPES = ("Ready", "TrainingSucceeded", "ModelVerified", "BiasWithinThresholds", "Degraded", "Reconciling", "Stalled")
SECONDS = 30.0
"""After which the process is looked at: it has listed all by then."""
NEVER = "2099-01-01T00:00:00.000000Z"


def status() -> dict[str, object]:
    """As a model has that serves."""
    said = {"status": "True", "reason": "Reason", "message": "some words about it", "lastTransitionTime": NEVER}
    conditions = [{"type": name, "observedGeneration": 1, **said} for name in TYPES]
    return {"status": {"conditions": conditions, "replicas": 1, "observedGeneration": 1}}


async def fill(models: list[Key]) -> None:
    cluster = await Cluster.connect()

    async def one(key: Key) -> None:
        await cluster.create(MODEL, document(key))
        await cluster.request("PATCH", f"{MODEL.path(*key)}/status", status(), media=MERGE)

    try:
        await make_namespaces(cluster, models)
        await together(one(key) for key in models)
    finally:
        await cluster.close()


def hold_the_lease(bed: ApiServerBed) -> None:
    """For ever, and by nobody: an operator that starts stays a standby."""
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 3600, "renewTime": NEVER, "acquireTime": NEVER}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE_NAME}, "spec": spec}
    bed.cluster.within("default").apply(lease)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    models = keys(parser.parse_args().models)
    bed = ApiServerBed.named(f"standby-{os.getpid()}")
    bed.start(nodes=1)
    try:
        install_crds(bed.cluster)
        os.environ["KUBECONFIG"] = str(bed.kubeconfig_for(USER, ["system:masters"]))
        asyncio.run(fill(models))
        hold_the_lease(bed)
        with tempfile.TemporaryDirectory() as folder, running_operator(bed, Path(folder)) as operator:
            time.sleep(SECONDS)
            peak, after = peak_mib(operator.process.pid), memory_mib(operator.process.pid)
    finally:
        bed.stop()
    table = Table("", "MiB", title=f"A standby that starts among {len(models):,} models")
    table.add_row("peak", f"{peak:.0f}")
    table.add_row(f"after {SECONDS:.0f} s", f"{after:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""``python -m governed_operator``: the operator in a pod, or on a machine with a kubeconfig."""

import asyncio
import gc
import logging
import sys

import kopf
import uvloop

import governed_operator.loop.handlers  # noqa: F401  registers them
from governed_operator.kube.cluster import NoCluster, find_cluster
from governed_operator.settings import OperatorSettings


def main() -> None:
    """Runs until SIGTERM; logs one line per event to stderr. Exit status 1 where settings or cluster can't be used."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    gc.set_threshold(50_000, 20, 50)  # caches of thousands of models are no garbage
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            namespaces = OperatorSettings.from_environment().namespaces
            runner.run(find_cluster())
        except (NoCluster, ValueError) as error:  # told at once: in kopf's own start it would be tried for ever
            sys.exit(f"governed-operator: {error}")
        kopf.run(clusterwide=not namespaces, namespaces=namespaces, standalone=True, loop=runner.get_loop())


if __name__ == "__main__":
    main()

"""``python -m governed_operator``: the operator in a pod, or on a machine with a kubeconfig."""

import asyncio
import gc
import logging
import sys

import kopf
import uvloop

import governed_operator.loop.handlers  # noqa: F401  registers them
from governed_operator.settings import Settings


def main() -> None:
    """Runs until SIGTERM; logs one line per event to stderr."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    gc.set_threshold(50_000, 20, 50)  # caches of thousands of models are no garbage
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        namespaces = Settings.from_environment().namespaces
        kopf.run(clusterwide=not namespaces, namespaces=namespaces, standalone=True, loop=runner.get_loop())


if __name__ == "__main__":
    main()

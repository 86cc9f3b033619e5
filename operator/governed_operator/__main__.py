"""``python -m governed_operator``: the operator in a pod, or on a machine with a kubeconfig."""

import logging
import sys

import kopf

import governed_operator.handlers  # noqa: F401  registers them


def main() -> None:
    """Runs until SIGTERM; logs one line per event to stderr."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    kopf.run(clusterwide=True, standalone=True)


if __name__ == "__main__":
    main()

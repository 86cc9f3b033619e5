"""Who goes first where processes share a core: the server, which clients wait for."""

import os

__all__ = ["give_way"]

NICENESS = 10


def give_way() -> None:
    """Explainer, auditor and archive: a tenth of the server's weight, enough not to fall behind for good.

    It counts where the roles share a machine without containers (`governed run`). In a pod each container has a share of its own, its CPU request.
    """
    os.nice(NICENESS)

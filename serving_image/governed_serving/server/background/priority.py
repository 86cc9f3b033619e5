"""Who goes last where processes share a core."""

import os

from governed_serving.hosting.logs import log
from governed_serving.hosting.turns import turn

__all__ = ["LAST", "take_what_is_left"]

LAST = 16
"""Nice, of weight 29 to the 1,024 of others: a server that wants all of its core loses less than three hundredths."""


def take_what_is_left() -> None:
    """Run when nobody else wants the core, and leave it the moment somebody does: only for who holds no lock that a
    request needs.

    All threads that there are, and those that they start. Where the kernel gives short turns (turns.py), a server that
    wakes has the core at once, whatever this process's weight: ``LAST``, so that it gets on beside a neighbour who
    never sleeps. Older kernels let who has the core keep it for some milliseconds, unless it is of SCHED_IDLE, whose
    weight of 3 is next to nothing on a busy machine.
    """
    threads, short = [int(name) for name in os.listdir("/proc/self/task")], turn()
    for thread in threads:
        os.setpriority(os.PRIO_PROCESS, thread, LAST if short else 19)
    if short:
        return
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # a sandbox that knows no classes
        log("warning", "SCHED_IDLE is not to be had here; nice 19 instead", error=str(error))

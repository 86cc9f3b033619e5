"""Who goes last where processes share a core."""

import os

from governed_serving.hosting.logs import log

__all__ = ["take_what_is_left"]


def take_what_is_left() -> None:
    """Run when nobody else wants the core, and leave it the moment somebody does: only for who holds no lock that a
    request needs.

    All threads that there are, and those that they start. Nice 19 has five times the weight, but keeps a core that it
    has for some milliseconds.
    """
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    for thread in threads:
        os.setpriority(os.PRIO_PROCESS, thread, 19)
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # a sandbox that knows no classes
        log("warning", "SCHED_IDLE is not to be had here; nice 19 instead", error=str(error))

"""Turns on a core that several processes share, as Linux gives them (EEVDF, since 6.12: sched_setattr(2), sched_runtime
of SCHED_OTHER).

A process that wakes takes the core at once from one whose turns are longer. Priority alone doesn't do that: who has the
core keeps it to the end of its turn, 1.4 ms and more, however low it is. Older kernels take the request and change
nothing.
"""

import ctypes
import os
import platform
import struct

__all__ = ["SHORT", "give_way", "short_turns", "turn"]

SHORT = 100_000
"""Nanoseconds; the shortest that there is."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period."""
_NUMBERS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""Of sched_setattr and sched_getattr."""
_libc = ctypes.CDLL(None, use_errno=True)


def short_turns() -> bool:
    """For all threads of this process, and those that they start. False where there is no such thing."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    return os.sched_getscheduler(0) == os.SCHED_OTHER and all(_set(t, nice, SHORT) for t in threads)


def give_way(pid: int, nice: int) -> bool:
    """Another process goes behind this one, with turns of the ordinary length. False when it ended already."""
    if _set(pid, nice, 0):
        return True
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except ProcessLookupError:
        return False
    return True


def turn(pid: int = 0) -> int | None:
    """Nanoseconds of a thread's turns; 0 from kernels that have no such thing, None where it can't be asked."""
    if platform.machine() not in _NUMBERS:
        return None
    attributes = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if _libc.syscall(_NUMBERS[platform.machine()][1], pid, attributes, _ATTRIBUTES.size, 0):
        return None
    runtime: int = _ATTRIBUTES.unpack(attributes.raw)[5]
    return runtime


def _set(pid: int, nice: int, runtime: int) -> bool:
    if platform.machine() not in _NUMBERS:
        return False
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0)
    return not _libc.syscall(_NUMBERS[platform.machine()][0], pid, asked, 0)

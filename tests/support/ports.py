"""Ports that nobody else on this machine is given: not another worker, not another run of the tests.

They lie below those that the kernel hands out by itself, so that a process that was killed finds its own free again,
however late. A claim holds until the process that made it ends.
"""

import fcntl
import os
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from support.places import cache

__all__ = ["PORT_RANGE", "free_block", "free_port", "free_shift"]

PORT_RANGE = range(10_000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
_RANDOM = random.SystemRandom()
"""Hypothesis seeds the common one, which would send all workers to the same ports."""
_claims: set[int] = set()
_locks: list[int] = []
"""The descriptor of the file whose byte N stands for port N. Never closed: that would end the claims (fcntl(2))."""


def free_port() -> int:
    """One port. Raises RuntimeError."""
    return free_shift((0,), PORT_RANGE)


def free_block(count: int) -> int:
    """The first of ``count`` ports in a row. Raises RuntimeError."""
    return free_shift(range(count), PORT_RANGE[: -count + 1 or None : count])


def free_shift(ports: Iterable[int], shifts: range) -> int:
    """One of ``shifts`` by which all of ``ports`` come to lie on free ones. Raises RuntimeError."""
    for shift in _RANDOM.sample(shifts, len(shifts)):
        if _claimed({port + shift for port in ports}):
            return shift
    raise RuntimeError(f"expected free ports between {PORT_RANGE.start} and {PORT_RANGE.stop - 1}, found none")


def _claimed(ports: set[int]) -> bool:
    if ports & _claims:
        return False
    if not _locks:
        _locks.append(os.open(cache("locks") / "ports", os.O_RDWR | os.O_CREAT, 0o600))
    try:
        for port in ports:
            fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.socket() as probe:
                probe.bind(("", port))
    except OSError:  # another process has claimed it, or listens there
        for port in ports:
            fcntl.lockf(_locks[0], fcntl.LOCK_UN, 1, port)
        return False
    _claims.update(ports)
    return True

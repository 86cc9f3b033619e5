"""Ports for a model that is run beside others."""

import socket
from collections.abc import Iterable

from governed_api.runtime import PORTS

__all__ = ["first_free"]


def first_free(offsets: Iterable[int]) -> int:
    """The first of ``offsets`` at which all of a model's ports are free. Raises RuntimeError."""
    for offset in offsets:
        try:
            for port in PORTS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return offset
    raise RuntimeError("expected an offset at which all of a model's ports are free, found none")

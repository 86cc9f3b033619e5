"""A model that is run beside others on this machine: its ports, and whether all of its processes answer."""

import urllib.request
from collections.abc import Mapping
from typing import Any

from governed_api import runtime
from support.ports import PORT_RANGE, free_shift

__all__ = ["READINESS", "free_offset", "readiness_of", "unready"]

READINESS = {
    "server": runtime.PORT_HTTP,
    "explainer": runtime.PORT_EXPLAINER,
    "auditor": runtime.PORT_AUDITOR,
    "archive": runtime.PORT_ARCHIVE,
}
"""Process → port on which it says whether it is ready."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_offset() -> int:
    """What to add to a model's ports so that all are free, and nobody else's. Raises RuntimeError."""
    ports = runtime.PORTS
    return free_shift(ports, range(PORT_RANGE.start - min(ports), PORT_RANGE.stop - max(ports), 20))


def readiness_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """``READINESS`` of the processes that this GovernedModel has."""
    explained = "explainer" in manifest["spec"]
    return {name: port for name, port in READINESS.items() if name != "explainer" or explained}


def unready(ports: Mapping[str, int], offset: int) -> list[str]:
    """Those of a run that don't say that they are ready. They start in any order, whichever is asked first."""
    return [name for name, port in ports.items() if not _ready(port + offset)]


def _ready(port: int) -> bool:
    try:
        with _DIRECT.open(f"http://127.0.0.1:{port}{runtime.READY_PATH}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # an HTTPError, a refused connection, a timeout
        return False

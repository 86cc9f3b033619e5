"""Where things lie: the source tree, and the cache outside it that is keyed by the pins."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"


def cache(*parts: str) -> Path:
    """A folder under ``$XDG_CACHE_HOME/governed-models`` (default ``~/.cache``), created when missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base.joinpath("governed-models", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time builds what `name` stands for; others wait and then find it built."""
    with open(cache("locks") / name, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

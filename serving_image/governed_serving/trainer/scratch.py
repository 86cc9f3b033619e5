"""Scratch space that is memory, for libraries that insist on temporary files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governed_serving.trainer.errors import TrainingFailed

_MEMORY = ("tmpfs", "ramfs")


def memory_backed(path: Path, mounts: str) -> bool:
    """Whether ``path`` lies on a memory file system, by the text of /proc/mounts (the longest mount point that
    fits)."""
    kinds = {line.split()[1]: line.split()[2] for line in mounts.splitlines() if len(line.split()) > 2}
    fitting = [point for point in kinds if path.is_relative_to(point)]
    return bool(fitting) and kinds[max(fitting, key=len)] in _MEMORY


@contextmanager
def memory_scratch() -> Iterator[Path]:
    """Temporary files go to memory inside this block, so that no model lies on a disk in plaintext.

    Raises TrainingFailed when neither the temporary directory nor /dev/shm is memory-backed.
    """
    mounts = Path("/proc/mounts").read_text() if Path("/proc/mounts").exists() else ""
    places = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    place = next(
        (p for p in places if p.is_dir() and os.access(p, os.W_OK) and memory_backed(p.resolve(), mounts)), None
    )
    if place is None:
        raise TrainingFailed(
            "compression: expected /tmp or /dev/shm in memory, found none: mount an emptyDir of medium Memory at /tmp"
        )
    before = tempfile.tempdir
    tempfile.tempdir = str(place)
    try:
        yield place
    finally:
        tempfile.tempdir = before

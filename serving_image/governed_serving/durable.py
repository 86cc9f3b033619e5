"""Files that are either the old or the new one, never half of each, whatever happens to the power."""

import os
import secrets
from pathlib import Path

__all__ = ["fsync_folder", "replace_file", "write_new"]


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, fsync, rename over it, fsync the folder. Mode 0600. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(aside, data)
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that isn't there yet, and fsync it; its name is durable once the folder is. Mode 0600. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make renames and deletions in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

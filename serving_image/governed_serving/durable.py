"""Files that are either the old or the new one, never half of each, whatever happens to the power."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "discard_partial",
    "fsync_file",
    "fsync_folder",
    "is_regular",
    "open_new",
    "put_in_place",
    "replace_file",
    "replacing",
    "set_aside",
    "write_new",
]

_PARTIAL = ".partial"


def replace_file(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put ``data`` in the place of ``path`` at once; see :func:`replacing`. Raises OSError."""
    with replacing(path, mode=mode, durable=durable) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = 0o600, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` when the block ends well; otherwise ``path`` stays as it was.

    It is written beside ``path``, in a folder that is made (0700) if need be; on disk, its name with it, once the block
    has ended. ``durable`` False leaves that to a later :func:`fsync_file`, or to nobody: for memory, and for what can
    be had again. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with _naming(path), open_new(partial, mode) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if durable:
            put_in_place(partial, path)
        else:
            partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What fails in writing names the file: only what fails in opening does so by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def discard_partial(folder: Path) -> None:
    """Remove what killed writers left below ``folder``; for whoever alone writes there, before it does."""
    for partial in folder.glob(f"*{_PARTIAL}"):
        partial.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Rename a file that can't be read, so that it is in nobody's way and still there to look at; where it is now.

    None where that fails: it stays where it is. The last one of a name is kept.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside


def is_regular(path: Path) -> bool:
    """Whether a regular file lies there: no folder, link, pipe or device, which nothing of ours makes."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def write_new(path: Path, data: bytes) -> None:
    """Write a file that isn't there yet, and fsync it; its name is durable once the folder is. Mode 0600. Raises
    OSError."""
    with open_new(path, 0o600) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(path: Path, target: Path) -> None:
    """Rename ``path``, whose content is durable already, over ``target`` in the same file system; durable on return."""
    path.rename(target)
    fsync_folder(target.parent)


def fsync_file(path: Path) -> None:
    """Make the content of a file durable that is closed by now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Make creations, renames and deletions in ``folder`` durable."""
    fsync_file(folder)


def open_new(path: Path, mode: int = 0o600) -> BinaryIO:
    """A file to write to that isn't there yet; neither content nor name is durable by itself. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")

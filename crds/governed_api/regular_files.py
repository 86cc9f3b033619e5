"""The one way to read files of folders that others fill: manifests' data, imports, Secrets, reports, ledgers."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["KEY_BYTES", "open_regular", "read_regular"]

KEY_BYTES = 1 << 20
"""No file of a Secret is longer (Kubernetes bounds the whole Secret by this)."""


def open_regular(path: Path, *, follow: bool = False) -> BinaryIO:
    """A regular file to read from, in a folder that others may fill: never waits for a pipe, opens no device, and
    follows a link only where ``follow`` says so. Raises FileNotFoundError also for what is there and no regular file;
    OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise FileNotFoundError(error.errno, "is no regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "is no regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, limit: int | None = None, *, follow: bool = False) -> bytes:
    """The bytes of a regular file, as :func:`open_regular` opens it; of more than ``limit`` nothing is kept (OSError,
    EFBIG), whether its size says so or not."""
    with open_regular(path, follow=follow) as file:
        if limit is None:
            return file.read()
        # its size first: a sparse file costs nothing to make; then what comes: it may grow meanwhile
        data = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else None
    if data is None or len(data) > limit:
        raise OSError(errno.EFBIG, f"is longer than the {limit} bytes that are read of it", str(path))
    return data

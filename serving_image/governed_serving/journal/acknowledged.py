"""Up to which frame callers were told that it is kept: tells a tail that was damaged from one that a power cut tore.

One small file per stream, written over in place before callers are answered and never fsynced: after a power cut it may
say less than was told, never more. It proves nothing to a tamperer: frames are authenticated, and the ledger is signed.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["ACKNOWLEDGED", "Mark", "MarkFile", "read_mark"]

ACKNOWLEDGED = ".acknowledged"
"""Name of the file."""
_FORM = struct.Struct(">8s12sQ")
_CRC = struct.Struct(">I")
_MAGIC = b"GMJACK1\n"


class Mark(NamedTuple):
    """Frames before ``next_seq`` of the stream with this identity were acknowledged."""

    identity: str
    next_seq: int


def read_mark(folder: Path) -> Mark | None:
    """What was written last; None where there is none, or it was damaged: then nothing is said. Raises OSError."""
    try:
        data = (folder / ACKNOWLEDGED).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) != _FORM.size + _CRC.size:
        return None
    (said,) = _CRC.unpack_from(data, _FORM.size)
    magic, identity, next_seq = _FORM.unpack_from(data)
    whole = magic == _MAGIC and said == zlib.crc32(data[: _FORM.size])
    return Mark(identity.decode("ascii", "replace"), next_seq) if whole else None


class MarkFile:
    """The file of one stream's writer. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / ACKNOWLEDGED, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, identity: str, next_seq: int) -> None:
        """About a microsecond: the page cache outlives the process. Raises OSError."""
        body = _FORM.pack(_MAGIC, identity.encode(), next_seq)
        os.pwrite(self._fd, body + _CRC.pack(zlib.crc32(body)), 0)

    def close(self) -> None:
        os.close(self._fd)

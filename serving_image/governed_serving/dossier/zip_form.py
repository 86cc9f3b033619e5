"""A zip that has one reading: what its directory says is all that lies in the file, and each tool unpacks the same.

A zip says everything twice, in front of each member and in the directory at its end (APPNOTE 4.3). Tools that follow
the one or the other would show two people two pages; what is packed may be far larger than the file.
"""

import stat
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from governed_serving.archive.errors import Unverified

__all__ = ["check_ends", "check_members"]

MOST_MEMBERS = 16
_DIRECTORY_BYTES = 64 << 10
_END = struct.Struct("<4s4H2LH")
"""End of the directory (4.3.16): it is the last thing in the file."""
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
"""Before it where a dossier is larger than 2 GiB (4.3.15, 4.3.14)."""
_LOCAL = struct.Struct("<4s5H3L2H")
"""In front of a member (4.3.7)."""
_SIZES_64 = struct.Struct("<2H2Q")
"""Extra field of its sizes (4.5.3)."""
_MORE = 0xFFFFFFFF


def check_ends(path: Path) -> None:
    """Refuse a directory of a size that no dossier has: it would be read whole before anything is looked at. Raises
    Unverified, OSError."""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        tail = _END_64.size + _LOCATOR.size + _END.size
        file.seek(max(0, length - tail))
        data = file.read(tail).rjust(tail, b"\0")
    if length < _END.size:
        raise Unverified(f"{path}: expected a dossier (zip), found {length} bytes")
    mark, _, _, _, members, size, _, comment = _END.unpack(data[-_END.size :])
    found = [(members, size)]
    locator = _LOCATOR.unpack(data[_END_64.size : -_END.size])
    if locator[0] == b"PK\x06\x07":  # its numbers count instead
        more = _END_64.unpack(data[: _END_64.size])
        found = [more[6:9:2]] if more[0] == b"PK\x06\x06" and locator[2] == length - tail else [(_MORE, _MORE)]
    if mark != b"PK\x05\x06" or comment or any(n > MOST_MEMBERS or s > _DIRECTORY_BYTES for n, s in found):
        raise Unverified(f"{path}: expected a dossier, found a file that `governed dossier` didn't write, or not whole")


def check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Members lie one behind another from the file's first byte to its directory, plain files, each with the same name
    and sizes in front of it as in the directory. Raises Unverified, OSError, struct.error."""
    place = 0
    with path.open("rb") as file:
        for one in sorted(archive.infolist(), key=lambda one: one.header_offset):
            odd = _oddness(one) or ("" if one.header_offset == place else "something lies before it")
            place = _behind(file, one)
            if odd or place < 0:
                raise Unverified(f"{path}: {one.filename}: {odd or 'is named otherwise in front of it'}: {_REMEDY}")
    if place != archive.start_dir:
        raise Unverified(f"{path}: something lies between its members and its directory: {_REMEDY}")


_REMEDY = "`governed dossier` didn't write that; have the dossier made anew"


def _oddness(one: zipfile.ZipInfo) -> str:
    """Why tools may take it otherwise, or ""."""
    if one.flag_bits & ~0x806:  # levels of compression; a name in UTF-8
        return "is encrypted, or its size is told behind it"
    if one.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        return "is packed in another way than by deflate"
    if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG) or one.is_dir():
        return "is no plain file"
    if one.orig_filename != one.filename or one.comment or one.extra[:2] not in (b"", b"\1\0"):
        return "has another name as well"
    return ""


def _behind(file: BinaryIO, one: zipfile.ZipInfo) -> int:
    """The place behind a member; -1 where it isn't told the same in front of it."""
    file.seek(one.header_offset)
    mark, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    named, more = file.read(name), file.read(extra)
    if more:
        kind, _, whole, part = _SIZES_64.unpack(more)  # nothing else is behind the name
        size, packed = (whole, part) if kind == 1 and (size, packed) == (_MORE, _MORE) else (-1, -1)
    told = (mark, flags, method, crc, packed, size, named)
    wanted = (b"PK\x03\x04", one.flag_bits, one.compress_type, one.CRC, one.compress_size, one.file_size)
    return file.tell() + one.compress_size if told == (*wanted, one.filename.encode()) else -1

"""Tars of container images and model packages, read as streams: regular files alone are taken, and none leaves its
folder.

Layers: OCI image-spec, "Image Layer Filesystem Changeset" (whiteouts). Links and devices below the folder that is
wanted are refused; what lies outside of it is passed over.
"""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO, Self, cast

from governed_serving.sources.errors import Refused
from governed_serving.sources.names import MAX_FILES, safe
from governed_serving.sources.tree import CHUNK

__all__ = ["unpack"]

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
RATIO, HEADERS = 64, 16 << 20
"""A layer may unpack to so many times ``most``, what is passed over counted too, and to so much more: a bomb ends
there."""


LONGEST_HEADER = 1 << 20
"""Bytes of an extended header (long name, PAX), which is read into memory whatever it claims to have."""
MOST_MEMBERS = 1_000_000
"""Of a layer, what is passed over counted too."""
_EXTENDED = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)


class _Header(tarfile.TarInfo):
    """A member's header, judged before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and not 0 <= member.size <= LONGEST_HEADER:
            raise Refused(f"a header of a layer claims {member.size} bytes, at most {LONGEST_HEADER} are read")
        return member


class _Counted:
    """Bytes as they come out of decompression, no more than ``most``."""

    def __init__(self, file: IO[bytes], most: int, what: str) -> None:
        self._file, self._left, self._what = file, most, what

    def read(self, size: int = CHUNK) -> bytes:
        data = self._file.read(min(size, CHUNK))
        self._left -= len(data)
        if self._left < 0:
            raise Refused(f"{self._what}: unpacks to more than may be taken; raise volumeSize")
        return data


def unpack(archive: Path, into: Path, below: str, most: int, what: str) -> int:
    """Take the files ``below`` a folder of the tar (gzip or plain) over into ``into``; bytes that were taken.

    Raises Refused for links, devices, unsafe names, more than ``most`` bytes and what is no tar; OSError.
    """
    taken = files = 0
    with archive.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw
        counted = cast(IO[bytes], _Counted(stream, most * RATIO + HEADERS, what))
        try:
            with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Header) as tar:
                for number, member in enumerate(tar):
                    tar.members = []  # type: ignore[attr-defined]  # it would keep each one
                    if number >= MOST_MEMBERS:
                        raise Refused(f"{what}: has more than {MOST_MEMBERS} members")
                    name = _inside(member.name, below)
                    if name is None or member.isdir():
                        continue
                    taken, files = taken + member.size, files + 1
                    if taken > most or files > MAX_FILES:
                        raise Refused(f"{what}: has more than {most} bytes or {MAX_FILES} files; raise volumeSize")
                    _take(tar, member, into, name, what)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Refused(f"{what}: expected a tar, plain or by gzip, found none that can be read ({error})") from error
    return taken


def _inside(name: str, below: str) -> str | None:
    """The name below the folder; None for what lies outside."""
    plain = name.removeprefix("./")
    if not below:
        return plain if plain not in ("", ".") else None
    parts = plain.lstrip("/").split("/")
    if plain.startswith("/") or ".." in parts:  # where it would end up isn't told by its beginning
        raise Refused(f"file name {name[:200]!r}: expected a path inside the layer; nothing is taken from there")
    return "/".join(parts[1:]) if parts[0] == below and len(parts) > 1 and parts[1] else None


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, name: str, what: str) -> None:
    target = into / safe(name)
    if target.name == _OPAQUE:
        shutil.rmtree(target.parent, ignore_errors=True)
        return
    if target.name.startswith(_WHITEOUT):
        gone = target.with_name(safe(target.name.removeprefix(_WHITEOUT)))
        shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(missing_ok=True)
        return
    if not member.isreg():
        kind = "symbolic link" if member.issym() else "hard link" if member.islnk() else "device or pipe"
        raise Refused(f"{what}: expected regular files, found the {kind} {name!r}; put the file itself there")
    content = tar.extractfile(member)
    assert content is not None, "a regular file has content"
    if target.is_dir() or any(parent.is_file() for parent in target.parents if parent.is_relative_to(into)):
        raise Refused(f"{what}: {name!r} lies where another file or folder is")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.unlink(missing_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file, CHUNK)

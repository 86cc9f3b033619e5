"""The file of a backup: a tar of regular files whose names are an archive's own, a manifest behind them.

Written for ``tar -t``, but read by nothing that believes a header: POSIX ustar blocks and GNU long names within bounds,
no links, folders, devices, extended headers or sparse files; a name is one of :data:`PLACES` or refused. What was cut
has no manifest at its end.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.tokens import ROLES_SINCE
from governed_serving.decoding import decode_json

__all__ = [
    "CHECKPOINT",
    "END",
    "MANIFEST",
    "PLACES",
    "BadBackup",
    "Manifest",
    "Member",
    "Stored",
    "header",
    "is_backup",
    "members",
    "padding",
]

FORMAT = "governed-backup-1"
MANIFEST = "manifest.json"
CHECKPOINT = "ledger/checkpoint"
CHUNK = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)
_NAME_BYTES = 512
_MANIFEST_BYTES = 256 << 20
_PADDED = "the padding behind a member isn't zeros: it was changed"
_MODEL = r"[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?"
_PURPOSE = r"[a-z][a-z0-9-]{0,62}\.(?:keyset|destroyed)\.json"
PLACES = re.compile(
    rf"ledger/(?:checkpoint|vkey|index-key|witnessed|log/[0-9]{{20}}\.seg)|keys/{_PURPOSE}|keysets/{_MODEL}/{_PURPOSE}"
    rf"|(?:refs|states)/{_MODEL}/[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}|blobs/(?P<two>[0-9a-f]{{2}})/(?P=two)[0-9a-f]{{62}}"
    rf"|{re.escape(MANIFEST)}|{ROLES_SINCE}"
)
"""Names that a member may have: what is derived isn't in a backup, it is made anew."""


class BadBackup(ArchiveError):
    """The file isn't a whole backup as it was written."""


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive other than a blob; ``sha256`` in hex."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last member: which log this is, up to where, and what must have come before. Blobs are named by their own
    SHA-256.

    ``faults``: what was missing or damaged as the backup was taken (the first ones), ``faulty`` how many in all.
    """

    origin: str
    size: int
    checkpoint: str
    time: str
    files: list[Stored]
    blobs: int
    blob_bytes: int
    faults: list[str] = []
    faulty: int = 0
    format: str = FORMAT

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Raises BadBackup."""
        try:
            manifest = decode_json(data, type=cls)
        except msgspec.DecodeError as error:
            raise BadBackup(f"{MANIFEST} of the backup is damaged: {error}") from None
        if manifest.format != FORMAT:
            raise BadBackup(f"expected a {FORMAT}, found a {manifest.format[:40]!r}: use the version that wrote it")
        return manifest


class Member:
    """One file, to be read before the next one is asked for; ``sha256`` (hex) is known once it has been."""

    def __init__(self, name: str, size: int, file: BinaryIO):
        self.name, self.size = name, size
        self.sha256 = ""
        self._file = file

    def chunks(self) -> Iterator[bytes]:
        """Its bytes. Raises BadBackup where the file ends before."""
        left, digest = self.size, hashlib.sha256()
        while left:
            chunk = _read(self._file, min(left, CHUNK), self.name)
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        if any(_read(self._file, -self.size % tarfile.BLOCKSIZE, self.name)):
            raise BadBackup(f"{self.name}: {_PADDED}")
        self.sha256 = digest.hexdigest()

    def content(self, most: int = _MANIFEST_BYTES) -> bytes:
        """All of it, if that isn't more than ``most`` bytes. Raises BadBackup."""
        if self.size > most:
            raise BadBackup(f"{self.name} has {self.size} bytes, expected at most {most}")
        return b"".join(self.chunks())


def header(name: str, size: int) -> bytes:
    """The blocks before a member's bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What fills up a member's last block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def is_backup(path: Path) -> bool:
    """Whether a file begins as a backup does. Raises OSError."""
    with path.open("rb") as file:
        block = file.read(tarfile.BLOCKSIZE)
    return block == header(CHECKPOINT, int(block[124:135], 8)) if re.fullmatch(rb"[0-7]{11}", block[124:135]) else False


def members(file: BinaryIO) -> Iterator[Member]:
    """The members of a backup, each read by the caller before the next; the last one is the manifest.

    Raises BadBackup for anything that a backup of ours doesn't hold. That a name comes once is for the caller to see.
    """
    while True:
        block = _read(file, tarfile.BLOCKSIZE, "a member")
        if not any(block):
            raise BadBackup(
                f"expected {MANIFEST} as the last member, found the end: the backup was cut or put together"
            )
        info = _info(block)
        name = info.name
        if info.type == tarfile.GNUTYPE_LONGNAME:
            if info.size > _NAME_BYTES:
                raise BadBackup(f"a member's name may have at most {_NAME_BYTES} bytes, found {info.size}")
            long = Member("a name", info.size, file).content(_NAME_BYTES)
            name = long.rstrip(b"\0").decode("ascii", "replace")
            info = _info(_read(file, tarfile.BLOCKSIZE, name[:200]))
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or not PLACES.fullmatch(name) or info.linkname:
            raise BadBackup(f"member {name[:200]!r} is no file that a backup of ours holds: nothing was restored")
        member = Member(name, info.size, file)
        yield member
        if not member.sha256:
            raise BadBackup(f"{name} was not read to its end")
        if name == MANIFEST:
            _expect_end(file)
            return


def _expect_end(file: BinaryIO) -> None:
    while block := file.read(CHUNK):
        if any(block):
            raise BadBackup(f"expected the end behind {MANIFEST}, found more: nothing was restored")


def _info(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadBackup(
            f"expected a backup's next member, found other bytes ({error}): it was cut or changed"
        ) from None
    if info.size < 0:  # reading so many bytes would read all there is at once
        raise BadBackup(f"a member says that it has {info.size} bytes: the backup was put together")
    return info


def _read(file: BinaryIO, count: int, name: str) -> bytes:
    """Exactly ``count`` bytes; a pipe may give them in pieces."""
    parts: list[bytes] = []
    while count:
        part = file.read(count)
        if not part:
            raise BadBackup(f"the backup ends within {name}: it was cut; expected {MANIFEST} as its last member")
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)

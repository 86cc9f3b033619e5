"""What of a ledger is in object storage: named by numbered manifests, the highest of which counts.

Below ``_ledger`` of the blobs' place: ``ab/abcdef…``, bytes under the SHA-256 of themselves (pieces of the log's
segments, files, lists of files), and ``manifest/NUMBER``. A manifest is made only where there is none, so of two
archives that write to one place only one makes the next number: the other one stops. It isn't signed itself: what it
names is: the checkpoint by the ledger's key, the log's frames by the archive's, all else by the log's entries.
"""

import re

import msgspec

from governed_serving.archive.backup.members import PLACES, Stored
from governed_serving.archive.errors import Unverified
from governed_serving.archive.store.objects import Bucket, is_address
from governed_serving.decoding import decode_json

__all__ = [
    "FOLDER",
    "PIECE_BYTES",
    "RECOVERED",
    "FileList",
    "Manifest",
    "Piece",
    "manifest_name",
    "newest",
    "numbers",
]

FOLDER = "_ledger"
"""No namespace's name, which the place may end with."""
RECOVERED = "recovered"
"""File of an archive's folder that was filled from there and not opened yet: the next start fills it anew."""
FORMAT = "governed-ledger-copy-1"
PIECE_BYTES = 8 << 20
_MANIFEST_BYTES = 256 << 20
_NUMBER = re.compile(r"manifest/([0-9]{20})")


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes ``start`` … ``end`` − 1 of a segment."""

    start: int
    end: int
    sha256: str


class FileList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files whose place's SHA-256 begins alike: so that one more file is one more short list."""

    files: list[Stored]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``checkpoint``: over the ``size`` entries that ``segments`` hold. ``lists``: addresses of :class:`FileList`."""

    number: int
    writer: str
    time: str
    origin: str
    size: int
    checkpoint: str
    segments: dict[str, list[Piece]]
    lists: list[str]
    format: str = FORMAT

    def addresses(self) -> set[str]:
        """Of the pieces and lists; the lists have those of the files."""
        return {piece.sha256 for pieces in self.segments.values() for piece in pieces} | set(self.lists)


def manifest_name(number: int) -> str:
    return f"manifest/{number:020d}"


def numbers(volume: Bucket) -> list[int]:
    """Of all manifests, ascending. Raises Busy."""
    found = (_NUMBER.fullmatch(name) for name in volume.names("manifest"))
    return sorted(int(match[1]) for match in found if match)


def newest(volume: Bucket) -> Manifest | None:
    """The manifest that counts; None where nothing was ever stored. Raises Busy, Unverified."""
    while known := numbers(volume):
        data = volume.read(manifest_name(known[-1]), _MANIFEST_BYTES)
        if data is not None:  # else it was replaced meanwhile
            return _parsed(data, known[-1], f"{volume.place}: {manifest_name(known[-1])}")
    return None


def _parsed(data: bytes, number: int, where: str) -> Manifest:
    """Raises Unverified for one that names what no archive of ours has."""
    try:
        manifest = decode_json(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise Unverified(f"{where} is damaged: {error}; put the bucket's earlier version of it back") from None
    if manifest.format != FORMAT:
        raise Unverified(
            f"{where}: expected a {FORMAT}, found a {manifest.format[:40]!r}: use the version that wrote it"
        )
    if manifest.number != number:
        raise Unverified(f"{where} says that it is number {manifest.number}: it was copied")
    for name, pieces in manifest.segments.items():
        reached = 0
        for piece in pieces:
            if not (piece.start == reached < piece.end <= reached + PIECE_BYTES and is_address(piece.sha256)):
                raise Unverified(f"{where}: the pieces of {name[:80]!r} don't follow each other: it was put together")
            reached = piece.end
        if not PLACES.fullmatch(f"ledger/log/{name}"):
            raise Unverified(f"{where}: {name[:80]!r} is no segment of a ledger: it was put together")
    if not all(map(is_address, manifest.lists)):
        raise Unverified(f"{where}: its lists have addresses of another form: it was put together")
    return manifest

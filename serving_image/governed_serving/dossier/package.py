"""A dossier as one file that an inspector takes along: a zip with the page, what it was made of, and the ledger's
entries with their proofs.

``index.json`` names every other member with its length and SHA-256, and ``index.note`` is the ledger's signature over
its SHA-256, so that page, rules and report are bound to the key that signs the checkpoint in ``ledger.tar``; a dossier
made of an exported bundle has none, since a bundle has no key. :func:`unpacked` finds damage and what was added or
taken away. Members and their bytes depend on the content alone, not on clock or machine.
"""

import hashlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.decoding import decode_json
from governed_serving.dossier.zip_form import check_ends, check_members
from governed_serving.durable import replacing
from governed_serving.sources.tree import sha256_of

__all__ = [
    "INDEX", "LEDGER", "NOTE", "PAGE", "REPORT", "RULES", "VKEY", "Index", "Listed", "index_digest", "packed",
    "unpacked",
]  # fmt: skip

INDEX, NOTE, PAGE, REPORT, RULES = "index.json", "index.note", "report.html", "governance-report.json", "rules.json"
LEDGER, VKEY, README = "ledger.tar", "vkey", "README.txt"
FORMAT = "governed-dossier-1"
_ALLOWED = frozenset({PAGE, REPORT, RULES, LEDGER, VKEY, README})
_INDEX_BYTES = 64 << 10
_FILE_BYTES = 64 << 20
"""Of each member but the ledger."""
_PACKED = 100
"""Times that a ledger above that is larger than it is packed, at most: digests and ciphertext hardly shrink."""
_PIECE = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError,
    struct.error,
)  # fmt: skip
"""What reading a zip that isn't whole raises."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_WORDS = """Dossier of the model service {model}.

report.html             what a person reads
governance-report.json  what its pods reported, with the ledger's checkpoint at that moment
rules.json              the rules that it served under
ledger.tar              its entries of the ledger, each with a proof, under a checkpoint signed by the key in vkey
index.json              length and SHA-256 of each of these files
index.note              signature of the ledger's key over the SHA-256 of index.json

Check it without a network, with a copy of the verifier key that you had from elsewhere:
  governed verify {file} --key-file VKEY
Without --key-file the signatures are checked by the key in the dossier itself, which proves nothing of who made it.
The signature over index.json proves that these files are as they were made, not that what they say is true: that is
what the entries in the ledger are for.
"""


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member: ``bytes`` long."""

    name: str
    bytes: int
    sha256: str


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``size``, ``root``: of the ledger under the checkpoint, root in hexadecimal."""

    model: str
    origin: str
    size: int
    root: str
    files: list[Listed]
    format: str = FORMAT


def packed(target: Path, model: str, note: str, files: Mapping[str, Path], sign: Callable[[str], str]) -> None:
    """Write ``files`` (member → file) with their index. ``note``: of the checkpoint; ``sign``: makes the note over the
    index's SHA-256, "" where nobody can. Raises OSError, and what ``sign`` raises."""
    checkpoint = Checkpoint.unverified(note)
    words = _WORDS.format(model=model, file=target.name).encode()
    listed = [Listed(README, len(words), hashlib.sha256(words).hexdigest())]
    listed += [Listed(name, *sha256_of(path)) for name, path in files.items()]
    index = Index(
        model, checkpoint.origin, checkpoint.size, checkpoint.root.hex(), sorted(listed, key=lambda one: one.name)
    )
    data = msgspec.json.format(msgspec.json.encode(index), indent=1)
    signed = sign(hashlib.sha256(data).hexdigest())
    with replacing(target, mode=0o600) as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, INDEX, data)
        if signed:
            _add(archive, NOTE, signed.encode())
        _add(archive, README, words)
        for name in sorted(files):
            with files[name].open("rb") as source, archive.open(_member(name), "w", force_zip64=True) as member:
                while piece := source.read(_PIECE):
                    member.write(piece)


def index_digest(folder: Path) -> str:
    """SHA-256 of the index that :func:`unpacked` has put there."""
    return hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EARLIEST)
    member.compress_type, member.external_attr, member.create_system = zipfile.ZIP_DEFLATED, 0o444 << 16, 3
    return member


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(_member(name), data)


def unpacked(path: Path, folder: Path) -> Index:
    """Put the members into ``folder`` once each is what the index says, and the index with its signature, which isn't
    looked at. Raises Unverified, ArchiveError, OSError."""
    check_ends(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(path, archive)
            index = _index(path, archive, archive.namelist(), folder)
            for one in index.files:
                _take(path, archive, one, folder / one.name)
    except _DAMAGE as error:
        raise Unverified(f"{path}: no whole dossier: {error}") from None
    return index


def _index(path: Path, archive: zipfile.ZipFile, names: list[str], folder: Path) -> Index:
    if len(set(names)) != len(names) or names.count(INDEX) != 1:
        raise Unverified(f"{path}: expected {INDEX} and each other member once")
    for name in (INDEX, NOTE) if NOTE in names else (INDEX,):
        with archive.open(name) as member:
            (folder / name).write_bytes(member.read(_INDEX_BYTES + 1))
        if (folder / name).stat().st_size > _INDEX_BYTES:
            raise Unverified(f"{path}: {name}: expected at most {_INDEX_BYTES} bytes")
    data = (folder / INDEX).read_bytes()
    try:
        index = decode_json(data, type=Index)
    except msgspec.DecodeError as error:
        raise Unverified(f"{path}: {INDEX}: {error}") from None
    listed = [one.name for one in index.files]
    if index.format != FORMAT:
        raise ArchiveError(f"{path}: expected the format {FORMAT}, found {index.format[:64]}")
    if (
        sorted({INDEX, *listed}) != sorted({*names} - {NOTE})
        or len(set(listed)) != len(listed)
        or not set(listed) <= _ALLOWED
    ):
        raise Unverified(f"{path}: its members aren't those that {INDEX} names")
    if not {LEDGER, PAGE, VKEY} <= set(listed):
        raise Unverified(f"{path}: expected {LEDGER}, {PAGE} and {VKEY} in it")
    return index


def _take(path: Path, archive: zipfile.ZipFile, one: Listed, target: Path) -> None:
    if one.name != LEDGER and one.bytes > _FILE_BYTES:
        raise Unverified(f"{path}: {one.name}: expected at most {_FILE_BYTES >> 20} MiB")
    packed_bytes = archive.getinfo(one.name).compress_size
    if one.bytes > max(_FILE_BYTES, _PACKED * packed_bytes):
        raise Unverified(f"{path}: {one.name}: expected at most {_PACKED} times its {packed_bytes} packed bytes")
    if one.bytes > (free := shutil.disk_usage(target.parent).free):
        raise OSError(
            f"{target.parent}: {one.name} has {one.bytes} bytes, {free} are free: set TMPDIR to a larger disk"
        )
    digest, length = hashlib.sha256(), 0
    with archive.open(one.name) as member, target.open("xb") as file:
        while piece := member.read(_PIECE):
            length += len(piece)
            if length > one.bytes:
                break
            digest.update(piece)
            file.write(piece)
    if length != one.bytes or digest.hexdigest() != one.sha256:
        raise Unverified(f"{path}: {one.name} isn't what {INDEX} says: it was changed or damaged")

"""From what a person names (a folder, a bundle, a URL, key files) to a source that can be verified."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from governed_api import runtime
from governed_api.regular_files import read_regular
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.service import KEYSET
from governed_serving.archive.verify.beside import Beside
from governed_serving.archive.verify.sources import BundleSource, DirectorySource, LogSource, UrlSource
from governed_serving.crypto import CryptoError, Kek, load_kek
from governed_serving.crypto.document import KeysetDocument
from governed_serving.crypto.kek import KEK_BYTES
from governed_serving.decoding import decode_json
from governed_serving.durable import is_regular
from governed_serving.environment import PodEnvironment

__all__ = ["beside_workdir", "folder_kek", "noted_checkpoint", "open_source", "trusted_vkey"]

_NOTE_BYTES = 4 << 20
"""A report may have more in it than the checkpoint."""
_KEY_BYTES = 4096
"""No key file is as long."""


def open_source(
    where: str, key_files: Sequence[Path], token_file: Path | None = None, model: str = ""
) -> tuple[LogSource, str]:
    """(source, verifier key to trust or ""). ``key_files``: a vkey (text) and/or the archive's key-encryption key (32
    bytes).

    Raises ArchiveError, CryptoError, OSError, InvalidSettings (no key file given and none in the environment).
    """
    vkey = trusted_vkey(key_files)
    if "://" in where:
        token = token_file.read_text() if token_file else PodEnvironment().token()
        return UrlSource(ArchiveClient(where, token, model, patience=10.0)), vkey
    path = Path(where)
    if path.is_dir():
        return DirectorySource(path, folder_kek(key_files)), vkey
    if not path.exists():
        raise ArchiveError(f"{path}: no such archive folder or bundle")
    return BundleSource(path), vkey


def trusted_vkey(key_files: Sequence[Path]) -> str:
    """The verifier key among the key files, or ""."""
    return next((path.read_text().strip() for path in key_files if _is_vkey(path)), "")


def folder_kek(key_files: Sequence[Path]) -> Kek:
    """The archive's key-encryption key: among the key files, or the environment's. Raises CryptoError,
    InvalidSettings."""
    keks = [path for path in key_files if not _is_vkey(path)]
    what = "the archive's key-encryption key, or --key-file"
    return load_kek(keks[0] if keks else PodEnvironment().required_path(runtime.KEK_FILE, what))


def beside_workdir(workdir: Path, archive: Path) -> Beside:
    """What a local run keeps beside its archive: spools, reports and the models' keys."""
    volumes = workdir / "volumes"
    spools = {p.relative_to(workdir).as_posix(): p for p in sorted(volumes.glob("*/spool"))}
    reports = {p.relative_to(workdir).as_posix(): p for p in sorted((workdir / "reports").glob("*.json"))}
    places = {archive.resolve(), *(p.parent.resolve() for p in spools.values())}
    others = sorted(p for p in volumes.iterdir() if p.resolve() not in places)
    elsewhere = ("secrets", *(p.relative_to(workdir).as_posix() for p in others))
    return Beside(spools, reports, _keks(workdir / "secrets", archive / "keysets"), whole=True, elsewhere=elsewhere)


def _keks(secrets: Path, keysets: Path) -> dict[str, Kek]:
    """By model: of the keys here, the one that its keysets name."""
    files = [p for p in sorted(secrets.glob("*/*")) if is_regular(p) and p.stat().st_size == KEK_BYTES]
    by_id = {kek.id: kek for kek in map(load_kek, files)}
    by_model: dict[str, Kek] = {}
    for path in sorted(keysets.glob(f"*/*{KEYSET}")):
        try:
            named = KeysetDocument.parse(read_regular(path), path.name.removesuffix(KEYSET)).kek
        except (CryptoError, OSError):
            continue  # a finding of the keyset's
        if named in by_id:
            by_model.setdefault(path.parent.name, by_id[named])
    return by_model


def noted_checkpoint(path: Path) -> str:
    """A checkpoint as it was kept: the signed note itself, or a GovernanceReport (JSON) that holds it."""
    with path.open("rb") as file:
        data = file.read(_NOTE_BYTES + 1)
    what = f"{path}: expected a checkpoint, an anchor or a GovernanceReport (JSON)"
    if len(data) > _NOTE_BYTES:
        raise Unverified(f"{what}, found more than {_NOTE_BYTES} bytes")
    try:
        text = data.decode()
        if not text.lstrip().startswith("{"):
            return text
        report = decode_json(data, type=_Report)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Unverified(f"{what}: {error}") from None
    note = (report.status or report).archive.checkpoint
    if not note:
        raise Unverified(f"{path}: the report holds no status.archive.checkpoint")
    return note


class _Archive(msgspec.Struct):
    checkpoint: str = ""


class _Status(msgspec.Struct):
    archive: _Archive = msgspec.field(default_factory=_Archive)


class _Report(_Status):
    """A GovernanceReport, or its status alone."""

    status: _Status | None = None


def _is_vkey(path: Path) -> bool:
    with path.open("rb") as file:
        data = file.read(_KEY_BYTES)
    return len(data) not in (KEK_BYTES, _KEY_BYTES) and b"+" in data and data.isascii()

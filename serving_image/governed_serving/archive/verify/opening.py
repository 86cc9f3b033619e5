"""From what a person names (a folder, a bundle, a URL, key files) to a source that can be verified."""

from collections.abc import Sequence
from pathlib import Path

from governed_api import runtime
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.verify.sources import BundleSource, DirectorySource, LogSource, UrlSource
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.environment import PodEnvironment

__all__ = ["noted_checkpoint", "open_source"]


def open_source(
    where: str, key_files: Sequence[Path], token_file: Path | None = None, model: str = ""
) -> tuple[LogSource, str]:
    """(source, verifier key to trust or ""). ``key_files``: a vkey (text) and/or the archive's key-encryption key (32
    bytes).

    Raises ArchiveError, CryptoError, OSError, InvalidSettings (no key file given and none in the environment).
    """
    vkeys = [path.read_text().strip() for path in key_files if _is_vkey(path)]
    keks = [path for path in key_files if not _is_vkey(path)]
    vkey = vkeys[0] if vkeys else ""
    if "://" in where:
        token = token_file.read_text() if token_file else PodEnvironment().token()
        return UrlSource(ArchiveClient(where, token, model, patience=10.0)), vkey
    path = Path(where)
    if path.is_dir():
        return DirectorySource(path, load_kek(keks[0] if keks else _own_kek())), vkey
    if not path.exists():
        raise ArchiveError(f"{path}: no such archive folder or bundle")
    return BundleSource(path), vkey


def _own_kek() -> Path:
    return PodEnvironment().required_path(runtime.KEK_FILE, "the archive's key-encryption key, or --key-file")


def noted_checkpoint(path: Path) -> str:
    """A checkpoint as it was kept: the signed note itself, or a GovernanceReport (JSON) that holds it."""
    text = path.read_text()
    if not text.lstrip().startswith("{"):
        return text
    document = decode_json(text)
    note = document.get("status", document).get("archive", {}).get("checkpoint", "")
    if not note:
        raise Unverified(f"{path}: the report holds no status.archive.checkpoint")
    return str(note)


def _is_vkey(path: Path) -> bool:
    data = path.read_bytes()
    return len(data) != 32 and b"+" in data and data.isascii()

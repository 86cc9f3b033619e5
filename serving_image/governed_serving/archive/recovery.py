"""An archive over an empty volume starts from what object storage has of its ledger.

What comes from there is verified as a backup is, in a place beside, before it is put in place; then the archive holds
it against the checkpoint in the GovernanceReport and those that witnesses keep, and refuses to go on from less. Until
it has, the folder is marked, and the next start fills it anew.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec

from governed_api import runtime
from governed_serving.archive.backup.members import CHECKPOINT, PLACES
from governed_serving.archive.backup.members import Manifest as Restorable
from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.mirror.manifest import FOLDER, RECOVERED, FileList, Manifest, newest
from governed_serving.archive.restore import LEFT, Request, Restored, put_in
from governed_serving.archive.service import ledger_origin, only_one
from governed_serving.archive.store.objects import Bucket, LedgerCopy, bucket_from_environment
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.durable import open_new
from governed_serving.environment import PodEnvironment
from governed_serving.hosting import log

__all__ = ["recover"]

_FILE_BYTES = 64 << 20
_LIST_BYTES = 16 << 20


def recover(variables: Mapping[str, str] = os.environ) -> Restored | None:
    """Fill the folder that the environment names, if it is empty and the storage that it names has a ledger; None
    where there was nothing to do. Raises ArchiveError, CryptoError, InvalidSettings, OSError: the folder is empty
    then."""
    env = PodEnvironment(variables)
    bucket = bucket_from_environment(env)
    folder = env.required_path(runtime.ARCHIVE_DIR, "the archive's folder")
    if bucket is None or bucket.place.ledger is LedgerCopy.VOLUME or not _is_empty(folder):
        return None
    volume = bucket.below(FOLDER)
    backup = newest(volume)
    if backup is None:
        return None
    origin = ledger_origin(env.text(runtime.NAMESPACE, "default"))
    if backup.origin != origin:
        raise ArchiveError(
            f"{volume.place} has the ledger of {backup.origin}, this archive is {origin}: give each a place of its own"
        )
    kek = load_kek(env.required_path(runtime.KEK_FILE, "the path of the archive's key-encryption key"))
    log(
        "warning",
        "the volume is empty: starting from object storage",
        entries=backup.size,
        stored=backup.time,
    )
    done = put_in(
        Request(folder, kek, bucket=bucket), lambda staging, _: _fill(volume, backup, staging), mark=RECOVERED
    )
    log("info", "the ledger came back from object storage and is verified", entries=done.size)
    return done


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing, or only what an earlier recovery left that no archive was opened over; it goes."""
    if not folder.is_dir():
        return True
    if not (folder / RECOVERED).exists():
        return all(path.name in LEFT or path.name.startswith(".restoring-") for path in folder.iterdir())
    guard = only_one(folder)
    try:
        for path in folder.iterdir():
            if path.name in (*LEFT, RECOVERED):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (folder / RECOVERED).unlink()
    finally:
        os.close(guard)
    return True


def _fill(volume: Bucket, manifest: Manifest, staging: Path) -> Restorable:
    """Raises Unverified, ArchiveError, OSError."""
    for name, pieces in manifest.segments.items():
        with _made(staging / "ledger" / "log" / name) as file:
            for piece in pieces:
                _fetch(volume, piece.sha256, piece.end - piece.start, file, f"a piece of ledger/log/{name}")
    for address in manifest.lists:
        for stored in _listed(volume, address).files:
            blob_or_log = stored.path.startswith(("blobs/", "ledger/log/")) or stored.path == CHECKPOINT
            if blob_or_log or not PLACES.fullmatch(stored.path) or not 0 <= stored.bytes <= _FILE_BYTES:
                raise Unverified(f"{volume.place}: {stored.path[:200]!r} is no file that a copy of ours has")
            with _made(staging / stored.path) as file:
                _fetch(volume, stored.sha256, stored.bytes, file, stored.path)
    with _made(staging / CHECKPOINT) as file:
        file.write(manifest.checkpoint.encode())
    return Restorable(manifest.origin, manifest.size, manifest.checkpoint, manifest.time, [], 0, 0)


def _made(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return open_new(path)
    except FileExistsError:
        raise Unverified(f"{path.name} comes twice in what was stored: it was put together") from None


def _listed(volume: Bucket, address: str) -> FileList:
    data = volume.read(f"{address[:2]}/{address}", _LIST_BYTES)
    if data is None or hashlib.sha256(data).hexdigest() != address:
        raise _lost(volume, address, "a list of files", "it was changed" if data else "it is missing")
    try:
        return decode_json(data, type=FileList)
    except msgspec.DecodeError as error:
        raise _lost(volume, address, "a list of files", str(error)) from None


def _fetch(volume: Bucket, address: str, size: int, into: IO[bytes], what: str) -> None:
    held = volume.size(address)
    if held != size:
        raise _lost(volume, address, what, "it is missing" if held is None else f"{size} bytes expected, {held} there")
    try:
        volume.fetch(address, into, room=size)
    except FileNotFoundError:
        raise _lost(volume, address, what, "it is missing") from None


def _lost(volume: Bucket, address: str, what: str, why: str) -> Unverified:
    return Unverified(
        f"{volume.place}: object {address} ({what}): {why}; put the bucket's earlier version of it back, or restore a "
        "backup into the volume"
    )

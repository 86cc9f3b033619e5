"""A backup back into a folder: read into a place beside, opened, verified as a whole, and only then put in place.

What came back is what left: every file has the digest that the manifest says, every blob that of its name, and the
archive made of them verifies, signatures, tree, names and keysets included. Payloads that the ledger says were deleted
stay deleted although the backup has them.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from governed_serving.archive.backup.members import CHECKPOINT, MANIFEST, BadBackup, Manifest, Member, Stored, members
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.service import ANCHOR, ERASURE, KEYSET, Archive, only_one, subject_of
from governed_serving.archive.store.objects import Bucket
from governed_serving.archive.store.retention import Receipts
from governed_serving.archive.tokens import ROLES_SINCE
from governed_serving.archive.verify.findings import Finding
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.verification import verify
from governed_serving.archive.verify.witnesses import WitnessRule
from governed_serving.crypto import SUBJECT, Kek
from governed_serving.decoding import decode_with
from governed_serving.durable import fsync_folder, open_new, replace_file, write_new
from governed_serving.records import LedgerEntry

__all__ = ["LEFT", "Fill", "Request", "Restored", "checked", "erased_list", "put_in", "restore"]

_STAGING = ".restoring-"
LEFT = ("lost+found", ".lock")
"""What an empty folder may have."""
_LAST = (ANCHOR, "ledger")
"""Put in place behind all else: an archive that is started over half of it finds no ledger, and doesn't begin one."""
_TOLD = 5
_SLICE = 1000
_ALL = 2**62
_LIST_BYTES = 16 << 20
_SUBJECT = re.compile(rb"[0-9a-f]{32}")
_decoder = msgspec.json.Decoder(LedgerEntry)


@dataclass(frozen=True)
class Request:
    """``folder``: where to. ``vkey``: the key that must have signed, or "". ``told``: notes of this log's checkpoints
    that were kept elsewhere, by their place. ``accept_loss``: what is older or lacks something is taken all the
    same."""

    folder: Path
    kek: Kek
    vkey: str = ""
    told: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    after: Sequence[LogSource] = ()
    """Newer copies of the same log: persons who were erased since the backup was taken are erased again."""
    accept_loss: bool = False
    erased: frozenset[str] = frozenset()
    """Digests of persons who were erased since the backup was taken, by a list of the caller's."""
    accept_return: bool = False
    """Persons who were erased since may come back: an entry says how many keys the backup has."""
    witnesses: WitnessRule = field(default_factory=WitnessRule)
    """Who must have cosigned what the backup holds."""
    bucket: Bucket | None = None
    """Where the blobs are; they aren't looked at then."""


class Restored(msgspec.Struct):
    """``deleted``: payloads of the backup that the ledger says were deleted; ``erased``: likewise keys of persons;
    ``accepted``: what was let go."""

    size: int
    blobs: int
    deleted: int
    erased: int
    accepted: list[Finding]


Fill = Callable[[Path, list[str]], Manifest]
"""Puts what was kept into a folder: what isn't what its name says is told in the list. Raises ArchiveError, OSError."""


def checked(path: Path) -> Manifest:
    """The manifest of a backup that is whole: every member has its digest. Raises BadBackup, OSError."""
    with path.open("rb") as file:
        return _extract(file, None, [])


def erased_list(path: Path) -> frozenset[str]:
    """Digests of persons, a line each, behind which `subject erase` says more. Raises ArchiveError, OSError."""
    with path.open("rb") as file:
        data = file.read(_LIST_BYTES + 1)
    words = [line.split(b":")[0].strip() for line in data.splitlines() if line.strip()]
    bad = next((word for word in words if not _SUBJECT.fullmatch(word)), None)
    if bad is not None or not words or len(data) > _LIST_BYTES:
        shown = "no line" if not words else f"{(bad or words[0])[:80]!r}"
        raise ArchiveError(
            f"{path}: expected the digests (32 hexadecimal digits) that `governed subject erase` printed, a line each, "
            f"at most {_LIST_BYTES} bytes, found {shown}"
        )
    return frozenset(word.decode() for word in words)


def restore(file: BinaryIO, request: Request) -> Restored:
    """Raises ArchiveError, CryptoError, NoteError, OSError: then the folder is as empty as it was."""
    return put_in(request, lambda staging, damaged: _extract(file, staging, damaged))


def put_in(request: Request, fill: Fill, mark: str = "") -> Restored:
    """Like :func:`restore`, of what ``fill`` brings. ``mark``: a file that lies in the folder before anything else
    does."""
    folder = request.folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    guard = only_one(folder)
    staging = folder / f"{_STAGING}{secrets.token_hex(4)}"
    try:
        _refuse_full(folder)
        staging.mkdir(mode=0o700)
        done = _restored(fill, staging, request)
        if mark:
            replace_file(folder / mark, b"")
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(guard)
    return done


def _refuse_full(folder: Path) -> None:
    """What an earlier one that was killed left goes; anything else stays where it is."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_STAGING) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in LEFT:
            raise ArchiveError(
                f"{folder} isn't empty (it has {path.name}): move what is there away, restore, and give what it signed "
                f"as --checkpoint MOVED/{ANCHOR}, so that an older backup is noticed"
            )


def _restored(fill: Fill, staging: Path, request: Request) -> Restored:
    damaged: list[str] = []
    manifest = fill(staging, damaged)
    if damaged and not request.accept_loss:
        raise BadBackup(f"{damaged[0]}: it was changed or swapped; nothing was restored")
    _refuse_older(manifest, request)
    gone = _erased_since(staging, manifest, request)
    with closing(_opened(staging, manifest, request, _returning(staging, manifest, request, gone))) as archive:
        deleted = _delete_again(archive)
        gone |= _erasures(_entries(archive))
        erased = sum(archive.erase_again(*key) for key in sorted(gone))
    (staging / ".lock").unlink()
    if not (staging / ROLES_SINCE).exists():  # of before: nobody's older token is taken for longer than without a loss
        write_new(staging / ROLES_SINCE, manifest.time.encode())
    accepted = [Finding(place, f"signed {size} entries, the backup has {manifest.size}")
                for place, size in _newer(manifest, request).items()]  # fmt: skip
    accepted += [Finding("backup", fault) for fault in manifest.faults]
    blobs = request.bucket is None
    asked = Asked(request.vkey, _earlier(manifest, request), blobs=blobs, witnesses=request.witnesses)
    inspection = inspect_folder(staging, request.kek, asked)
    problems = [*inspection.findings.wrong, *inspection.findings.unchecked]
    if problems and not request.accept_loss:
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        raise ArchiveError(
            f"nothing was restored, what was kept doesn't verify: {'; '.join(map(str, problems[:_TOLD]))}{more}. Take "
            "an older backup, or go on with what there is: --accept-loss"
        )
    return Restored(manifest.size, manifest.blobs - deleted, deleted, erased, [*accepted, *problems])


def _opened(staging: Path, manifest: Manifest, request: Request, let_go: Mapping[str, object]) -> Archive:
    namespace = manifest.origin.rpartition("/")[2]
    told = dict(request.told) if request.accept_loss else {}
    return Archive(
        staging,
        request.kek,
        namespace,
        told=told,
        accept_loss=request.accept_loss,
        let_go=let_go,
        bucket=request.bucket,
    )


def _newer(manifest: Manifest, request: Request) -> dict[str, int]:
    """Sizes of checkpoints that were signed of more than the backup has, by their place."""
    sizes = {place: Checkpoint.unverified(note).size for place, note in request.told.items()}
    return {place: size for place, size in sizes.items() if size > manifest.size}


def _earlier(manifest: Manifest, request: Request) -> tuple[str, ...]:
    newer = _newer(manifest, request)
    return (manifest.checkpoint, *(note for place, note in request.told.items() if place not in newer))


def _refuse_older(manifest: Manifest, request: Request) -> None:
    if request.accept_loss:
        return
    for place, size in _newer(manifest, request).items():
        raise ArchiveError(
            f"nothing was restored: {place} signed {size} entries, the backup has {manifest.size}. Take a newer one; "
            "to let what is behind it go, which an entry will say for ever: --accept-loss"
        )


def _delete_again(archive: Archive) -> int:
    """Retention reaches backups: what a receipt in the ledger lists goes, and may not come again."""
    count = 0
    for entry in _entries(archive):
        for digest in Receipts.addresses(entry):
            count += archive.blobs.size(digest) is not None
            archive.blobs.expire(digest)
    return count


def _erased_since(staging: Path, manifest: Manifest, request: Request) -> set[tuple[str, str]]:
    """(model, purpose) of the keys that newer copies of the ledger, or the caller's list, say were destroyed. Raises
    ArchiveError for a copy that doesn't go on from the backup."""
    for source in request.after:
        verify(source, earlier=(manifest.checkpoint,), blobs=False)
    told = _erasures(decode_with(_decoder, leaf.data) for source in request.after for leaf in source.leaves(_ALL))
    return told | {key for key in _persons_keys(staging) if subject_of(key[1]) in request.erased}


def _erasures(entries: Iterable[LedgerEntry]) -> set[tuple[str, str]]:
    return {(entry.model, str(entry.summary.get("purpose"))) for entry in entries if entry.type == ERASURE}


def _persons_keys(staging: Path) -> set[tuple[str, str]]:
    """(model, purpose) of the persons' keys that the backup has."""
    keysets = (staging / "keysets").glob(f"*/{SUBJECT}*{KEYSET}")
    keys = {(path.parent.name, path.name.removesuffix(KEYSET)) for path in keysets}
    return {(model, purpose) for model, purpose in keys if subject_of(purpose)}


def _returning(staging: Path, manifest: Manifest, request: Request, gone: set[tuple[str, str]]) -> Mapping[str, object]:
    """What the entry about the loss says of persons' keys. Raises ArchiveError where somebody may come back unsaid."""
    newer = max(_newer(manifest, request).values(), default=0)
    newest = max((Checkpoint.unverified(source.checkpoint()).size for source in request.after), default=0)
    keys = _persons_keys(staging)
    if newer <= newest or not keys:
        return {}
    if not (request.erased or request.accept_return):
        since = f"entries {max(newest, manifest.size)} to {newer - 1}"
        raise ArchiveError(
            f"nothing was restored: the backup has {len(keys)} keys of persons; {since}, which it lacks, may say that "
            "some were erased. Give a newer copy of the ledger (--after), a list of who was erased (--erased FILE), or "
            "let them come back, which an entry will say (--accept-return)"
        )
    return {"personsKeys": len(keys - gone), "erasedAgain": len(keys & gone)}


def _entries(archive: Archive) -> Iterator[LedgerEntry]:
    for start in range(0, archive.ledger.size, _SLICE):
        for leaf in archive.ledger.entries(start, start + _SLICE):
            yield decode_with(_decoder, leaf)


def _put_in_place(staging: Path, folder: Path) -> None:
    os.sync()  # once, instead of once for each of what may be millions of blobs
    names = sorted(os.listdir(staging), key=lambda name: (_LAST.index(name) + 1 if name in _LAST else 0, name))
    for name in names:
        (staging / name).rename(folder / name)
    fsync_folder(folder)


def _extract(file: BinaryIO, into: Path | None, damaged: list[str]) -> Manifest:
    """Read all of a backup, into a folder or nowhere; blobs that aren't what their name says are told in ``damaged``
    and left out. Raises BadBackup, OSError."""
    seen: dict[str, Stored] = {}
    blobs = blob_bytes = 0
    last, manifest = "", None
    for member in members(file):
        if member.name == MANIFEST:
            manifest = Manifest.parse(member.content())
            continue
        blob = member.name.startswith("blobs/")
        if member.name in seen or (blob and member.name <= last):
            raise BadBackup(f"{member.name} comes twice, or not in order: the backup was put together")
        _copy(member, into)
        if not blob:
            seen[member.name] = Stored(member.name, member.size, member.sha256)
            continue
        last = member.name
        blobs, blob_bytes = blobs + 1, blob_bytes + member.size
        if member.sha256 != member.name[-64:]:
            damaged.append(f"{member.name} has SHA-256 {member.sha256}")
            if into is not None:
                (into / member.name).unlink()
    assert manifest is not None  # the last member, or members() raised
    _hold_against(manifest, seen, blobs, blob_bytes)
    return manifest


def _copy(member: Member, into: Path | None) -> None:
    if into is None:
        for _ in member.chunks():
            pass
        return
    path = into / member.name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_new(path) as target:
        for chunk in member.chunks():
            target.write(chunk)


def _hold_against(manifest: Manifest, seen: Mapping[str, Stored], blobs: int, blob_bytes: int) -> None:
    """Raises BadBackup for what differs from the manifest."""
    wanted = {stored.path: stored for stored in manifest.files}
    for path in sorted(wanted.keys() | seen.keys()):
        if wanted.get(path) != seen.get(path):
            what = (
                "is missing" if path not in seen else "isn't in the manifest" if path not in wanted else "was changed"
            )
            raise BadBackup(f"{path} of the backup {what}: nothing was restored")
    if (blobs, blob_bytes) != (manifest.blobs, manifest.blob_bytes):
        raise BadBackup(
            f"the backup has {blobs} blobs ({blob_bytes} bytes), its manifest says {manifest.blobs} "
            f"({manifest.blob_bytes}): it was put together"
        )
    note = seen.get(CHECKPOINT)
    if note is None or note.sha256 != hashlib.sha256(manifest.checkpoint.encode()).hexdigest():
        raise BadBackup(f"{CHECKPOINT} isn't the checkpoint that the manifest names: the backup was put together")

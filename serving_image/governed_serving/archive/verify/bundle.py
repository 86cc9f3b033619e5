"""Export: a self-contained tar that anyone can verify with nothing but this package's ``verify`` (or RFC 6962 and
Ed25519).

``bundle.json``, ``vkey``, ``checkpoint``, ``entries.jsonl`` (canonical JSON, one a line), ``proofs.json`` (inclusion
proofs, when only some entries were chosen), ``consistency.json`` (consistency proofs from earlier checkpoints),
``witnessed`` (the newest checkpoint that witnesses cosigned, if any), ``blobs/<sha256>`` (ciphertext, when asked for).
"""

import io
import tarfile
from pathlib import Path
from typing import Literal

import msgspec

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.merkle import (
    Frontier,
    NodeReader,
    consistency_proof,
    hash_children,
    hash_leaf,
    inclusion_proof,
)
from governed_serving.archive.ledger.note import Checkpoint, Verifier, open_checkpoint
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.store.retention import Receipts
from governed_serving.archive.verify.sources import CONSISTENCY, MISSING, Leaf, LogSource
from governed_serving.decoding import decode_with
from governed_serving.durable import replacing
from governed_serving.records import LedgerEntry

__all__ = ["export"]

_decoder = msgspec.json.Decoder(LedgerEntry)


def export(
    source: LogSource,
    target: Path,
    *,
    model: str = "",
    id: str = "",
    blobs: bool = False,
    earlier: tuple[str, ...] = (),
) -> tuple[int, int]:
    """Write the bundle; (entries, blobs) that are in it. ``model`` and ``id`` choose entries, each with its proof then;
    the receipts for blobs of theirs that were deleted go along. ``earlier``: checkpoints kept elsewhere, for each of
    which the bundle then carries a proof that the log extends it (RFC 9162 §2.1.4).

    Raises ArchiveError when nothing matches, and before anything is written when the source isn't what was signed.
    """
    if not source.complete:
        raise ArchiveError("a bundle can be made of an archive or a complete bundle, not of a part")
    witnessed = source.witnessed()  # before the checkpoint, which goes on from it
    note = source.checkpoint()
    checkpoint = open_checkpoint(note, Verifier.parse(source.vkey()))
    sizes = _sizes((*earlier, witnessed) if witnessed else earlier, checkpoint)
    hashes: list[bytes] = []
    chosen: list[Leaf] = []
    addresses: dict[str, None] = {}
    receipts: list[tuple[Leaf, set[str]]] = []
    tree = Frontier()
    for leaf in source.leaves(checkpoint.size):
        hashes.append(hash_leaf(leaf.data))
        tree.append(hashes[-1])
        entry = decode_with(_decoder, leaf.data)
        if model in ("", entry.model) and id in ("", entry.id):
            chosen.append(leaf)
            addresses |= {entry.blob: None} if entry.blob else {}
        if covered := set(Receipts.addresses(entry)):
            receipts.append((leaf, covered))
    if tree.root() != checkpoint.root:
        raise ArchiveError("the entries don't have the signed root: run verify, it names the entry that differs")
    if not chosen:
        raise ArchiveError(f"no entry of model {model or 'any'} with id {id or 'any'}")
    complete = not (model or id)
    deleted = {d for _, covered in receipts for d in covered & addresses.keys() if source.blob(d) == MISSING}
    indices = {leaf.index for leaf in chosen}
    chosen += [leaf for leaf, covered in receipts if covered & deleted and leaf.index not in indices]
    kept = [d for d in addresses if d not in deleted] if blobs else []
    about = {"format": "governed-bundle-1", "origin": checkpoint.origin, "size": checkpoint.size, "complete": complete}
    members = {
        "bundle.json": msgspec.json.encode({**about, "entries": len(chosen), "blobs": blobs}),
        "vkey": source.vkey().encode(),
        "checkpoint": note.encode(),
        "entries.jsonl": b"".join(leaf.data + b"\n" for leaf in chosen),
    }
    if witnessed:
        members[WITNESSED] = witnessed.encode()
    if not complete:
        members["proofs.json"] = _proofs(hashes, chosen)
    if sizes:
        members[CONSISTENCY] = _consistency(hashes, sizes)
    _write(source, target, members, kept)
    return len(chosen), len(kept)


def _sizes(earlier: tuple[str, ...], now: Checkpoint) -> list[int]:
    """Entries that earlier checkpoints signed, without those of an empty log. Raises ArchiveError, NoteError."""
    sizes = sorted({Checkpoint.unverified(note).size for note in earlier} - {0})
    if sizes and sizes[-1] > now.size:
        raise ArchiveError(
            f"an earlier checkpoint signed {sizes[-1]} entries, the log now has {now.size}: its tail was cut"
        )
    return sizes


def _consistency(hashes: list[bytes], sizes: list[int]) -> bytes:
    node = _nodes(hashes)
    return msgspec.json.encode({n: [h.hex() for h in consistency_proof(node, n, len(hashes))] for n in sizes})


def _nodes(hashes: list[bytes]) -> NodeReader:
    """Complete nodes over leaf hashes."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        row = levels[-1]
        levels.append([hash_children(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])

    def node(height: int, index: int) -> bytes:
        return levels[height][index]

    return node


def _proofs(hashes: list[bytes], chosen: list[Leaf]) -> bytes:
    node = _nodes(hashes)
    proofs = [
        {"index": leaf.index, "hashes": [h.hex() for h in inclusion_proof(node, leaf.index, len(hashes))]}
        for leaf in chosen
    ]
    return msgspec.json.encode(proofs)


def _write(source: LogSource, target: Path, members: dict[str, bytes], blobs: list[str]) -> None:
    kind: Literal["w:gz", "w"] = "w:gz" if target.name.endswith("gz") else "w"
    with replacing(target, mode=0o644) as file, tarfile.open(fileobj=file, mode=kind) as tar:
        for name, data in members.items():
            _add(tar, name, data)
        for digest in blobs:
            _add(tar, f"blobs/{digest}", source.blob_bytes(digest))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444
    tar.addfile(member, io.BytesIO(data))

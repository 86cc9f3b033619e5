"""A receipt, checked offline: that an answer's entry is in a log that a key signed and witnesses cosigned."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from governed_api.printable import printable
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.merkle import hash_leaf, verify_inclusion
from governed_serving.archive.ledger.note import Checkpoint, Verifier, open_checkpoint, split_note
from governed_serving.archive.ledger.proof import HEAD, MOST_BYTES, LogProof
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.witnesses import WitnessRule, check_witnesses
from governed_serving.decoding import decode_json
from governed_serving.records import LedgerEntry, canonical

__all__ = ["Receipt", "check_receipt", "is_receipt", "read_receipt"]


@dataclass(frozen=True)
class Receipt:
    """The proof, what its entry says, and the checkpoint, whose signature isn't checked yet."""

    proof: LogProof
    entry: LedgerEntry
    checkpoint: Checkpoint


def is_receipt(path: Path) -> bool:
    """Whether a file begins as a proof does."""
    with path.open("rb") as file:
        return file.read(len(HEAD) + 1) == f"{HEAD}\n".encode()


def read_receipt(path: Path) -> Receipt:
    """Raises ArchiveError, NoteError, ProofError, OSError: also where the proof doesn't lead to the checkpoint's
    root."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        proof = LogProof.parse(data.decode())
        entry = decode_json(proof.extra, type=LedgerEntry)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ArchiveError(f"the receipt's entry is none of a ledger: {error}") from None
    if canonical(entry) != proof.extra:
        raise ArchiveError("the receipt's entry isn't canonical JSON: it was changed")
    said = (entry.type, entry.namespace, entry.model, entry.id, entry.time, entry.revision)
    if any(printable(text) != text for text in said):
        raise ArchiveError("the receipt's entry holds control characters: it was made to deceive")
    checkpoint = Checkpoint.parse(split_note(proof.note)[0])
    verify_inclusion(hash_leaf(proof.extra), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return Receipt(proof, entry, checkpoint)


def check_receipt(receipt: Receipt, vkey: str, id: str, rule: WitnessRule, findings: Findings) -> None:
    """``vkey``: the key that must have signed, or "" where nothing tells it. ``id``: whose receipt it must be, or "".
    Raises NoteError."""
    entry, checkpoint = receipt.entry, receipt.checkpoint
    about = f"{entry.type} {entry.id} of {entry.namespace}/{entry.model}, revision {entry.revision or 'none'}"
    findings.hold("receipt", f"{about}, {entry.time}")
    if id and id != entry.id:
        findings.fault("receipt", f"is for id {entry.id}, expected {id}")
    if entry.type == "deadLetter":
        findings.note("receipt", "the archive refused the answer's own entry; this one stands in its place")
    if vkey:
        open_checkpoint(receipt.proof.note, Verifier.parse(vkey))
        findings.hold("signature", "holds, by the key that you gave")
    findings.hold(
        "inclusion",
        f"entry {receipt.proof.index:,} of {checkpoint.size:,} of {checkpoint.origin}: proof of "
        f"{len(receipt.proof.hashes)} hashes holds",
    )
    note = receipt.proof.note
    cosigned = any(name != checkpoint.origin for name in _names(note))
    check_witnesses(note if cosigned else "", checkpoint.size, rule, findings)
    findings.note("content", "the entry names it by the digest of its ciphertext, which the archive has")


def _names(note: str) -> list[str]:
    return [line.split(" ")[1] for line in split_note(note)[1] if line.count(" ") == 2]

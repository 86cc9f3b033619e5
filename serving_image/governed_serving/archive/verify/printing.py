"""What ``verify`` says to a person."""

import sys
from pathlib import Path

import msgspec

from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.verification import Proof, Verification
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.records import LedgerEntry

__all__ = ["print_content", "print_verification"]


def print_verification(found: Verification, *, trusted: bool) -> None:
    """A line for each thing that holds."""
    print(f"log         {found.origin}, {found.size:,} entries, root {found.root}")
    whose = (
        "the key that you gave" if trusted else "its own key (give --key-file VKEY to check against one kept elsewhere)"
    )
    print(f"signature   holds, by {whose}")
    if found.complete:
        print(f"tree        recomputed from all {found.entries:,} entries: has the signed root")
    else:
        print(f"proofs      each of the {found.entries:,} entries in the bundle is in the signed tree")
    print(f"blobs       {found.of_blobs()}")
    print(f"held        {found.of_holdings()}")
    if found.deleted:
        print(f"deleted     {found.deleted:,} payload blobs under retention, each with a receipt in this log")
    for size in found.earlier:
        print(f"earlier     the checkpoint over {size:,} entries is a prefix of this log")
    for proof in found.proofs:
        entry = decode_json(proof.entry, type=LedgerEntry)
        print(
            f"inclusion   id {entry.id} is entry {proof.index:,} ({entry.type}, {entry.time}): proof of {len(proof.hashes)} hashes holds"  # noqa: E501
        )
        print(f"            {bytes(proof.entry).decode()}")
    print("verified")


def print_content(source: LogSource, proofs: list[Proof], key: Path) -> None:
    """What the proved entries commit to, opened with the model's key."""
    kek = load_kek(key)
    for proof in proofs:
        entry = decode_json(proof.entry, type=LedgerEntry)
        if entry.blob and entry.frame is not None:
            content = opened_record(source, kek, entry)
            print(f"content of entry {proof.index}:")
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n")

"""What ``verify`` says to a person."""

import sys
from pathlib import Path

import msgspec

from governed_api.printable import printable
from governed_serving.archive.verify.command_line import say
from governed_serving.archive.verify.inspection import Inspection
from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.verification import Proof, Verification
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.records import LedgerEntry

__all__ = ["inspection_json", "print_content", "print_inspection"]

_NAMED = 100
_OUTCOMES = {
    "tampered": "not verified",
    "incomplete": "incomplete: nothing is wrong, and what is listed as unchecked could not be checked",
}


def print_inspection(inspection: Inspection, *, trusted: bool, verified: str = "verified") -> None:
    """What was found, a line each; the last one is the outcome, ``verified`` where nothing speaks against it. What is
    wrong first is also said on stderr."""
    findings = inspection.findings
    if inspection.log is not None:
        _print_log(inspection.log, trusted=trusted)
    for held in findings.holds:
        say(f"{held.place:<11} {held.problem}")
    for what, those in (("unchecked", findings.unchecked), ("wrong", findings.wrong)):
        for finding in those[:_NAMED]:
            say(f"{what:<11} {finding}")
        if len(those) > _NAMED:
            say(f"{what:<11} and {len(those) - _NAMED:,} more: --json lists them")
    for finding in findings.beyond:
        say(f"not checked {finding}")
    say(verified if findings.status == "verified" else _OUTCOMES[findings.status])
    if findings.wrong:
        say(f"verify: {findings.wrong[0]}", sys.stderr)


def inspection_json(inspection: Inspection) -> bytes:
    """``status``, the findings and what holds of the log, in one object."""
    log = decode_json(msgspec.json.encode(inspection.log)) if inspection.log is not None else {}
    return msgspec.json.encode(
        {"status": inspection.findings.status, **log, **msgspec.to_builtins(inspection.findings)}
    )


def _print_log(verified: Verification, *, trusted: bool) -> None:
    """A line for each thing that holds of the entries."""
    say(f"log         {verified.origin}, {verified.size:,} entries, root {verified.root}")
    whose = (
        "the key that you gave" if trusted else "its own key (give --key-file VKEY to check against one kept elsewhere)"
    )
    say(f"signature   holds, by {whose}")
    if verified.complete:
        say(f"tree        recomputed from all {verified.entries:,} entries: has the signed root")
    else:
        say(f"proofs      each of the {verified.entries:,} entries in the bundle is in the signed tree")
    say(f"blobs       {verified.of_blobs()}")
    say(f"held        {verified.of_holdings()}")
    if verified.deleted:
        say(f"deleted     {verified.deleted:,} payload blobs under retention, each with a receipt in this log")
    for size in verified.earlier:
        say(f"earlier     the checkpoint over {size:,} entries is a prefix of this log")
    for proof in verified.proofs:
        entry = decode_json(proof.entry, type=LedgerEntry)
        say(
            f"inclusion   id {entry.id} is entry {proof.index:,} ({entry.type}, {entry.time}): proof of {len(proof.hashes)} hashes holds"  # noqa: E501
        )
        say(f"            {bytes(proof.entry).decode()}")


def print_content(source: LogSource, proofs: list[Proof], key: Path) -> None:
    """What the proved entries commit to, opened with the model's key."""
    kek = load_kek(key)
    for proof in proofs:
        entry = decode_json(proof.entry, type=LedgerEntry)
        if entry.blob and entry.frame is not None:
            content = opened_record(source, kek, entry)
            say(f"content of entry {proof.index}:")
            sys.stdout.write(
                printable(msgspec.json.format(msgspec.json.encode(content), indent=1).decode(), keep="\n") + "\n"
            )

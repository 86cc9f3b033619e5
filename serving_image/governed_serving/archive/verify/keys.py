"""Keysets held against the entries about them: the archive's own, and those that it keeps for models."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from governed_api.names import ARCHIVE
from governed_api.regular_files import read_regular
from governed_serving.archive.service import KEYSET, RECEIPT
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.truth import Truth
from governed_serving.crypto import Kek, KeyEvent
from governed_serving.crypto.document import KeysetDocument
from governed_serving.decoding import decode_json
from governed_serving.durable import is_regular
from governed_serving.records import LedgerEntry

__all__ = ["OWN_PURPOSES", "check_keysets", "check_own_keys"]

OWN_PURPOSES = ("ledger", "ledger-signing", "references")
_INTERRUPTED = "interrupted erasure: run it again, or start the archive, which finishes it"


def check_own_keys(root: Path, kek: Kek, truth: Truth, findings: Findings) -> set[str]:
    """The archive's own keysets; paths that were looked at. Their first keys have no entry, rotated ones do."""
    explained = set()
    held = 0
    for purpose in OWN_PURPOSES:
        place = f"keys/{purpose}{KEYSET}"
        explained.add(place)
        with findings.looking_at(place):
            document = KeysetDocument.audit(read_regular(root / place), purpose, kek)
            ids = {key.id for key in document.keys}
            for entry in truth.keysets.get((ARCHIVE, purpose), ()):
                gone = {int(k) for k in entry.summary.get("keys", ())} - ids
                if gone:
                    findings.fault(
                        place, f"lacks key {min(gone)}, which entry {entry.id} of {entry.time} says it was given: an "
                        "older keyset was put back"
                    )  # fmt: skip
            held += 1
    if held == len(OWN_PURPOSES):
        findings.hold("own keys", f"{held} keysets of the archive: whole, and with every key that the log tells of")
    return explained


def check_keysets(root: Path, truth: Truth, findings: Findings, files: Iterable[str], *, running: bool) -> set[str]:
    """``keysets/``: what lies there is what the last entry about it says, and what should lie there does."""
    explained, held = set(), 0
    for (model, purpose), entries in sorted(truth.keysets.items()):
        if model == ARCHIVE or not purpose:
            continue
        keyset, receipt = (f"keysets/{model}/{purpose}{end}" for end in (KEYSET, RECEIPT))
        explained |= {keyset, receipt}
        destroyed = entries[-1].summary.get("action") == "destroyed"
        place = receipt if destroyed else keyset
        before = len(findings.wrong)
        with findings.looking_at(place):
            if begun := _begun(root, keyset, receipt, entries[-1], erased=(model, purpose) in truth.erased):
                (findings.note if running else findings.skip)(keyset, begun)
                explained |= {f for f in files if f.startswith((f"{_beside(receipt)}.", f"{_beside(keyset)}."))}
            elif destroyed:
                _check_destroyed(root, keyset, receipt, entries[-1], findings)
            else:
                _check_keyset(root, keyset, receipt, purpose, entries, findings)
            held += len(findings.wrong) == before
    for place in files:
        if place.startswith("keysets/") and place.endswith((KEYSET, RECEIPT)) and place not in explained:
            explained.add(place)
            if running:  # put there after the entries were read
                continue
            findings.fault(place, "no entry tells of this keyset: nobody that the archive knows put it there")
    findings.hold("keysets", f"{held} of models: each is what the last entry about it says")
    return explained


def _begun(root: Path, keyset: str, receipt: str, last: LedgerEntry, *, erased: bool) -> str:
    """Whether the keyset's destruction was begun and isn't done, in words: the receipt that the log names lies beside
    its place until it is."""
    named = str(last.summary.get("receipt", ""))
    beside = root / f"{_beside(receipt)}.{named}"
    if last.summary.get("action") == "destroyed":
        return f"{_INTERRUPTED} (its receipt lies beside it)" if named and is_regular(beside) else ""
    there = erased and is_regular(root / keyset)
    return f"{_INTERRUPTED} (the log says that a person was erased, their key is still there)" if there else ""


def _beside(receipt: str) -> str:
    folder, _, name = receipt.rpartition("/")
    return f"{folder}/.{name}"


def _check_keyset(
    root: Path, place: str, receipt: str, purpose: str, entries: list[LedgerEntry], findings: Findings
) -> None:
    last = entries[-1]
    if is_regular(root / receipt):
        findings.fault(receipt, f"the log doesn't say that the {purpose} keyset was destroyed")
    if not is_regular(root / place):
        findings.fault(place, f"is missing: the last entry about it, of {last.time}, says {last.summary.get('action')}")
        return
    data = read_regular(root / place)
    actual = hashlib.sha256(data).hexdigest()
    if actual == last.digest:
        KeysetDocument.audit(data, purpose)
    elif is_regular((root / place).with_name(f".{Path(place).name}.{last.digest}")):
        findings.note(place, "its successor lies beside it: a kill came between, the archive's next start settles it")
    elif any(actual == entry.digest for entry in entries):
        findings.fault(place, f"is an older one than the last entry about it ({last.time}) says: it was put back")
    else:
        findings.fault(place, f"has SHA-256 {actual}, which no entry about it names: it was changed")


def _check_destroyed(root: Path, keyset: str, receipt: str, last: LedgerEntry, findings: Findings) -> None:
    if is_regular(root / keyset):
        findings.fault(keyset, f"is there, though the log says it was destroyed at {last.time}: it was put back")
    if not is_regular(root / receipt):
        findings.fault(receipt, f"is missing: the log says that the keyset was destroyed at {last.time}")
        return
    data = read_regular(root / receipt)
    named = str(last.summary.get("receipt", ""))
    if named and hashlib.sha256(data).hexdigest() != named:
        findings.fault(receipt, "isn't the receipt that the log names: it was changed")
    elif not named and data != b"{}":
        event = decode_json(data, type=KeyEvent)
        exact = msgspec.json.encode(event) == data and (event.digest, event.action) == (last.digest, "destroyed")
        if not exact or event.purpose != last.summary.get("purpose"):
            findings.fault(receipt, "isn't the receipt of the keyset that the log names: it was changed")

"""Whether others saw the same log: cosignatures of witnesses, held against keys that were kept elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.cosignature import Cosignature, Cosigner
from governed_serving.archive.ledger.note import Checkpoint, split_note
from governed_serving.archive.verify.findings import Findings
from governed_serving.records import timestamp

__all__ = ["WitnessRule", "check_witnesses", "cosignatures", "witness_rule"]

_OTHERS = "whether others were shown another log"


@dataclass(frozen=True)
class WitnessRule:
    """``quorum`` of these witnesses must have cosigned; without any, nothing is asked of them."""

    cosigners: tuple[Cosigner, ...] = ()
    quorum: int = 0


def witness_rule(files: Sequence[Path], quorum: int = 0) -> WitnessRule:
    """Of key files (a vkey a line); ``quorum`` 0: all of them. Raises ArchiveError, NoteError, OSError."""
    lines = [line for path in files for line in path.read_text().splitlines() if line.strip()]
    cosigners = tuple(Cosigner.parse(line) for line in lines)
    if len({cosigner.public for cosigner in cosigners}) < len(cosigners):
        raise ArchiveError("the same witness key was given twice: a quorum would count it twice")
    if not 0 <= quorum <= len(cosigners):
        raise ArchiveError(f"--quorum must be 1 to {len(cosigners)}, the witness keys given, found {quorum}")
    return WitnessRule(cosigners, quorum or len(cosigners))


def cosignatures(note: str, rule: WitnessRule) -> dict[str, Cosignature]:
    """By name of the witness. Raises NoteError for one that doesn't verify."""
    by_name = {cosigner.name: cosigner.cosigned(note) for cosigner in rule.cosigners}
    return {name: signed for name, signed in by_name.items() if signed is not None}


def check_witnesses(note: str, size: int, rule: WitnessRule, findings: Findings) -> None:
    """Hold the cosignatures below ``note`` against ``rule``; ``size``: entries that the log's own checkpoint signs.

    That ``note`` is of this log, and its tree a prefix, is checked elsewhere. Raises NoteError.
    """
    if not note:
        if rule.cosigners:
            findings.fault("witnesses", f"expected cosignatures by {rule.quorum} of them, found none here")
        else:
            findings.note(_OTHERS, "no witness cosigned a checkpoint that is kept here")
        return
    if not rule.cosigners:
        names = sorted({line.split(" ")[1] for line in split_note(note)[1]} - {note.split("\n", 1)[0]})
        findings.note(_OTHERS, f"cosignatures by {', '.join(names)} are here, no key to check them: --witness-key VKEY")
        return
    cosigned, signed = cosignatures(note, rule), Checkpoint.parse(split_note(note)[0])
    if len(cosigned) < rule.quorum:
        lacking = ", ".join(sorted({witness.name for witness in rule.cosigners} - cosigned.keys()))
        findings.fault(
            "witnesses", f"{len(cosigned)} cosigned the checkpoint over {signed.size} entries, expected {rule.quorum}: "
            f"none by {lacking}"
        )  # fmt: skip
        return
    newest = timestamp(max(witness.time for witness in cosigned.values()))
    findings.hold("witnesses", f"{', '.join(sorted(cosigned))} cosigned {signed.size:,} entries, at {newest} last")
    if signed.size < size:
        findings.note(f"entries {signed.size} to {size - 1}", "no quorum of witnesses has cosigned them yet")

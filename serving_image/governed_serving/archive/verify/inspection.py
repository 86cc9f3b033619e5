"""All that is held: the signed entries first, then whatever derives from them or lies beside them.

Nothing is changed, and no byte that somebody changed ends in a traceback: what reading it raises is a finding.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.cosignature import is_cosignature
from governed_serving.archive.ledger.note import Checkpoint, Verifier
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.mirror.manifest import RECOVERED
from governed_serving.archive.service import ledger_cipher, ledger_signers
from governed_serving.archive.store.named import NamedFiles
from governed_serving.archive.store.retention import read_state
from governed_serving.archive.tokens import ROLES_SINCE
from governed_serving.archive.verify.beside import Beside, Spools
from governed_serving.archive.verify.derived import Derived, files_below, is_running, unexplained
from governed_serving.archive.verify.findings import Finding, Findings
from governed_serving.archive.verify.held_blobs import HeldBlobs
from governed_serving.archive.verify.keys import check_keysets, check_own_keys
from governed_serving.archive.verify.reports import Reports
from governed_serving.archive.verify.sources import DirectorySource, LogSource
from governed_serving.archive.verify.truth import Truth
from governed_serving.archive.verify.verification import Verification, verify
from governed_serving.archive.verify.witnesses import WitnessRule, check_witnesses
from governed_serving.crypto import DirectoryStore, Kek, Keyring

__all__ = ["Asked", "Inspection", "inspect_folder", "inspect_source"]

_NAMED = ("keys", "keysets", "refs", "states")
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Asked:
    """``vkey``: the key that must have signed. ``earlier``: checkpoints kept elsewhere. ``id``: an entry to prove."""

    vkey: str = ""
    earlier: tuple[str, ...] = ()
    id: str = ""
    blobs: bool = True
    witnesses: WitnessRule = field(default_factory=WitnessRule)


class Inspection(msgspec.Struct):
    """``log``: what holds of the entries; None when that couldn't be found out."""

    findings: Findings
    log: Verification | None = None


def inspect_source(source: LogSource, asked: Asked) -> Inspection:
    """A bundle or a running archive: the entries, and what can be asked for."""
    inspection = Inspection(Findings())
    findings = inspection.findings
    with findings.looking_at(""):
        witnessed = source.witnessed()  # before the checkpoint, which goes on from it
        earlier = _with(witnessed, asked.earlier)
        inspection.log = verify(source, vkey=asked.vkey, earlier=earlier, id=asked.id, blobs=asked.blobs)
        check_witnesses(witnessed, inspection.log.size, asked.witnesses, findings)
    _say_limits(findings, asked)
    findings.note("tiles, index, keysets, journals, reports", "looked at over the archive's folder, or --workdir")
    if not source.complete:
        findings.note("other entries", "the bundle holds the chosen ones alone")
    if asked.blobs and "unchanged" not in source.blobs_are:
        findings.note("blobs", source.blobs_are)
    return inspection


def inspect_folder(root: Path, kek: Kek, asked: Asked, beside: Beside | None = None) -> Inspection:
    """An archive's folder, and what lies beside it."""
    inspection, beside = Inspection(Findings()), beside or Beside()
    findings, running = inspection.findings, is_running(root)
    files = files_below(root, findings)
    for place, spool in beside.spools.items():
        findings.wrong += [Finding(f"{place}/{f.place}", f.problem) for f in _odd(spool)]
    if any(not _is_named(finding.place) for finding in findings.wrong):
        return inspection  # nothing reads what is there in the place of a file of ours
    source, witnessed, spools = DirectorySource(root, kek), "", Spools(beside)
    reports = Reports(beside.reports, findings, running=running, expected=beside.whole)
    with findings.looking_at("keys/ledger-signing.keyset.json"):
        lines = _OwnLines(root, kek)
        with findings.looking_at("ledger/checkpoint"):
            lines.check(source.checkpoint())
        for place, note in list(reports.notes.items()):
            with findings.looking_at(place):
                del reports.notes[place]
                lines.check(note)
                reports.notes[place] = note
    with findings.looking_at(f"ledger/{WITNESSED}"):
        note = source.witnessed()
        if note:
            lines.check(note, cosigned=True)
        witnessed = note
    earlier = _with(witnessed, asked.earlier + tuple(reports.notes.values()))
    differing: list[str] = []
    with findings.looking_at(""):
        inspection.log = verify(
            source, vkey=asked.vkey, earlier=earlier, id=asked.id, blobs=asked.blobs, differing=differing
        )
    for what in differing:
        findings.fault("", what)
    with findings.looking_at(f"ledger/{WITNESSED}"):
        check_witnesses(witnessed, inspection.log.size if inspection.log else 0, asked.witnesses, findings)
    _say_limits(findings, asked)
    if asked.blobs and source.blobs.unseen:
        findings.skip("blobs", source.blobs_are)
    with findings.looking_at("ledger"):
        _Folder(root, kek, findings, running).check(files, source, reports, spools, beside)
    return inspection


def _with(witnessed: str, earlier: tuple[str, ...]) -> tuple[str, ...]:
    return (*earlier, witnessed) if witnessed else earlier


class _OwnLines:
    """Which signature lines are the archive's, by the keys in its own keyset."""

    def __init__(self, root: Path, kek: Kek):
        namespace = Verifier.parse((root / "ledger" / "vkey").read_text()).name.rpartition("/")[2]
        self._signers = ledger_signers(root, kek, namespace)

    def check(self, note: str, *, cosigned: bool = False) -> None:
        """Every line, those of older keys included, is what one of the archive's keys signs, or is a cosignature's
        where it is ``cosigned``. Raises ArchiveError, NoteError."""
        text, separator, block = note.rpartition("\n\n")
        ours = {s.line(f"{text}\n") for s in self._signers}
        if not separator or not block:
            raise ArchiveError("holds no signed checkpoint: expected text, an empty line and signature lines")
        for line in block.splitlines(keepends=True):
            if cosigned and is_cosignature(line.removesuffix("\n")):
                continue
            if line not in ours:
                raise ArchiveError(f"the signature line {line[:60].strip()!r} isn't by one of the archive's keys")


def _is_named(place: str) -> bool:
    """Of a place where what is no regular file is passed over by all that reads."""
    return place.partition("/")[0] in _NAMED


def _odd(folder: Path) -> Sequence[Finding]:
    findings = Findings()
    files_below(folder, findings)
    return findings.wrong


def _say_limits(findings: Findings, asked: Asked) -> None:
    if not asked.earlier:
        findings.note(
            "whether all of this is an older copy",
            "no checkpoint kept elsewhere was given: --checkpoint FILE (one saved before, or a GovernanceReport)",
        )
    if not asked.vkey:
        findings.note("whether this is another log altogether", "no key kept elsewhere was given: --key-file VKEY")
    if not asked.blobs:
        findings.note("blobs", "not looked at, as asked")


class _Folder:
    """What lies in the folder besides the signed entries."""

    def __init__(self, root: Path, kek: Kek, findings: Findings, running: bool):
        self._root, self._kek, self._findings, self._running = root, kek, findings, running

    def check(self, files: set[str], source: DirectorySource, reports: Reports, spools: Spools, beside: Beside) -> None:
        root, findings = self._root, self._findings
        cipher = ledger_cipher(root, self._kek)
        verifier = self._own_verifier()
        signed = Checkpoint.unverified(source.checkpoint())
        derived = Derived(root, cipher, findings, running=self._running)
        truth = self._truth(source, derived, verifier, reports)
        self._unsigned(truth, signed, running=self._running)
        derived.check(truth, signed.size, verifier)
        explained = derived.known | check_own_keys(root, self._kek, truth, findings)
        explained |= check_keysets(root, truth, findings, files, running=self._running)
        explained |= self._markers(truth, files, source.blobs)
        explained |= self._retention(truth)
        explained |= {f"{kind}/{model}/{name}" for kind in ("refs", "states") for model, name in _names(root / kind)}
        explained |= self._prepared(files, explained) | {ROLES_SINCE, RECOVERED}
        unexplained(root, files, explained, findings)
        spools.check(root, truth, findings, source.blobs)
        reports.check(truth, source, beside.keks)
        for what in beside.elsewhere:
            findings.note(what, "not looked at")

    def _own_verifier(self) -> Verifier:
        """The key that signs, from the archive's own keyset rather than from the file that tells it."""
        namespace = Verifier.parse((self._root / "ledger" / "vkey").read_text()).name.rpartition("/")[2]
        return ledger_signers(self._root, self._kek, namespace)[0].verifier

    def _truth(self, source: DirectorySource, derived: Derived, verifier: Verifier, reports: Reports) -> Truth:
        namespace = verifier.name.rpartition("/")[2]
        truth = Truth(namespace, derived.index_key, derived.tiles, derived.asked, reports.wanted)
        with self._findings.looking_at("ledger/log"):
            for first, batch in source.batches():
                truth.take(first, batch)
        return truth

    def _unsigned(self, truth: Truth, signed: Checkpoint, *, running: bool) -> None:
        for index in truth.losses:
            self._findings.note("ledger/log", f"entry {index} says what was lost and let go by a person before it")
        more = truth.size - signed.size
        if more > 0 and not running:
            self._findings.skip(
                "ledger/log", f"{more} entries follow the checkpoint over {signed.size}: nothing signs them yet. Start "
                "the archive, which signs what it finds, or ask who put them there"
            )  # fmt: skip
        elif more > 0:
            self._findings.note("ledger/log", f"{more} entries follow the checkpoint: the archive is running")

    def _markers(self, truth: Truth, files: set[str], blobs: HeldBlobs) -> set[str]:
        """What retention deleted may not come again: a marker for each receipt, and none without."""
        markers = {f for f in files if f.startswith("blobs/expired/")}
        wanted = {f"blobs/expired/{d[:2]}/{d}" for d in truth.deleted}
        for place in sorted(markers - wanted):
            if not self._running:
                self._findings.fault(place, "marks a blob as deleted, which no receipt in the log lists")
        for place in sorted(wanted - markers):
            if not blobs.is_there(place[-64:]):
                self._findings.fault(place, "is missing: a receipt in the log lists the blob as deleted")
            elif not self._running:
                self._findings.skip(
                    f"blobs/{place[14:]}",
                    "is there, a receipt says it was deleted: a kill came between, or it was put back",
                )
        for place in sorted(markers & wanted):
            if (self._root / place).stat().st_size:
                self._findings.fault(place, "isn't empty: a marker holds nothing")
            if blobs.is_there(place[-64:]):
                self._findings.fault(
                    f"blobs/{place[14:]}", "was deleted under retention, with a receipt in the log: it was put back"
                )
        return markers

    def _retention(self, truth: Truth) -> set[str]:
        """Sealed; of an older copy the archive finds again what is due."""
        if not (self._root / "retention").exists():
            if truth.deleted:
                self._findings.note(
                    "retention", "isn't here, though payloads were deleted: the next sweep reads the log anew"
                )
            return {"retention"}
        with self._findings.looking_at("retention"):
            references = Keyring(self._kek, DirectoryStore(self._root / "keys")).keyset("references", create=False)
            state = read_state(self._root / "retention", references)
            if state.scanned > truth.size:
                self._findings.fault(
                    "retention", f"has read {state.scanned} entries, the log has {truth.size}: its tail was cut"
                )
            elif unknown := sorted(set(state.waiting) - truth.blobs):
                self._findings.fault("retention", f"waits for blob {unknown[0]}, which no entry names")
            elif again := sorted(set(state.waiting) & truth.deleted):
                self._findings.note(
                    "retention",
                    f"waits for {len(again)} blobs that were deleted: an older copy, or that of a killed process",
                )
            elif state.scanned < truth.size:
                self._findings.note(
                    "retention", f"has read {state.scanned} of {truth.size} entries: the next sweep goes on from there"
                )
        return {"retention"}

    def _prepared(self, files: set[str], known: set[str]) -> set[str]:
        """Replacements that were begun: settled at the next start."""
        beside = {f for f in files if f.startswith(("refs/", "states/", "keysets/")) and _is_prepared(Path(f).name)}
        for place in sorted(beside - known) if not self._running else ():
            self._findings.skip(
                place,
                "a replacement that was begun: a kill came between, the archive's next start settles it",
            )
        return beside


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    named = NamedFiles(folder)
    return ((model, name) for model in named.models() for name in named.names(model))


def _is_prepared(name: str) -> bool:
    return name.startswith(".") and len(name.rpartition(".")[2]) == len(_EMPTY)

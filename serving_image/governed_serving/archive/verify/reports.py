"""GovernanceReports that were kept as files, held against the ledger: checkpoint, what was trained, verdicts."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from governed_api.json_types import Json
from governed_api.names import ARCHIVE
from governed_api.report import GovernanceReportStatus, PodVerdict
from governed_api.runtime import LOCAL
from governed_api.verdict import LEFT_OUT_OF_REPORT, BiasVerdict
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.verdicts import recorded_verdict
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.truth import Truth
from governed_serving.crypto import Kek
from governed_serving.decoding import decode_json
from governed_serving.records import LedgerEntry, is_bias_verdict

__all__ = ["Reports"]

_HEAD = ("verdict", "samples", "summary")
_OF_THE_MOMENT = BiasVerdict.of_the_moment() | PodVerdict.of_the_moment()
_UNTOLD = ("Pending", "Running", "Failed")
"""Phases of a training that may have reported what the ledger isn't told of yet."""
_LIVE = "what processes say of themselves at the moment (readiness, progress, figures, alarms, when): nothing signs it"


class Reports:
    """Read before the ledger, which is only ahead of them then."""

    def __init__(self, paths: Mapping[str, Path], findings: Findings, *, running: bool, expected: bool):
        self._findings, self._running, self._expected = findings, running, expected
        self._documents: dict[str, dict[str, Json]] = {}
        for place, path in paths.items():
            with findings.looking_at(place):
                status = _read(path)
                _verdicts(status), _recorded(status)  # raises where a section has another form
                self._documents[place] = status
        self.notes: dict[str, str] = {}
        """Checkpoints by the report that holds them."""
        for place, status in self._documents.items():
            with findings.looking_at(place):
                if note := _section(status, "archive").get("checkpoint"):
                    self.notes[place] = str(note)

    @property
    def wanted(self) -> set[int]:
        """Indices of the entries that the reports name."""
        told = [v for s in self._documents.values() for v in (*(v for _, v in _verdicts(s)), *_recorded(s))]
        indices = {v.get("ledgerIndex") for v in told}
        return {i for i in indices if isinstance(i, int)}

    def check(self, truth: Truth, source: LogSource, keks: Mapping[str, Kek]) -> None:
        findings, before = self._findings, len(self._findings.wrong)
        if self._expected and not self.notes and truth.size:
            findings.skip(
                f"reports/{ARCHIVE}.json",
                "isn't here, or holds no checkpoint, which is what tells an older ledger from the present one",
            )
        for model in sorted({*truth.trained, *(model for model, _ in truth.verdicts)}) if self._expected else ():
            if not any(Path(place).stem == model for place in self._documents):
                findings.skip(f"reports/{model}.json", "isn't here, or can't be read: the ledger tells of this model")
        models = {*truth.trained, *(model for model, _ in truth.verdicts), *truth.keysets_of(), ARCHIVE}
        for place, status in self._documents.items():
            with findings.looking_at(place):
                self._check_archive(place, _section(status, "archive"), truth.size)
                self._check_recorded(place, status, truth)
                self._say_unknown(place, status)
                model = Path(place).stem
                if model not in models:
                    findings.skip(place, "is of no model that the ledger knows")
                self._check_trained(place, _section(status, "trainer"), truth.trained.get(model, []))
                for where, verdict in _verdicts(status):
                    self._check_verdict(f"{place} {where}", model, verdict, truth, source, keks.get(model))
                self._check_places(place, status, truth)
        if self._documents:
            findings.note("reports", _LIVE)
            if before == len(findings.wrong):
                findings.hold("reports", f"{len(self._documents)}: checkpoint, training and verdicts as in the ledger")

    def _check_places(self, place: str, status: dict[str, Json], truth: Truth) -> None:
        """Each pod's verdict stands under its own revision and name."""
        for revision, parts in _section(status, "revisions").items():
            for pod, head in _section(parts, "auditor").items() if isinstance(parts, dict) else ():
                index = head.get("ledgerIndex") if isinstance(head, dict) else None
                entry, stream = truth.entry(index)
                if entry and (entry.revision or LOCAL, stream.rpartition(".")[0]) != (revision, f"auditor-{pod}"):
                    self._findings.fault(
                        f"{place} revisions.{revision}.auditor.{pod}",
                        f"names entry {index}, which another pod or revision wrote: it was edited",
                    )

    def _say_unknown(self, place: str, status: dict[str, Json]) -> None:
        """What a newer version may have written, or somebody else."""
        try:
            parsed = GovernanceReportStatus.model_validate(status)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            self._findings.skip(place, f"{where} hasn't the contract's form ({first['msg']})")
            return
        unknown = [*(parsed.model_extra or ()), *((parsed.archive and parsed.archive.model_extra) or ())]
        if unknown:
            self._findings.note(place, f"has fields that this version doesn't know: {', '.join(sorted(unknown))}")

    def _check_archive(self, place: str, section: dict[str, Json], size: int) -> None:
        if not section.get("checkpoint"):
            return
        note = Checkpoint.unverified(str(section["checkpoint"]))
        told = (section.get("size"), section.get("rootHash"))
        if told != (note.size, base64.b64encode(note.root).decode()):
            self._findings.fault(place, f"says size and root {told}, its checkpoint signs others: it was edited")
        if note.size < size:
            self._findings.note(
                place,
                f"has a checkpoint over {note.size} of the {size} entries: of later ones its folder alone tells",
            )

    def _check_recorded(self, place: str, status: dict[str, Json], truth: Truth) -> None:
        """What the archive says of the newest verdicts is what their entries say, each of its model and revision."""
        for told in _recorded(status):
            index = told.get("ledgerIndex")
            entry, _ = truth.entry(index)
            if entry is None or not is_bias_verdict(entry) or told != recorded_verdict(entry, int(str(index))).plain():
                self._findings.fault(
                    f"{place} archive.verdicts", f"says of entry {index} what that isn't: it was edited"
                )

    def _check_trained(self, place: str, section: dict[str, Json], entries: list[LedgerEntry]) -> None:
        """Every part that the trainer also put in the ledger is one that is there."""
        if not entries:
            if section.get("artefact"):
                self._findings.fault(place, "tells of an artefact, the ledger of no training")
            return
        parts: dict[str, list[object]] = {
            "artefact": [{"digest": e.digest, "blob": e.blob, **_only(e, "variant")} for e in _of(entries, "artefact")],
            "metrics": [e.summary.get("metrics") for e in _of(entries, "training")],
            "gates": [e.summary.get("gates") for e in _of(entries, "gates")],
            "dataAudit": [e.summary.get("audit") for e in _of(entries, "dataset")],
        }
        for name, values in parts.items():
            values = [value for value in values if value is not None]  # what is too long isn't in the entry itself
            if not section.get(name) or not values or section[name] in values:
                continue
            if name == "dataAudit" and section.get("phase") in _UNTOLD:
                why = f"is of a training that is {section.get('phase')}: the ledger is told of it when it succeeds"
                self._findings.skip(f"{place} trainer.{name}", why)
            else:
                self._findings.fault(place, f"trainer.{name} isn't what any entry of the trainer says: it was edited")

    def _check_verdict(
        self, place: str, model: str, told: dict[str, Json], truth: Truth, source: LogSource, kek: Kek | None
    ) -> None:
        index = told.get("ledgerIndex")
        if not isinstance(index, int):
            if told.get("verdict") not in (None, "Unknown"):
                self._findings.note(place, f"says {told['verdict']} and names no entry that proves it")
            return
        entry, _ = truth.entry(index)
        if entry is None or entry.type != "verdict" or entry.model != model:
            what_is = f"a {entry.type} of {entry.model}" if entry else "none"
            self._findings.fault(place, f"names entry {index} as its verdict's, which is {what_is}")
            return
        newest = truth.verdicts.get((model, entry.revision), index)
        if newest > index:
            self._findings.note(
                place,
                f"names entry {index}, entry {newest} is a later verdict: an older report, or one not told of it yet",
            )
        if told.get("verdict") != entry.summary.get("verdict"):
            said = f"says {told.get('verdict')}, entry {index}, which it names, says {entry.summary.get('verdict')}"
            self._findings.note(place, f"{said}: not recorded yet") if self._running else self._findings.fault(
                place, said
            )
            return
        full = place.endswith(" auditor")
        recorded = not full or told.get("evidence") == entry.summary.get("evidence")
        same = all(told.get(name) == entry.summary.get(name) for name in _HEAD if name in entry.summary)
        if full and recorded:
            if not same:
                self._findings.fault(place, f"isn't what entry {index}, which it names, says: it was edited")
            elif kek is not None and entry.blob and source.blob(entry.blob) is None:
                self._check_body(place, told, entry, source, kek)
        elif not (recorded and same):
            self._findings.note(
                place, f"counts other rows than entry {index} did: a verdict that changes nothing is recorded later"
            )

    def _check_body(self, place: str, told: dict[str, Json], entry: LedgerEntry, source: LogSource, kek: Kek) -> None:
        body = opened_record(source, kek, entry)["body"]["verdict"]
        body = _without_nulls({name: value for name, value in body.items() if name not in LEFT_OUT_OF_REPORT})
        names = (set(told) | set(body)) - _OF_THE_MOMENT
        if differing := sorted(name for name in names if told.get(name) != body.get(name)):
            self._findings.fault(
                place, f"{', '.join(differing)}: not what the verdict {entry.id} in the ledger says: it was edited"
            )


def _read(path: Path) -> dict[str, Json]:
    """A report's status. Raises ArchiveError for a file that isn't as its writer writes it."""
    data = path.read_bytes()
    document = decode_json(data)
    if json.dumps(document, indent=1, ensure_ascii=False).encode() != data:
        raise ArchiveError("isn't as processes write it: it was edited by hand")
    if not isinstance(document, dict) or not isinstance(document.get("status", {}), dict):
        raise ArchiveError("holds no status")
    if "status" in document and len(document) > 1:
        raise ArchiveError("holds more than a status: it was edited by hand")
    return dict(document.get("status", document))


def _section(status: dict[str, Json], name: str) -> dict[str, Json]:
    section = status.get(name, {})
    if not isinstance(section, dict):
        raise ArchiveError(f"{name} must be a mapping")
    return section


def _verdicts(status: dict[str, Json]) -> list[tuple[str, dict[str, Json]]]:
    """Every verdict that a report shows, and where."""
    sections = [("auditor", _section(status, "auditor"))]
    for revision, parts in _section(status, "revisions").items():
        if isinstance(parts, dict):
            for pod, head in _section(parts, "auditor").items():
                if isinstance(head, dict):
                    sections.append((f"revisions.{revision}.auditor.{pod}", head))
    return sections


def _recorded(status: dict[str, Json]) -> list[dict[str, Json]]:
    """What an archive's report says of the newest verdicts."""
    told = _section(status, "archive").get("verdicts", [])
    if not isinstance(told, list) or not all(isinstance(entry, dict) for entry in told):
        raise ArchiveError("archive.verdicts must be a list of mappings")
    return [entry for entry in told if isinstance(entry, dict)]


def _without_nulls(value: dict[str, Json]) -> dict[str, Json]:
    """As a merge patch leaves it (RFC 7396)."""
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in value.items() if v is not None}


def _of(entries: list[LedgerEntry], type: str) -> list[LedgerEntry]:
    return [e for e in entries if e.type == type]


def _only(entry: LedgerEntry, name: str) -> dict[str, object]:
    return {name: entry.summary[name]} if name in entry.summary else {}

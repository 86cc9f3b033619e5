"""Everything that the page shows, gathered and verified first: report, ledger, artefact, keys, one request as
example."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from governed_api.base import VerdictWord
from governed_api.evidence import DataAudit, DatasetManifest, Evaluation, GateTable, ShippedArtefact
from governed_api.model import GovernedModelSpec
from governed_api.regular_files import read_regular
from governed_api.report import GateResult
from governed_api.verdict import BiasVerdict
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.verification import Proof, Verification, verify
from governed_serving.artefact import ArtefactError, unpack
from governed_serving.crypto import CryptoError, Kek, KeyInfo, Keyring
from governed_serving.decoding import decode_json, decode_with
from governed_serving.dossier.distinct import Distinct
from governed_serving.dossier.documents import (
    Documents,
    DriftAlarm,
    DriftSummary,
    ExplanationBody,
    KeyEvent,
    KeySummary,
    ModelCard,
    Report,
    ShownExplanation,
    ShownRequest,
    read_documents,
    read_part,
    read_report,
)
from governed_serving.dossier.served import MOST_CHUNKS, JournalChunks, Served, ServedRules, fold_served
from governed_serving.fairness.counts.grouping import Grouping
from governed_serving.fairness.counts.truth import word_of
from governed_serving.journal import JournalError
from governed_serving.records import VERDICT, LedgerEntry, is_bias_verdict

__all__ = ["Archived", "Dossier", "Example", "LedgerView", "gather"]

KEPT = {
    "dataset",
    "training",
    "gates",
    "artefact",
    "verdict",
    "key",
    "label",
    "acknowledgement",
    "review",
    "importanceDrift",
}
_KEPT_EACH = 500
RECENT = 5
"""Newest entries of each type that are listed."""
_KEPT = dict.fromkeys(("acknowledgement", "review"), 20_000)
"""Of these more: a contest that nobody decided is none of the newest."""
_ERRORS = (ArchiveError, ArtefactError, CryptoError, JournalError, NoteError, OSError, msgspec.DecodeError)


@dataclass
class LedgerView:
    """The model's part of the ledger: how many entries of each type, first and last time, and the entries of seldom
    types."""

    verification: Verification | None = None
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    entries: dict[str, list[tuple[int, LedgerEntry]]] = field(default_factory=dict)
    chunks: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    """Chunks in which labels are."""
    explained: tuple[int, LedgerEntry] | None = None
    explained_of: dict[str, tuple[int, LedgerEntry]] = field(default_factory=dict)
    """Revision → its newest explanation, of the revisions that were explained last."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Type → entries that ``entries`` no longer holds."""
    predicted: tuple[int, LedgerEntry] | None = None
    explained_ids: Distinct = field(default_factory=Distinct)
    """Ids that explanations are of: a request may have several."""
    recent: dict[str, deque[tuple[int, LedgerEntry]]] = field(default_factory=dict)
    """Type → its newest entries."""
    dataset: DatasetManifest | None = None
    """What the newest dataset entry says."""
    gates: GateTable | None = None
    """What the newest gates entry says."""
    drifts: list[DriftAlarm] = field(default_factory=list)
    keys: list[KeyEvent] = field(default_factory=list)

    def latest(self, type: str) -> tuple[int, LedgerEntry] | None:
        """(index, entry) of the newest entry of a seldom type."""
        entries = self.entries.get(type)
        return entries[-1] if entries else None

    def index(self, type: str) -> int | None:
        """Index of the newest entry of a type."""
        entry = self.latest(type)
        return entry[0] if entry else None


@dataclass
class Example:
    """One request: what was asked and answered, its explanation, and the proofs that both are in the ledger."""

    id: str
    proofs: list[Proof] = field(default_factory=list)
    prediction: ShownRequest | None = None
    explanation: list[ShownExplanation] = field(default_factory=list)


@dataclass
class Dossier:
    """``report`` is the GovernanceReport's status; ``documents`` the artefact's; ``notes`` what couldn't be had."""

    model: str
    made: datetime
    report: Report = field(default_factory=Report)
    ledger: LedgerView | None = None
    documents: Documents = field(default_factory=Documents)
    keys: list[KeyInfo] = field(default_factory=list)
    served: Served | None = None
    example: Example | None = None
    notes: list[str] = field(default_factory=list)
    manifest: GovernedModelSpec | None = None
    """What the model was declared to be; None: no manifest was given."""

    @property
    def generates(self) -> bool:
        """It writes text: the manifest or what counts as favourable says so."""
        return bool(self.pattern) or (self.manifest is not None and self.manifest.generates)

    @property
    def decides(self) -> bool:
        """It classifies or estimates: the artefact, the verdict or the manifest says so."""
        outcome = self.auditor.favorable_outcome if self.auditor else None
        said = outcome is not None and (outcome.label is not None or outcome.threshold is not None)
        trained = bool(self.card.task) or self.documents.training is not None
        return not self.generates and (trained or said or self.manifest is not None)

    @property
    def auditor(self) -> BiasVerdict | None:
        """The auditor's part of the report: the live verdict."""
        return self.report.auditor

    @property
    def data(self) -> DatasetManifest | None:
        """The data-set manifest: from the artefact, else from report or ledger (without its schema)."""
        training, trainer = self.documents.training, self.report.trainer
        sources = (training.dataset if training else None, trainer.data if trainer else None, self._recorded_data)
        return next((source for source in sources if source is not None and source.model_fields_set), None)

    @property
    def data_audit(self) -> DataAudit:
        """The audit of the labels, per protected attribute."""
        evaluation, data, recorded = self.documents.evaluation, self.data, self._recorded_data
        audits = (evaluation.data if evaluation else {}, data.audit if data else {}, recorded.audit if recorded else {})
        return next((audit for audit in audits if audit), {})

    @property
    def watched(self) -> list[str]:
        """Protected attributes of the live verdict."""
        return list(self.auditor.attributes) if self.auditor else []

    @property
    def pattern(self) -> str:
        """What is searched in generated text; empty for a model that generates none."""
        outcome = self.auditor.favorable_outcome if self.auditor else None
        return (outcome.pattern or "") if outcome else ""

    @property
    def bands(self) -> dict[str, list[float]]:
        """Attribute or stratum of numbers → borders of its bands: as the verdict says, else as training was audited."""
        return {**self.card.bands, **(self.auditor.bands if self.auditor else {})}

    @property
    def card(self) -> ModelCard:
        """model.json; empty where there is none."""
        return self.documents.model or ModelCard()

    @property
    def evaluation(self) -> Evaluation:
        """evaluation.json; empty where there is none."""
        return self.documents.evaluation or Evaluation()

    @property
    def metrics(self) -> dict[str, float]:
        """Quality on held-out rows: from the artefact, else from the report."""
        return self.evaluation.metrics or (self.report.trainer.metrics if self.report.trainer else {})

    @property
    def shipped(self) -> ShippedArtefact:
        """The artefact that the trainer reported; empty where it reported none."""
        return (self.report.trainer.artefact if self.report.trainer else None) or ShippedArtefact()

    @property
    def gates(self) -> list[GateResult]:
        """The gate table: as it was measured, from report or ledger; else from the artefact (without timings)."""
        trainer, ledger, document = self.report.trainer, self.ledger, self.documents.gates
        recorded = ledger.gates if ledger else None
        sources = (trainer.gates if trainer else [], recorded.gates if recorded else [])
        return next((gates for gates in sources if gates), document.gates if document else [])

    @property
    def _recorded_data(self) -> DatasetManifest | None:
        return self.ledger.dataset if self.ledger else None


@dataclass(frozen=True)
class Archived:
    """An archive and what a person kept of it: ``vkey``, the verifier key that must have signed (default: the
    archive's own), and ``earlier`` checkpoints, which must be of the same log."""

    source: LogSource
    vkey: str = ""
    earlier: tuple[str, ...] = ()


def gather(
    model: str,
    *,
    report: Mapping[str, object],
    archive: Archived | None = None,
    kek: Kek | None = None,
    documents: Mapping[str, object] | None = None,
    example: str = "",
    made: datetime | None = None,
    manifest: GovernedModelSpec | None = None,
) -> Dossier:
    """Collect a dossier. ``kek`` opens what is encrypted; ``documents`` are those of an artefact that is at hand;
    ``example``: id of the request to show; ``manifest``: what the model was declared to be. What can't be read is noted
    in it, never guessed; a ledger that doesn't verify is said so in it."""
    dossier = Dossier(model, made or datetime.now(UTC), manifest=manifest)
    dossier.report = read_report(report, dossier.notes)
    dossier.documents = read_documents(documents or {}, dossier.notes)
    if archive is None:
        dossier.notes.append("No archive was given: what follows rests on the report alone and is not proved.")
        return dossier
    source = archive.source
    dossier.ledger = _read_ledger(source, model)
    _read_summaries(dossier.ledger, dossier.notes)
    _hold_verdict(dossier, dossier.ledger)
    with_id = example or _example_id(dossier.ledger)
    _verify(dossier, archive, with_id)
    _attempt(dossier, "keys", lambda: _inventory(dossier, source))
    if kek is None:
        dossier.notes.append(
            "No model key was given: encrypted content (artefact, requests, explanations) stays closed."
        )
        return dossier
    if not documents:
        _attempt(dossier, "artefact", lambda: _open_artefact(dossier, source, kek))
    _attempt(dossier, "served predictions", lambda: _fold(dossier, source, kek))
    if dossier.example:
        _attempt(dossier, "example request", lambda: _open_example(dossier, source, kek))
    return dossier


def _hold_verdict(dossier: Dossier, view: LedgerView) -> None:
    """That a model passes is what the newest verdict in the ledger says, whatever a report claims: pods write reports,
    and a report may be older. What is claimed against the model stands."""
    told = dossier.report.auditor
    if told is None or view.error or told.verdict != "Pass":
        return
    of_revision = [(i, e) for i, e in view.entries.get(VERDICT, []) if not told.revision or e.revision == told.revision]
    index, said = (of_revision[-1][0], of_revision[-1][1].summary.get("verdict")) if of_revision else (None, None)
    if said == told.verdict:
        return
    where = "no entry of the ledger does" if index is None else f"the newest in the ledger, entry {index}, says {said}"
    word: VerdictWord = "Fail" if said == "Fail" else "Unknown"
    dossier.notes.append(f"The report says Pass, {where}: the ledger counts.")
    dossier.report = replace(dossier.report, auditor=told.changed(verdict=word))


def _attempt(dossier: Dossier, what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except _ERRORS as error:
        dossier.notes.append(f"Not shown: {what} ({error}).")


def _read_ledger(source: LogSource, model: str) -> LedgerView:
    view = LedgerView()
    try:
        for index, entry in _entries(source):
            if entry.model == model:
                _note(view, index, entry)
    except _ERRORS as error:
        view.error = str(error)
    return view


def _read_summaries(view: LedgerView, notes: list[str]) -> None:
    """What the entries of seldom types say in their summaries."""
    dataset, gates = view.latest("dataset"), view.latest("gates")
    if dataset is not None:
        view.dataset = read_part(DatasetManifest, dataset[1].summary, f"ledger entry {dataset[0]}", notes)
    if gates is not None:
        view.gates = read_part(GateTable, gates[1].summary, f"ledger entry {gates[0]}", notes)
    for index, entry in view.entries.get("importanceDrift", []):
        drift = read_part(DriftSummary, entry.summary, f"ledger entry {index}", notes) or DriftSummary()
        view.drifts.append(DriftAlarm(index, entry.time, drift))
    for index, entry in view.entries.get("key", []):
        key = read_part(KeySummary, entry.summary, f"ledger entry {index}", notes) or KeySummary()
        view.keys.append(KeyEvent(index, entry.time, key.purpose, key.action or entry.id, entry.digest))


def _entries(source: LogSource) -> Iterator[tuple[int, LedgerEntry]]:
    decoder = msgspec.json.Decoder(LedgerEntry)
    from governed_serving.archive.ledger.note import Checkpoint

    for leaf in source.leaves(Checkpoint.unverified(source.checkpoint()).size):
        yield leaf.index, decode_with(decoder, leaf.data)


def _note(view: LedgerView, index: int, entry: LedgerEntry) -> None:
    view.counts[entry.type] = view.counts.get(entry.type, 0) + 1
    view.recent.setdefault(entry.type, deque(maxlen=RECENT)).append((index, entry))
    view.first = view.first or entry.time
    view.last = max(view.last, entry.time)
    if entry.type in KEPT and (entry.type != VERDICT or is_bias_verdict(entry)):
        kept = view.entries.setdefault(entry.type, [])
        kept.append((index, entry))
        if len(kept) > _KEPT.get(entry.type, _KEPT_EACH):
            del kept[0]
            view.dropped[entry.type] = view.dropped.get(entry.type, 0) + 1
    elif entry.type == "explanation":
        view.explained_ids.add(entry.id)
        view.explained = (index, entry)
        view.explained_of.pop(entry.revision, None)
        view.explained_of[entry.revision] = view.explained
        if len(view.explained_of) > _KEPT_EACH:
            del view.explained_of[next(iter(view.explained_of))]
    elif entry.type == "prediction":
        view.predicted = (index, entry)
    if entry.blob and entry.frame is not None and (not view.chunks or view.chunks[-1] != entry.blob):
        view.chunks.append(entry.blob)
    if entry.type == "label" and entry.blob and (not view.labelled or view.labelled[-1] != entry.blob):
        view.labelled.append(entry.blob)


def _example_id(view: LedgerView) -> str:
    chosen = view.explained or view.predicted
    return chosen[1].id if chosen else ""


def _verify(dossier: Dossier, archive: Archived, id: str) -> None:
    assert dossier.ledger is not None
    try:
        dossier.ledger.verification = verify(archive.source, vkey=archive.vkey, earlier=archive.earlier, id=id)
        if id:
            dossier.example = Example(id, dossier.ledger.verification.proofs)
    except _ERRORS as error:
        dossier.ledger.error = str(error)


def _inventory(dossier: Dossier, source: LogSource) -> None:
    # The inventory reads the documents without opening them, so any key will do.
    dossier.keys = Keyring(Kek(bytes(32)), source.keysets(dossier.model)).inventory()


def _open_artefact(dossier: Dossier, source: LogSource, kek: Kek) -> None:
    assert dossier.ledger is not None
    recorded = dossier.ledger.latest("artefact")
    if recorded is None or not recorded[1].blob:
        dossier.notes.append("Not shown: artefact (the ledger names none; it was not trained here).")
        return
    entry = recorded[1]
    keyset = Keyring(kek, source.keysets(dossier.model)).keyset("artefact", create=False)
    packed = keyset.open(source.blob_bytes(entry.blob), entry.digest.encode())
    files = unpack(packed, entry.digest)
    decoded = {n: decode_json(d) for n, d in files.items() if n.endswith(".json")}
    dossier.documents = read_documents(decoded, dossier.notes)


def _fold(dossier: Dossier, source: LogSource, kek: Kek) -> None:
    assert dossier.ledger is not None
    if not dossier.ledger.chunks:
        return
    audit, card = dossier.data_audit, dossier.card
    strata = [stratum for table in audit.values() for stratum in table.strata]
    rules = ServedRules(
        axes=[*(audit or dossier.watched), *strata],
        groupings=_groupings(dossier),
        label=card.favorable,
        threshold=card.threshold,
        pattern=dossier.pattern or None,
        classes=frozenset(word_of(name) for name in card.classes),
    )
    chunks = JournalChunks(dossier.ledger.chunks, dossier.ledger.labelled)
    dossier.served = fold_served(source, kek, dossier.model, chunks, rules)
    if dossier.served.left_out:
        dossier.notes.append(
            f"Counts of what was served are of the newest {MOST_CHUNKS:,} of {dossier.served.chunks_known:,} pieces of "
            f"the journal: {dossier.served.left_out:,} older ones were not opened."
        )


def _groupings(dossier: Dossier) -> dict[str, Grouping]:
    """How attributes and strata of numbers are grouped; by the training range where no bands are known."""
    features = [f for f in dossier.card.features if f.type == "numeric"]
    ranges = {f.name: Grouping.of(f.name, f.min, f.max) for f in features}
    return ranges | {name: Grouping(name, tuple(edges)) for name, edges in dossier.bands.items()}


def _open_example(dossier: Dossier, source: LogSource, kek: Kek) -> None:
    assert dossier.example is not None
    for proof in dossier.example.proofs:
        entry = decode_json(proof.entry, type=LedgerEntry)
        if entry.type == "prediction" and entry.model == dossier.model:
            dossier.example.prediction = msgspec.convert(opened_record(source, kek, entry), ShownRequest)
        elif entry.type == "explanation" and entry.model == dossier.model:
            body = opened_record(source, kek, entry)["body"]
            told = msgspec.convert(body, ExplanationBody).explanations
            dossier.example.explanation = [*told, *dossier.example.explanation]  # the newest first


def opened_example(dossier: Dossier, source: LogSource, kek: Kek) -> None:
    """Open what the entries of the example commit to; what can't be opened is noted."""
    _attempt(dossier, "example request", lambda: _open_example(dossier, source, kek))


def document_files(folder: Path) -> dict[str, object]:
    """JSON files of an unpacked artefact."""
    return {path.name: decode_json(read_regular(path, follow=True)) for path in sorted(folder.glob("*.json"))}

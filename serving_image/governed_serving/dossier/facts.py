"""What the console shows of a dossier, as JSON: the verified ledger, judged clauses, contests and the page itself; or
one decision with its proofs. Nothing is found here that the page doesn't find."""

from collections.abc import Sequence

import msgspec

from governed_api.json_types import Json
from governed_serving.archive.errors import NoSuchEntry
from governed_serving.archive.verify.verification import Proof, verify
from governed_serving.crypto import Kek
from governed_serving.decoding import decode_json
from governed_serving.dossier.contests import Contest, contests
from governed_serving.dossier.documents import ShownExplanation, ShownRequest
from governed_serving.dossier.dossier import Archived, Dossier, Example, LedgerView, opened_example
from governed_serving.dossier.laws.judging import Clause, judge_clauses
from governed_serving.dossier.laws.pack import Pack
from governed_serving.dossier.page import page_body
from governed_serving.records import LedgerEntry

__all__ = ["decision_facts", "model_facts"]

MOST_CONTESTS = 50
"""Newest contests that are told."""


class _Listed(msgspec.Struct, frozen=True):
    """An entry in a line."""

    index: int
    type: str
    id: str
    time: str
    revision: str


class _Ledger(msgspec.Struct, frozen=True):
    """``error``: why it doesn't verify; ``origin``, ``size``, ``root`` and ``vkey`` are empty then. ``counts`` by type
    and ``recent``: of the model's entries, newest first; ``explained``: requests with an explanation."""

    error: str
    origin: str
    size: int
    root: str
    vkey: str
    counts: dict[str, int]
    explained: int
    recent: list[_Listed]


class _ModelFacts(msgspec.Struct, frozen=True):
    model: str
    made: str
    ledger: _Ledger | None
    clauses: list[Clause]
    laws: list[dict[str, str]]
    contests: list[Contest]
    notes: list[str]
    page: str


class _Proved(msgspec.Struct, frozen=True):
    """An entry about the decision. ``leaf``: its bytes; ``hashes``: of its inclusion proof, in hexadecimal."""

    index: int
    type: str
    time: str
    revision: str
    summary: dict[str, Json]
    leaf: str
    hashes: list[str]


class _DecisionFacts(msgspec.Struct, frozen=True):
    """``entries`` is empty where the model has no entry with this id."""

    id: str
    origin: str = ""
    size: int = 0
    root: str = ""
    entries: list[_Proved] = []
    request: ShownRequest | None = None
    explanations: list[ShownExplanation] = []
    notes: list[str] = []


def model_facts(dossier: Dossier, laws: Sequence[Pack]) -> bytes:
    """Of the whole dossier."""
    known, clauses = contests(dossier.ledger, dossier.made), judge_clauses(dossier, laws)
    facts = _ModelFacts(
        dossier.model,
        dossier.made.strftime("%Y-%m-%dT%H:%M:%SZ"),
        _ledger(dossier.ledger) if dossier.ledger else None,
        clauses,
        [{"title": law.title, "text": law.text, "note": law.note} for law in laws],
        known[-MOST_CONTESTS:],
        dossier.notes,
        str.__str__(page_body(dossier, laws, clauses)),  # plain: no subclass is written as JSON
    )
    return msgspec.json.encode(facts)


def _ledger(view: LedgerView) -> _Ledger:
    verified = view.verification
    recent = sorted((one for newest in view.recent.values() for one in newest), key=lambda one: -one[0])
    listed = [_Listed(index, entry.type, entry.id, entry.time, entry.revision) for index, entry in recent]
    found = (verified.origin, verified.size, verified.root, verified.vkey) if verified else ("", 0, "", "")
    return _Ledger(view.error, *found, view.counts, len(view.explained_ids), listed)


def decision_facts(dossier: Dossier, archived: Archived, kek: Kek | None, id: str) -> bytes:
    """Of the request ``id``: every entry of the model with that id, proved under the ledger's checkpoint, and what they
    commit to where ``kek`` opens it. Raises ArchiveError, NoteError for a ledger that doesn't verify."""
    try:
        found = verify(archived.source, vkey=archived.vkey, earlier=archived.earlier, id=id, blobs=False)
    except NoSuchEntry:
        return msgspec.json.encode(_DecisionFacts(id))
    decoded = [(proof, decode_json(proof.entry, type=LedgerEntry)) for proof in found.proofs]
    own = [(proof, entry) for proof, entry in decoded if entry.model == dossier.model]
    dossier.example = Example(id, [proof for proof, _ in own])
    if kek is None:
        dossier.notes.append("No model key was given: what was asked and answered stays closed.")
    else:
        opened_example(dossier, archived.source, kek)
    facts = _DecisionFacts(
        id,
        found.origin,
        found.size,
        found.root,
        [_proved(proof, entry) for proof, entry in own],
        dossier.example.prediction,
        dossier.example.explanation,
        dossier.notes,
    )
    return msgspec.json.encode(facts)


def _proved(proof: Proof, entry: LedgerEntry) -> _Proved:
    leaf = bytes(proof.entry).decode(errors="replace")
    return _Proved(proof.index, entry.type, entry.time, entry.revision, entry.summary, leaf, proof.hashes)

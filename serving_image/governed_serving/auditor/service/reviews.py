"""Where people come in: acknowledging an alarm, contesting a single decision, deciding what was contested. Each leaves
an entry in the ledger."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from governed_api.names import request_id_fault
from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.contests import REVIEW
from governed_serving.auditor.service.decision_review import SWAPPED_WORDS, DecisionReview
from governed_serving.auditor.service.errors import NotFound, Unavailable, Unusable
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.texts import text_fault
from governed_serving.crypto import Subjects
from governed_serving.decoding import decode_json
from governed_serving.records import EventRecord, timestamp

__all__ = ["OUTCOMES", "Decision", "Reviewing", "acknowledgement", "contest", "parse_decision", "record_of"]

T = TypeVar("T", bound=msgspec.Struct)
MAX_BY = 256
MAX_REASON = 4096
MOST = 100
"""Entries of a type that a record shows."""

Entry = dict[str, Any]
"""An entry of the ledger as it is there, with ``ledgerIndex``."""


class Acknowledgement(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/acknowledgements: who answers for going on, and why."""

    by: str
    reason: str


class Contest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/reviews: the request whose decision is contested, by whom, and why."""

    id: str
    by: str
    reason: str


Outcome = Literal["Upheld", "Changed", "Withdrawn"]
OUTCOMES: tuple[Outcome, ...] = ("Upheld", "Changed", "Withdrawn")
"""The decision stands; another one takes its place; who contested it let it go."""


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/reviews/{id}/decision: who decided, to what end, and why."""

    by: str
    outcome: Outcome
    reason: str


class Record(TypedDict):
    """What the ledger holds of a request: entries as they are there, with ``ledgerIndex``."""

    id: str
    prediction: Entry
    explanations: list[Entry]
    labels: list[Entry]
    decisions: list[Entry]
    """What closed the reviews before them."""
    reviews: list[Entry]
    leftOut: list[str]
    """Types of which there are older entries than those that are shown."""


def acknowledgement(state: AuditState, body: bytes, now: float) -> EventRecord:
    """The event of a person taking over the alarm. Raises Unusable, NotFound."""
    _parse(body, Acknowledgement)
    if state.tail is None or not state.tail.fold.alarm.active:
        raise NotFound("no alarm is active: there is nothing to acknowledge")
    # Names and reasons are in the body, which is encrypted and can be forgotten; the ledger's summary can't.
    summary = {"kind": "alarm", "verdict": state.verdict.id}
    about = state.subject
    return EventRecord("acknowledgement", "alarm", about.model, about.revision, now, body, summary)


@dataclass(frozen=True)
class Reviewing:
    """What it takes to have a decision reviewed: where it is recorded, who explains it, within how many ``seconds`` a
    person decides it, and the keys under which what a person says is sealed."""

    subject: Subject
    archive: ArchiveClient | None
    explanation: DecisionReview | None
    seconds: int
    subjects: Subjects | None = None


def contest(reviewing: Reviewing, body: bytes, now: float) -> tuple[EventRecord, dict[str, object]]:
    """The event of a contested decision, and what a reviewer needs: record, explanation, counterfactual, deadline.

    Raises Unusable, NotFound, Unavailable, ArchiveError, CryptoError.
    """
    asked = _parse(body, Contest)
    record, subject = record_of(reviewing.archive, asked.id), reviewing.subject
    answers = reviewing.explanation.of(record["prediction"]) if reviewing.explanation is not None else {}
    deadline = timestamp(now + reviewing.seconds)
    about = {"prediction": record["prediction"]["ledgerIndex"], "deadline": deadline}
    summary = {"kind": "review", "state": "open", **about}
    counterfactual = answers.get("counterfactual")
    if isinstance(counterfactual, dict) and counterfactual.get("method") == SWAPPED_WORDS:  # nobody else records it
        body = msgspec.json.encode({**msgspec.structs.asdict(asked), "counterfactual": counterfactual})
    event = EventRecord("acknowledgement", asked.id, subject.model, subject.revision, now, body, summary)
    who = record["prediction"].get("summary", {}).get("subject", "")
    if who:
        event = _sealed(event, who, reviewing.subjects)
    return event, {**record, **answers, "deadline": deadline}


def _sealed(event: EventRecord, who: str, subjects: Subjects | None) -> EventRecord:
    """What a person says of their own decision goes when they are erased."""
    if subjects is None:
        raise Unavailable("the model's keys aren't here: what is said about a person can't be sealed")
    sealed = subjects.seal_event(event, who)
    if sealed is None:
        raise NotFound(f"request {event.id!r}: the person it was about is erased: there is nothing left to review")
    return sealed


def parse_decision(request_id: str, body: bytes) -> Decision:
    """What a body decides about a request. Raises Unusable."""
    decided = _parse(body, Decision)
    if fault := request_id_fault(request_id):
        raise Unusable(f"id: {fault}")
    return decided


def record_of(archive: ArchiveClient | None, request_id: str) -> Record:
    """Ledger entries of a request: its prediction, explanations, labels, reviews; the newest 100 of each type, so that
    a flood of one pushes out no other, and in ``leftOut`` the types that have older ones."""
    if archive is None:
        raise Unavailable("no archive is configured: the record of a decision can't be looked up")

    left_out: list[str] = []

    def of_type(type: str, limit: int = MOST) -> list[Entry]:
        entries = archive.find(id=request_id, type=type, limit=limit + 1)
        if len(entries) > limit and limit == MOST:
            left_out.append(type)
        return [{"ledgerIndex": f.index, **f.fields()} for f in entries[-limit:]]

    predictions = of_type("prediction", 1)
    if not predictions:
        raise NotFound(
            f"request {request_id!r}: no prediction of that id is in the ledger (yet); it comes within seconds"
        )
    return {
        "id": request_id,
        "prediction": predictions[-1],
        "explanations": of_type("explanation"),
        "labels": of_type("label"),
        "decisions": of_type(REVIEW),
        "reviews": [e for e in of_type("acknowledgement") if e.get("summary", {}).get("kind") == "review"],
        "leftOut": left_out,
    }


def _parse(body: bytes, kind: type[T]) -> T:
    try:
        parsed = decode_json(body, type=kind)
    except msgspec.DecodeError as error:
        fields = ", ".join(f.name for f in msgspec.structs.fields(kind))
        raise Unusable(f"body: expected an object with {fields} ({error})") from None
    for field in msgspec.structs.fields(kind):
        if field.name != "outcome" and (fault := _fault(field.name, getattr(parsed, field.name).strip())):
            raise Unusable(f"{field.name}: {fault}")
    return parsed


def _fault(name: str, value: str) -> str:
    """What is wrong with one of a body's texts; "" when nothing is."""
    if name == "id" and value:
        return request_id_fault(value)
    lines = name == "reason"
    return text_fault(value, MAX_REASON if lines else MAX_BY, lines=lines)

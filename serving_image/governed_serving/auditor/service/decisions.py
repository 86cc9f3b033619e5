"""Exactly one decision of a contest, whoever sends how many, to whichever pod, before or after a restart.

The ledger takes each number of a stream once. A decision is number 0 of a stream named by the contest's own entry, with
its sealed record as a blob of its own: the first is recorded, a contrary one is told which, the same one again is the
same. Nothing of it waits in a journal.
"""

from collections.abc import Sequence

from governed_serving.archive.client import ArchiveClient, FetchedEntry
from governed_serving.archive.errors import Refused
from governed_serving.auditor.service.contests import REVIEW, OpenContest, read_contests
from governed_serving.auditor.service.entries import entries_of
from governed_serving.auditor.service.errors import Decided, NotFound
from governed_serving.auditor.service.reviews import Decision, parse_decision
from governed_serving.auditor.service.state import Subject
from governed_serving.crypto import CryptoError, SegmentCipher, Subjects
from governed_serving.decoding import decode_json
from governed_serving.journal import chunk_of, open_chunk
from governed_serving.records import DECISION_STREAM, EventRecord, LedgerEntry, personal_key

__all__ = ["Decisions"]

_TAKEN = 409
Summary = dict[str, object]


class Decisions:
    """Of one model's contests, in ``archive``; records are sealed by ``cipher``. ``seconds``: within which one without
    a deadline is to be decided."""

    def __init__(
        self,
        archive: ArchiveClient,
        cipher: SegmentCipher,
        namespace: str,
        subject: Subject,
        seconds: int,
        subjects: Subjects | None = None,
    ) -> None:
        self._subjects = subjects
        self._archive, self._cipher, self._namespace = archive, cipher, namespace
        self._subject, self._seconds = subject, seconds

    def decide(self, request_id: str, body: bytes, now: float) -> Summary:
        """Record what ``body`` decides, at ``now``; what the ledger says of it. Raises Unusable, NotFound, Decided,
        ArchiveError, CryptoError."""
        decided = parse_decision(request_id, body)
        standing = read_contests(self._archive, self._seconds, request_id)
        if not standing:
            return self._again(request_id, decided)
        summary = _summary(standing, decided, now)
        about = self._subject
        event = EventRecord("review", request_id, about.model, about.revision, now, body, summary)
        event = self._sealed(event)
        stream = f"{DECISION_STREAM}{min(one.entry for one in standing)}"
        chunk = chunk_of(stream, event, self._cipher, now)
        ((entry, _),) = entries_of(chunk, self._namespace)
        self._archive.put_blob(chunk.data)
        try:
            self._archive.append_batch(stream, 0, [entry])
        except Refused as error:
            if error.status != _TAKEN:
                raise
            return self._again(request_id, decided)
        return event.summary

    def _sealed(self, event: EventRecord) -> EventRecord:
        """Under the person's key where there is one: of who is erased, a contest can still be closed."""
        entries = self._archive.find(id=event.id, type="prediction", limit=1)
        who = decode_json(entries[-1].entry, type=LedgerEntry).summary.get("subject") if entries else None
        sealed = self._subjects.seal_event(event, str(who)) if who and self._subjects else None
        return sealed or event

    def _again(self, request_id: str, decided: Decision) -> Summary:
        """What was recorded, where it is the same decision."""
        recorded = self._archive.find(id=request_id, type=REVIEW, limit=1)
        if not recorded:
            raise NotFound(
                f"request {request_id!r}: no contest of it is open (or it isn't in the ledger yet; it comes within "
                "seconds)"
            )
        entry = decode_json(recorded[-1].entry, type=LedgerEntry)
        earlier = self._content(recorded[-1], entry)
        if earlier == decided:
            return dict(entry.summary)
        by = f" by {earlier.by}" if earlier else ""
        record: Summary = {"ledgerIndex": recorded[-1].index, "time": entry.time, **entry.summary}
        if earlier is not None:
            record |= {"by": earlier.by, "reason": earlier.reason}
        raise Decided(
            f"request {request_id!r}: was decided{by} at {entry.time}: {entry.summary.get('outcome')} (entry "
            f"{recorded[-1].index}); it can be contested again",
            record,
        )

    def _content(self, found: FetchedEntry, entry: LedgerEntry) -> Decision | None:
        """None where it can't be read any more."""
        try:
            frames = dict(open_chunk(self._archive.get_blob(entry.blob, entry=found.index), self._cipher))
        except (CryptoError, Refused):
            return None
        record = frames.get(entry.frame or 0)
        if not isinstance(record, EventRecord) or personal_key(record):
            return None
        return decode_json(record.body, type=Decision)


def _summary(standing: Sequence[OpenContest], decided: Decision, now: float) -> Summary:
    """Names and reasons are in the body, which is encrypted and can be forgotten; the ledger's summary can't."""
    return {
        "state": "decided",
        "outcome": decided.outcome,
        "contests": [earlier.entry for earlier in standing],
        "deadline": standing[0].deadline,
        "late": standing[0].overdue(now),
    }

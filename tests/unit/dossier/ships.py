"""As much of the shipper as a report needs: a stream's chunks as blobs, and their records as ledger entries."""

from governed_serving.archive.service import Archive
from governed_serving.journal import JournalReader
from governed_serving.records import EventRecord, ExplanationRecord, LedgerEntry

__all__ = ["shipped"]

TIME = "2026-01-01T00:00:00.000Z"


def shipped(archive: Archive, model: str, reader: JournalReader) -> list[LedgerEntry]:
    """Puts the chunks into ``archive``; the entries, in the stream's order, are the caller's to append."""
    entries, following = [], 0
    while chunk := reader.chunk(following):
        following = chunk.last_seq + 1
        archive.blobs.put(chunk.digest, chunk.data)
        for number, record in enumerate(chunk.records, chunk.first_seq):
            kind, ids = "prediction", getattr(record, "ids", None) or [record.id]  # type: ignore[union-attr]
            if isinstance(record, ExplanationRecord):
                kind = "explanation"
            elif isinstance(record, EventRecord):
                kind = record.type
            entries += [
                LedgerEntry(kind, "default", model, one, TIME, record.revision, chunk.digest, number, place)
                for place, one in enumerate(ids)
            ]
    return entries

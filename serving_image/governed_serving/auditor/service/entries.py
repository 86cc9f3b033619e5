"""Ledger entries of a shipped chunk: one per prediction, explanation and event."""

import json
from collections.abc import Iterator

import numpy as np

from governed_serving.journal import Chunk
from governed_serving.records import (
    EventRecord,
    ExplanationRecord,
    Frame,
    LedgerEntry,
    PredictionFrame,
    canonical,
    timestamp,
)

__all__ = ["entries_of"]


def entries_of(chunk: Chunk, namespace: str) -> Iterator[tuple[bytes, Frame]]:
    """(canonical entry, its record), in the order of the stream. The same chunk gives the same bytes, whenever it is asked."""
    blob = chunk.digest
    for seq, record in enumerate(chunk.records, chunk.first_seq):
        if isinstance(record, PredictionFrame):
            for entry in _predictions(record, blob, seq, namespace):
                yield entry, record
        else:
            yield canonical(_single(record, blob, seq, namespace)), record


def _single(record: ExplanationRecord | EventRecord, blob: str, seq: int, namespace: str) -> LedgerEntry:
    event = isinstance(record, EventRecord)
    return LedgerEntry(
        record.type if isinstance(record, EventRecord) else "explanation",
        namespace,
        record.model,
        record.id,
        timestamp(record.time),
        record.revision,
        blob=blob,
        frame=seq,
        summary=record.summary if isinstance(record, EventRecord) and event else {},
    )


def _predictions(frame: PredictionFrame, blob: str, seq: int, namespace: str) -> Iterator[bytes]:
    """Byte for byte what ``canonical`` makes, from a template: the part that differs is three fields (a test compares them)."""
    example = LedgerEntry("prediction", namespace, frame.model, "\u241f", "\u241e", frame.revision, blob, seq, 0)
    head, rest = canonical(example).split(b'"\xe2\x90\x9f"')
    between, tail = rest.split(b'"\xe2\x90\x9e"')
    before, after = between.split(b'"index":0', 1)
    before += b'"index":'
    times = np.frombuffer(frame.times, "<f8").tolist()
    stamps: dict[float, bytes] = {}
    for index, (request, time) in enumerate(zip(frame.ids, times, strict=True)):
        stamp = stamps.get(time)
        if stamp is None:
            stamp = stamps[time] = b'"' + timestamp(time).encode() + b'"'
        name = json.dumps(request, ensure_ascii=False).encode()
        yield b"".join((head, name, before, b"%d" % index, after, stamp, tail))

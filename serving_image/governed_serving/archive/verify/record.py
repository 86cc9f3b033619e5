"""What a ledger entry commits to, opened with the model's key: one request as it was answered."""

from typing import Any

import msgspec
import numpy as np

from governed_api.json_types import Scalar
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.verify.sources import LogSource
from governed_serving.crypto import CryptoError, Kek, Keyring, SegmentCipher, Subjects
from governed_serving.decoding import decode_json
from governed_serving.journal import JournalError, numbers, open_chunk, strings
from governed_serving.records import (
    Column,
    EventRecord,
    Frame,
    LedgerEntry,
    PredictionFrame,
    SubjectFrame,
    personal_key,
)

__all__ = ["opened_frame", "opened_record"]


def opened_record(source: LogSource, kek: Kek, entry: LedgerEntry) -> dict[str, Any]:
    """Content behind ``entry`` (a prediction, explanation or event in a journal chunk), ready for JSON.

    Raises ArchiveError when the entry has no content, its key was destroyed, or the blob isn't what was shipped.
    """
    if not entry.blob or entry.frame is None:
        raise ArchiveError(
            f"entry {entry.id} ({entry.type}) has no journalled content; all it says is in the entry itself"
        )
    try:
        store = source.keysets(entry.model)
        cipher = SegmentCipher(Keyring(kek, store).keyset("journal", create=False), Subjects(kek, store))
        for seq, frame in open_chunk(source.blob_bytes(entry.blob), cipher):
            if seq == entry.frame:
                return _content(frame, entry)
    except (CryptoError, JournalError, FileNotFoundError) as error:
        raise ArchiveError(f"the content of entry {entry.id} can't be opened: {error}") from error
    raise ArchiveError(
        f"blob {entry.blob} holds no frame {entry.frame}: the entry names another place than its content's"
    )


def opened_frame(frame: Frame | None, entry: LedgerEntry) -> dict[str, object] | None:
    """Content of a prediction or of what was said about it; None when the person it was about is erased, or the frame
    isn't there."""
    if isinstance(frame, EventRecord) and not personal_key(frame):
        return {"type": frame.type, **_content(frame, entry)}
    return _prediction(frame, entry) if isinstance(frame, PredictionFrame) else None


def _content(frame: Frame, entry: LedgerEntry) -> dict[str, object]:
    if isinstance(frame, PredictionFrame):
        return _prediction(frame, entry)
    if isinstance(frame, SubjectFrame) or (isinstance(frame, EventRecord) and personal_key(frame)):
        raise ArchiveError(f"the person whom entry {entry.id} is about is erased: the key of its content was destroyed")
    if frame.id != entry.id:
        raise ArchiveError(f"frame {entry.frame} is about {frame.id}, the entry about {entry.id}")
    return {"id": frame.id, "body": _json(frame.body)}


def _prediction(frame: PredictionFrame, entry: LedgerEntry) -> dict[str, object]:
    places = [i for i, id in enumerate(frame.ids) if id == entry.id]
    if not places:
        raise ArchiveError(f"frame {entry.frame} holds {len(frame.ids)} requests, none with id {entry.id}")
    place = entry.index if entry.index in places else places[0]
    assert place is not None
    rows = np.frombuffer(frame.rows, "<i4")
    start = int(rows[:place].sum())
    end = start + int(rows[place])
    caller = frame.callers[place] if place < len(frame.callers) else ""
    return {
        "id": entry.id,
        **({"caller": caller} if caller else {}),
        "revision": frame.revision,
        "artefact": frame.artefact,
        "features": {name: _values(column, start, end) for name, column in frame.features.items()},
        "outputs": {name: _values(column, start, end) for name, column in frame.outputs.items()},
    }


def _values(column: Column, start: int, end: int) -> list[Scalar] | dict[str, object]:
    """A tensor that was kept by its digest reads as datatype, shape and digest."""
    if column.sha256:
        return {"datatype": column.dtype, "shape": column.shape, "sha256": column.sha256}
    values = strings(column) if column.dtype == "BYTES" else numbers(column)
    return list(values[start:end].tolist())


def _json(body: bytes) -> object:
    try:
        return decode_json(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace")

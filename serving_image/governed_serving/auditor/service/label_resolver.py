"""Labels whose prediction another replica served, or that came after it was forgotten: found in the ledger by request
id.

Of several labels for one request the first in the ledger counts, and whoever took that one in counts it: so each counts
once, wherever it was posted. The row's place in the counts comes from the prediction itself, opened from its blob.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import msgspec

from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.labels import Row, Waiting
from governed_serving.completions.generated import state_of
from governed_serving.crypto import SegmentCipher
from governed_serving.journal import open_chunk
from governed_serving.journal.chunk import chunk_identity
from governed_serving.records import EventRecord, Frame, PredictionFrame, timestamp

__all__ = ["CrossReplicaLabelResolver", "Settled"]

PER_STEP = 500
_PATIENCE = 5.0
"""Seconds for a label's own prediction to be folded, and between looks for one that isn't in the ledger yet."""
_CHUNKS = 8


class Settled(NamedTuple):
    """``rows`` of a waiting label's request (none: a joined label is confirmed); or why the label comes to nothing."""

    id: str
    rows: list[Row]
    dropped: Literal["", "repeated", "contradicting", "otherRevision", "evicted"] = ""


class CrossReplicaLabelResolver:
    """``fold`` reads frames and labels, and is changed by nothing here; ``folded(identity)`` gives the next frame of an
    own stream, or None."""

    def __init__(
        self,
        client: ArchiveClient,
        cipher: SegmentCipher,
        fold: Fold,
        folded: Callable[[str], int | None],
        clock: Callable[[], float] = time.time,
    ):
        self._client, self._cipher, self._fold = client, cipher, fold
        self._folded, self._clock = folded, clock
        self._again: dict[str, float] = {}
        self._chunks: OrderedDict[str, tuple[str, dict[int, Frame]]] = OrderedDict()

    def look(self, waiting: Mapping[str, Waiting], doubtful: Mapping[str, Waiting]) -> list[Settled]:
        """What becomes of at most ``PER_STEP`` labels that wait, or were joined and may be repetitions.

        Raises ArchiveError, CryptoError, JournalError.
        """
        now, labels = self._clock(), {**doubtful, **waiting}
        self._again = {request: at for request, at in self._again.items() if request in labels}
        due = [request for request, label in labels.items() if self._again.get(request, label.time + _PATIENCE) <= now]
        settlements = []
        for request in due[:PER_STEP]:
            self._again[request] = now + _PATIENCE
            try:
                settled = self._settle(request, labels[request], request in doubtful)
            except Refused as error:
                if error.status != 410:
                    raise
                settled = Settled(request, [], "" if request in doubtful else "evicted")  # past its retention
            if settled is not None:
                settlements.append(settled)
        return settlements

    def _settle(self, request: str, waiting: Waiting, joined: bool) -> Settled | None:
        stamp = timestamp(waiting.time)
        entries = [{"ledgerIndex": found.index, **found.fields()} for found in self._client.find(id=request)]
        labels = [entry for entry in entries if entry["type"] == "label"]
        predictions = [entry for entry in entries if entry["type"] == "prediction"]
        if not any(label["time"] == stamp for label in labels) or not predictions:
            return None
        first, recorded = self._chunk(labels[0])
        if self._folded(first) is None or labels[0]["time"] != stamp:
            return Settled(request, [], self._repetition(recorded.get(labels[0]["frame"]), waiting))
        if joined:
            return Settled(request, [])
        prediction = predictions[-1]
        if self._fold.revision and prediction.get("revision", "") != self._fold.revision:
            return Settled(request, [], "otherRevision")
        identity, frames = self._chunk(prediction)
        place = self._folded(identity)
        if place is not None and prediction["frame"] >= place:
            return None  # ours, and still to be folded
        frame = frames[prediction["frame"]]
        if not isinstance(frame, PredictionFrame):
            return Settled(request, [])  # it was about somebody who is erased: there is nothing to join
        if state_of(frame) == "started":
            return None  # its completion is still to come
        return Settled(request, self._fold.rows_of(frame, prediction["index"]))

    def _repetition(self, first: Frame | None, label: Waiting) -> Literal["repeated", "contradicting"]:
        """Whether a label says what the request's ``first`` one says."""
        if isinstance(first, EventRecord):
            with suppress(ValueError, msgspec.DecodeError):
                return "repeated" if self._fold.truth_of(first).numbers == label.truths else "contradicting"
        return "repeated"

    def _chunk(self, entry: Mapping[str, Any]) -> tuple[str, dict[int, Frame]]:
        blob = str(entry["blob"])
        chunk = self._chunks.get(blob)
        if chunk is None:
            data = self._client.get_blob(blob, entry=entry["ledgerIndex"])
            chunk = self._chunks[blob] = chunk_identity(data), dict(open_chunk(data, self._cipher))
            if len(self._chunks) > _CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(blob)
        return chunk

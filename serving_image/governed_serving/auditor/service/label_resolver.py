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
from governed_serving.auditor.service.labels import Correction, Row, Waiting
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

Entry = dict[str, Any]
"""An entry of the ledger as it is there, with ``ledgerIndex``."""


Dropped = Literal["", "repeated", "contradicting", "otherRevision", "evicted"]
"""Why a label comes to nothing; "": it counts."""


class Settled(NamedTuple):
    """``rows`` of a waiting label's request (none: a joined label is confirmed); or why the label comes to nothing."""

    id: str
    rows: list[Row]
    dropped: Dropped = ""
    correction: bool = False
    """It is about the oldest waiting correction of the request's label, not about the label."""


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

    def look(
        self,
        waiting: Mapping[str, Waiting],
        doubtful: Mapping[str, Waiting],
        corrections: Mapping[str, Correction] | None = None,
    ) -> list[Settled]:
        """What becomes of at most ``PER_STEP`` labels that wait, or were joined and may be repetitions, and of
        corrections of labels that are settled.

        Raises ArchiveError, CryptoError, JournalError.
        """
        now, labels, corrections = self._clock(), {**doubtful, **waiting}, corrections or {}
        since = {request: label.time for request, label in labels.items()}
        since |= {request: correction.now.time for request, correction in corrections.items()}
        self._again = {request: at for request, at in self._again.items() if request in since}
        due = [request for request, time in since.items() if self._again.get(request, time + _PATIENCE) <= now]
        settlements = []
        for request in due[:PER_STEP]:
            self._again[request] = now + _PATIENCE
            correction = corrections.get(request)
            try:
                if correction is None:
                    settled = self._settle(request, labels[request], request in doubtful)
                else:
                    settled = self._settle_correction(request, correction)
            except Refused as error:
                if error.status != 410:
                    raise
                settled = Settled(request, [], "" if request in doubtful else "evicted", correction is not None)
            if settled is not None:
                settlements.append(settled)
        return settlements

    def _settle(self, request: str, waiting: Waiting, joined: bool) -> Settled | None:
        stamp = timestamp(waiting.time)
        labels, _, predictions = self._entries(request)
        if not any(label["time"] == stamp for label in labels) or not predictions:
            return None
        first, recorded = self._chunk(labels[0])
        if self._folded(first) is None or labels[0]["time"] != stamp:
            return Settled(request, [], self._repetition(recorded.get(labels[0]["frame"]), waiting))
        if joined:
            return Settled(request, [])
        return self._placed(Settled(request, []), predictions[-1])

    def _settle_correction(self, request: str, correction: Correction) -> Settled | None:
        """Whether ours counts: of all that the ledger has, in its order, each must name the label that counts then."""
        stamp = timestamp(correction.now.time)
        labels, corrections, predictions = self._entries(request)
        if not labels or not predictions or not any(entry["time"] == stamp for entry in corrections):
            return None
        counts: Waiting | None = None
        for entry in [labels[0], *corrections]:
            identity, frames = self._chunk(entry)
            said = self._said(frames.get(entry["frame"]))
            mine = said == correction and self._folded(identity) is not None
            if isinstance(said, Correction):
                taken = counts is not None and said.was.says(counts.truths, counts.places)
                if mine and not taken:
                    same = counts is not None and said.now.says(counts.truths, counts.places)
                    return Settled(request, [], "repeated" if same else "contradicting", correction=True)
                counts = said.now if taken else counts
            elif said is not None:
                counts = said
            if mine:
                return self._placed(Settled(request, [], correction=True), predictions[-1])
        return None

    def _said(self, frame: Frame | None) -> Waiting | Correction | None:
        """What a label event says; None: it can't be read."""
        if isinstance(frame, EventRecord):
            with suppress(ValueError, msgspec.DecodeError):
                return self._fold.label_of(frame)
        return None

    def _entries(self, request: str) -> tuple[list[Entry], list[Entry], list[Entry]]:
        """A request's labels, their corrections and its predictions, in the ledger's order."""
        labels, predictions = (
            [{"ledgerIndex": found.index, **found.fields()} for found in self._client.find_all(id=request, type=type)]
            for type in ("label", "prediction")
        )
        return (
            [entry for entry in labels if not entry.get("summary", {}).get("correct")],
            [entry for entry in labels if entry.get("summary", {}).get("correct")],
            predictions,
        )

    def _placed(self, settled: Settled, prediction: Entry) -> Settled | None:
        """With the rows of the prediction; None: it is still to be folded."""
        if self._fold.revision and prediction.get("revision", "") != self._fold.revision:
            return settled._replace(dropped="otherRevision")
        identity, frames = self._chunk(prediction)
        place = self._folded(identity)
        if place is not None and prediction["frame"] >= place:
            return None  # ours, and still to be folded
        frame = frames[prediction["frame"]]
        if not isinstance(frame, PredictionFrame):
            return settled  # it was about somebody who is erased: there is nothing to join
        if state_of(frame) == "started":
            return None  # its completion is still to come
        return settled._replace(rows=self._fold.rows_of(frame, prediction["index"]))

    def _repetition(self, first: Frame | None, label: Waiting) -> Literal["repeated", "contradicting"]:
        """Whether a label says what the request's ``first`` one says."""
        said = self._said(first)
        same = not isinstance(said, Waiting) or label.says(said.truths, said.places)
        return "repeated" if same else "contradicting"

    def _chunk(self, entry: Entry) -> tuple[str, dict[int, Frame]]:
        blob = str(entry["blob"])
        chunk = self._chunks.get(blob)
        if chunk is None:
            data = self._client.get_blob(blob, entry=entry["ledgerIndex"])
            chunk = self._chunks[blob] = chunk_identity(data), dict(open_chunk(data, self._cipher))
            if len(self._chunks) > _CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(blob)
        return chunk

"""Sampled live traffic: which answered requests get explained into the ledger, and the loop that does it.

The choice is a function of the request id alone, so that anyone can check from the ledger that none was left out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import Feature
from governed_serving.blackbox.columns import Columns
from governed_serving.blackbox.errors import ExplainerError
from governed_serving.explainer.service.lanes import Lane
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.protocol import SEED_BITS, ExplainRequest, Parameters, seed_of
from governed_serving.hosting import log
from governed_serving.journal import (
    Cursor,
    CursorFiles,
    Gap,
    JournalDamaged,
    JournalError,
    JournalReader,
    RawFrame,
    numbers,
    strings,
)
from governed_serving.records import PredictionFrame

__all__ = ["Compute", "LiveSampler", "chosen", "requests_in"]

MAX_ROWS = 8
"""Rows explained of one sampled request; the others of it are counted as dropped."""

BACKLOG = 256
"""Chosen requests of one look beyond which the rest is counted as dropped: sampling never runs hours behind."""


class Compute(Protocol):
    """:meth:`governed_serving.explainer.service.app.Explanations.compute`."""

    async def __call__(self, request: ExplainRequest, lane: Lane | None = None) -> bytes: ...


def chosen(request_id: str, share: float) -> bool:
    """Whether a request is in the sample of ``share`` (0 to 1): its hash, as a fraction, lies below."""
    return seed_of(request_id) < share * (1 << SEED_BITS)


def requests_in(frame: PredictionFrame, features: list[Feature], share: float) -> list[tuple[str, Columns, int]]:
    """(id, columns of at most ``MAX_ROWS`` rows, rows left out) of every chosen request of a frame."""
    counts = np.frombuffer(frame.rows, "<i4")
    ends = np.cumsum(counts)
    picked = [index for index, request_id in enumerate(frame.ids) if chosen(request_id, share)]
    if not picked:
        return []
    table = {
        f.name: strings(frame.features[f.name]) if f.dtype == "BYTES" else numbers(frame.features[f.name])
        for f in features
    }
    requests: list[tuple[str, Columns, int]] = []
    for index in picked:
        start, stop = int(ends[index] - counts[index]), int(ends[index])
        kept = slice(start, min(stop, start + MAX_ROWS))
        columns: dict[str, NDArray[np.generic]] = {
            f.name: table[f.name][kept] if f.dtype == "BYTES" else table[f.name][kept].astype(np.float32)
            for f in features
        }
        requests.append((frame.ids[index], columns, max(0, stop - start - MAX_ROWS)))
    return requests


@dataclass(frozen=True)
class SampledStreams:
    """The journals that are followed: their ``names``, how to ``open`` one, and where progress is kept (one small file
    each)."""

    names: Callable[[], list[str]]
    open: Callable[[str], JournalReader]
    cursors: Path


class LiveSampler:
    """Follows the server's streams and explains what ``pick`` chooses of each frame (as :func:`requests_in` does), on
    the slow lane.

    Progress is kept, so that a restart goes on where it was; a frame that was cut short is explained again, to the same
    bits.
    """

    def __init__(
        self,
        journal: SampledStreams,
        pick: Callable[[PredictionFrame], list[tuple[str, Columns, int]]],
        compute: Compute,
        lane: Lane,
        metrics: ExplainerMetrics,
        log: Callable[..., None] = log,
    ) -> None:
        self._streams, self._source = journal.names, journal.open
        self._cursors = CursorFiles(journal.cursors, Cursor, "sampled-")
        self._pick, self._compute, self._lane = pick, compute, lane
        self._metrics, self._log = metrics, log
        self._open: dict[str, JournalReader] = {}

    async def run(self, pause: float = 0.5) -> None:
        """Until cancelled."""
        while True:
            try:
                busy = await self.look()
            except (OSError, JournalError) as error:
                self._log("warning", "live sampling stalled, retrying", error=str(error))
                busy = False
            if not busy:
                await asyncio.sleep(pause)

    async def look(self) -> bool:
        """One pass over all streams; whether there was anything new."""
        busy = False
        for name in self._streams():
            if name.startswith("server"):
                busy |= await self._follow(name)
        return busy

    async def _follow(self, name: str) -> bool:
        source = self._open.setdefault(name, self._source(name))
        done = 0
        last: RawFrame | Gap | None = None
        try:
            at = self._cursors.load(name, source.identity) or Cursor(source.identity)
            first = source.first_seq
            if first is not None and first > at.frame:
                self._metrics.dropped("trimmed", first - at.frame)
                at = Cursor(source.identity, first)
            for piece in await asyncio.to_thread(lambda: _some(source, at)):
                if isinstance(piece, Gap):
                    self._metrics.dropped("unreadable", piece.frames)
                elif isinstance(record := piece.record(), PredictionFrame):
                    done = await self._frame(record, done)
                last = piece
        except JournalDamaged as error:
            self._log("error", "journal doesn't verify; its frames are not sampled", error=str(error), stream=name)
            self._open.pop(name)
        if last is not None:
            self._cursors.save(name, Cursor.behind(last))
        return last is not None

    async def _frame(self, frame: PredictionFrame, done: int) -> int:
        for request_id, columns, left_out in self._pick(frame):
            if done >= BACKLOG:
                self._metrics.dropped("behind", 1)
                continue
            done += 1
            if left_out:
                self._metrics.dropped("rows", left_out)
            try:
                await self._compute(ExplainRequest(request_id, dict(columns), Parameters()), self._lane)
                self._metrics.sampled(1)
            except (ExplainerError, JournalError) as error:
                self._metrics.dropped(type(error).__name__, 1)
                self._log("warning", "sampled request not explained", error=str(error))
        return done


def _some(source: JournalReader, at: Cursor, most: int = 64) -> list[RawFrame | Gap]:
    """What comes next, at most ``most`` frames (or gaps)."""
    chosen = []
    for piece in source.pieces(at.frame, at.previous):
        chosen.append(piece)
        if len(chosen) >= most:
            break
    return chosen

"""How far back a verdict looks: whole (since the revision began) or sliding (at least the last N samples).

A sliding window keeps counts per minute, aligned to the epoch, and lets go of the oldest minute when the younger ones hold N samples by
themselves. A replica drops only what the sum over all replicas would drop as well, so merging stays exact. Beyond
``MAX_BUCKETS`` occupied minutes the two oldest are joined: memory is bounded.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import UNKNOWN, Cells, CodedColumn, Key
from governed_serving.fairness.counts.columns import Subject
from governed_serving.fairness.counts.scores import plain_subject, read_subject

__all__ = ["MAX_BUCKETS", "Joined", "Window"]

MAX_BUCKETS = 2048
_WIDTH = 60.0


class Joined(NamedTuple):
    """A row whose label is known now; ``score`` NaN: not kept. ``truth``: the label as a number."""

    bucket: int
    key: Key
    outcome: int
    label: int
    score: float = nan
    truth: float = nan


class Window:
    """``samples`` None: whole. ``axes``, ``scored`` as in :class:`Cells`."""

    def __init__(self, axes: Sequence[str], samples: int | None = None, scored: Sequence[Subject] = ()):
        self.axes = tuple(axes)
        self.scored = tuple(scored)
        self.samples = samples
        self.buckets: dict[int, Cells] = {}
        self._rows: dict[int, int] = {}

    def bucket_of(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bucket of each row; ``times`` are seconds since the epoch, shape (rows,)."""
        if self.samples is None:
            return np.zeros(len(times), np.int64)
        return (times // _WIDTH).astype(np.int64)

    def add(
        self,
        columns: Mapping[str, CodedColumn],
        outcome: NDArray[Any],
        bucket: NDArray[np.int64],
        score: NDArray[Any] | None = None,
    ) -> None:
        """Fold rows without labels; see :meth:`Cells.add`."""
        if not len(bucket):
            return
        if bucket[0] == bucket[-1] and (self.samples is None or (bucket == bucket[0]).all()):
            self._cells(int(bucket[0]), len(bucket)).add(columns, outcome, None, score)
        else:
            for one in np.unique(bucket).tolist():
                rows = bucket == one
                part = {name: (codes[rows], values) for name, (codes, values) in columns.items()}
                own = None if score is None else score[rows]
                self._cells(one, int(rows.sum())).add(part, outcome[rows], None, own)
        self._slide()

    def relabel(self, joined: Joined) -> bool:
        """A late label of a row; False when its part has left the window."""
        cells = self.buckets.get(joined.bucket)
        if cells is None or not cells.relabel(joined.key, joined.outcome, joined.label):
            return False
        self._learn(cells, joined, back=False)
        return True

    def correct(self, joined: Joined, *, back: bool = False) -> None:
        """A late label of a row that another replica counted as unlabelled: the difference, which adds up with that one's counts.

        ``back``: a label that is taken back.
        """
        change = np.zeros((2, 3), np.int64)
        change[joined.outcome, UNKNOWN], change[joined.outcome, joined.label] = -1, 1
        cells = self._cells(joined.bucket, 0)
        cells.put(joined.key, -change if back else change)
        self._learn(cells, joined, back)

    def _learn(self, cells: Cells, joined: Joined, back: bool) -> None:
        if cells.scores is not None and joined.score == joined.score:
            values = dict(zip(self.axes, joined.key, strict=True))
            cells.scores.learn(values, joined.score, joined.truth, back=back)

    def total(self) -> Cells:
        """Counts of the whole window."""
        whole = Cells(self.axes, scored=self.scored)
        for _, cells in sorted(self.buckets.items()):
            whole.merge(cells)
        return whole

    def merge(self, other: "Window") -> "Window":
        """Add another replica's window; returns self."""
        for bucket, cells in sorted(other.buckets.items()):
            self._cells(bucket, other._rows[bucket]).merge(cells)
        self._slide()
        return self

    def dump(self) -> dict[str, Any]:
        """Plain data; equal windows give equal bytes."""
        buckets = [[bucket, cells.dump()] for bucket, cells in sorted(self.buckets.items())]
        axes, scored = list(self.axes), [plain_subject(subject) for subject in self.scored]
        return {"axes": axes, "scored": scored, "samples": self.samples, "buckets": buckets}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Window":
        """Inverse of :meth:`dump`."""
        window = cls(dumped["axes"], dumped["samples"], [read_subject(subject) for subject in dumped["scored"]])
        for bucket, cells in dumped["buckets"]:
            window.buckets[bucket] = Cells.load(cells)
            window._rows[bucket] = window.buckets[bucket].rows
        return window

    def _cells(self, bucket: int, rows: int) -> Cells:
        cells = self.buckets.get(bucket)
        if cells is None:
            cells = self.buckets[bucket] = Cells(self.axes, scored=self.scored)
            self._rows[bucket] = 0
        self._rows[bucket] += rows
        return cells

    def _slide(self) -> None:
        if self.samples is None or len(self.buckets) < 2:
            return
        left = sum(self._rows.values())
        for bucket in sorted(self.buckets):
            if left - self._rows[bucket] < self.samples:
                break
            left -= self._rows.pop(bucket)
            del self.buckets[bucket]
        while len(self.buckets) > MAX_BUCKETS:
            first, second = sorted(self.buckets)[:2]
            self.buckets[second].merge(self.buckets.pop(first))
            self._rows[second] += self._rows.pop(first)

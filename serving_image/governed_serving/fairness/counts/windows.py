"""How far back a verdict looks: whole (since the revision began) or sliding (at least the last N samples).

A sliding window keeps counts per minute, aligned to the epoch. It may begin at a minute's border only where one of the
marks that stand ``1/STARTS`` of N samples apart, counted since the revision began to serve, was passed in the minute
before; it begins at the last such border behind which N samples came. So it begins anew at most ``STARTS`` times while
N samples pass, whoever looks how often: what a verdict over all looks promises rests on that number
(:mod:`..metrics.promise`). A record that comes after its time moves the marks behind it by its rows, and may add as
many beginnings.

A replica drops only what lies before the beginning that the sum over all replicas has as well, so merging stays exact.
Beyond ``MAX_BUCKETS`` occupied minutes the two oldest are joined: memory is bounded.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import UNKNOWN, Cells, CodedColumn, Key
from governed_serving.fairness.counts.columns import Subject
from governed_serving.fairness.counts.scores import Limits, plain_subject, read_subject

__all__ = ["MAX_BUCKETS", "STARTS", "Joined", "Window"]

MAX_BUCKETS = 2048
STARTS = 4
"""Beginnings of a sliding window while its samples pass by once."""
_WIDTH = 60.0


class Joined(NamedTuple):
    """A row whose label is known now; ``score`` NaN: not kept. ``truth``: the label as a number. ``covered``: whether
    its prediction set or interval holds the truth; −1: there is none."""

    bucket: int
    key: Key
    outcome: int
    label: int
    score: float = nan
    truth: float = nan
    covered: int = -1


class Window:
    """``samples`` None: whole. ``axes``, ``scored``, ``limits`` as in :class:`Cells`."""

    def __init__(
        self,
        axes: Sequence[str],
        samples: int | None = None,
        scored: Sequence[Subject] = (),
        limits: Limits | None = None,
    ):
        self.axes = tuple(axes)
        self.scored = tuple(scored)
        self.limits = limits
        self.samples = samples
        self.buckets: dict[int, Cells] = {}
        self.gone = 0
        """Rows that have left."""
        self.joined_from: int | None = None
        """The first of the minutes that the oldest bucket stands for, when it is more than one."""
        self._rows: dict[int, int] = {}
        self._undo: dict[int, Cells] = {}
        """What takes the labels that were corrected back to the first ones: differences, by bucket."""

    def bucket_of(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bucket of each row; ``times`` are seconds since the epoch, shape (rows,)."""
        if self.samples is None:
            return np.zeros(len(times), np.int64)
        return (times // _WIDTH).astype(np.int64)

    def add(
        self,
        columns: Mapping[str, CodedColumn],
        outcome: NDArray[np.bool_ | np.integer],
        bucket: NDArray[np.int64],
        score: NDArray[np.floating] | None = None,
    ) -> None:
        """Fold rows without labels; see :meth:`Cells.add`."""
        if not len(bucket):
            return
        if bucket[0] == bucket[-1] and (self.samples is None or (bucket == bucket[0]).all()):
            self._cells(self._place(int(bucket[0])), len(bucket)).add(columns, outcome, None, score)
        else:
            for number in np.unique(bucket).tolist():
                rows = bucket == number
                part = {name: (codes[rows], values) for name, (codes, values) in columns.items()}
                own = None if score is None else score[rows]
                self._cells(self._place(number), int(rows.sum())).add(part, outcome[rows], None, own)
        self._slide()

    def relabel(self, joined: Joined) -> bool:
        """A late label of a row; False when its part has left the window."""
        cells = self.buckets.get(self._place(joined.bucket))
        if cells is None or not cells.relabel(joined.key, joined.outcome, joined.label):
            return False
        self._learn(cells, joined, back=False)
        return True

    def correct(self, joined: Joined, *, back: bool = False) -> None:
        """A late label of a row that another replica counted as unlabelled: the difference, which adds up with that
        one's counts.

        ``back``: a label that is taken back.
        """
        change = np.zeros((2, 3), np.int64)
        change[joined.outcome, UNKNOWN], change[joined.outcome, joined.label] = -1, 1
        cells = self._cells(self._place(joined.bucket), 0)
        cells.put(joined.key, -change if back else change)
        self._learn(cells, joined, back)

    def amend(self, before: Joined, after: Joined) -> None:
        """A row's label is corrected. The counts take the corrected one alone; that the first labels can be judged as
        well, what would undo it is kept beside."""
        self.correct(before, back=True)
        self.correct(after)
        undo = self._undo.setdefault(self._place(before.bucket), self._empty())
        for joined, sign in ((after, -1), (before, 1)):
            change = np.zeros((2, 3), np.int64)
            change[joined.outcome, joined.label] = sign
            undo.put(joined.key, change)
            self._learn(undo, joined, back=sign < 0)

    @property
    def amended(self) -> bool:
        """A label in the window was corrected."""
        return bool(self._undo)

    def _empty(self) -> Cells:
        return Cells(self.axes, scored=self.scored, limits=self.limits)

    def _learn(self, cells: Cells, joined: Joined, back: bool) -> None:
        if cells.scores is not None and joined.score == joined.score:
            values = dict(zip(self.axes, joined.key, strict=True))
            cells.scores.learn(values, joined.score, joined.truth, back=back)

    def total(self, *, first: bool = False) -> Cells:
        """Counts of the window, from its beginning on. ``first``: as if no label had been corrected."""
        whole = self._empty()
        begin = self._begin()
        parts = [*self.buckets.items(), *(self._undo.items() if first else ())]
        for bucket, cells in sorted(parts, key=lambda part: part[0]):
            if bucket >= begin:
                whole.merge(cells)
        return whole

    def _begin(self) -> int:
        """The bucket that the window begins with: the oldest until a mark has been passed."""
        order = sorted(self.buckets)
        begin = order[0] if order else 0
        if self.samples is None:
            return begin
        step, before, left = self._step, self.gone, sum(self._rows.values())
        for bucket, following in pairwise(order):
            rows = self._rows[bucket]
            left -= rows
            if left < self.samples:
                break
            if before // step != (before + rows) // step:
                begin = following
            before += rows
        return begin

    @property
    def _step(self) -> int:
        """Rows between two marks."""
        assert self.samples is not None, "marks are a sliding window's"
        return -(-self.samples // STARTS)

    def merge(self, other: "Window") -> "Window":
        """Add another replica's window; returns self."""
        for bucket, cells in sorted(other.buckets.items()):
            self._cells(bucket, other._rows[bucket]).merge(cells)
        for bucket, cells in sorted(other._undo.items()):
            self._undo.setdefault(bucket, self._empty()).merge(cells)
        self.gone += other.gone
        self._slide()
        return self

    def dump(self) -> dict[str, object]:
        """Plain data; equal windows give equal bytes."""
        buckets = [[bucket, cells.dump()] for bucket, cells in sorted(self.buckets.items())]
        axes, scored = list(self.axes), [plain_subject(subject) for subject in self.scored]
        dumped: dict[str, object] = {"axes": axes, "scored": scored, "samples": self.samples, "buckets": buckets}
        if self.limits is not None:
            dumped["limits"] = list(self.limits)
        if self._undo:
            dumped["undo"] = [[bucket, cells.dump()] for bucket, cells in sorted(self._undo.items())]
        return dumped if self.samples is None else {**dumped, "gone": self.gone, "joinedFrom": self.joined_from}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Window":
        """Inverse of :meth:`dump`."""
        scored = [read_subject(subject) for subject in dumped["scored"]]
        limits = dumped.get("limits")
        window = cls(dumped["axes"], dumped["samples"], scored, None if limits is None else (limits[0], limits[1]))
        for bucket, cells in dumped["buckets"]:
            window.buckets[bucket] = Cells.load(cells)
            window._rows[bucket] = window.buckets[bucket].rows
        window._undo = {bucket: Cells.load(cells) for bucket, cells in dumped.get("undo", ())}
        window.gone, window.joined_from = dumped.get("gone", 0), dumped.get("joinedFrom")
        return window

    def _place(self, bucket: int) -> int:
        """Where the rows of a minute are counted."""
        if self.joined_from is None or bucket < self.joined_from or bucket in self.buckets:
            return bucket
        oldest = min(self.buckets)
        return oldest if bucket < oldest else bucket

    def _cells(self, bucket: int, rows: int) -> Cells:
        cells = self.buckets.get(bucket)
        if cells is None:
            cells = self.buckets[bucket] = self._empty()
            self._rows[bucket] = 0
        self._rows[bucket] += rows
        return cells

    def _slide(self) -> None:
        """Let go of what no sum over replicas needs: all before a bucket behind which a mark is passed, and N samples
        follow.

        Between it and the last bucket that N rows of our own follow lie the rows of a whole step: somewhere among them
        is a mark, wherever the other replicas' rows put it.
        """
        if self.samples is None or len(self.buckets) < 2:
            return
        order = sorted(self.buckets)
        left = sum(self._rows.values())
        if left - self._rows[order[0]] >= self.samples + self._step:
            for bucket in order[: self._unneeded(order, left)]:
                self.gone += self._rows.pop(bucket)
                del self.buckets[bucket]
                self._undo.pop(bucket, None)
                self.joined_from = None
        while len(self.buckets) > MAX_BUCKETS:
            first, second = sorted(self.buckets)[:2]
            self.buckets[second].merge(self.buckets.pop(first))
            self._rows[second] += self._rows.pop(first)
            if (undo := self._undo.pop(first, None)) is not None:
                self._undo[second] = self._undo.get(second, self._empty()).merge(undo)
            self.joined_from = first if self.joined_from is None else min(first, self.joined_from)

    def _unneeded(self, order: Sequence[int], left: int) -> int:
        """How many of the oldest buckets may go."""
        assert self.samples is not None, "only a sliding window lets go"
        last = 0
        while last + 1 < len(order) and left - self._rows[order[last]] >= self.samples:
            left -= self._rows[order[last]]
            last += 1
        rows = 0
        while last > 0 and rows < self._step:
            last -= 1
            rows += self._rows[order[last]]
        return last if rows >= self._step else 0

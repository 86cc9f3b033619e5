"""Mergeable sufficient statistics: counts over protected values × strata × outcome × label.

Everything that a verdict says about decisions is a function of these counts. They are integers and their sum has no
order, so that any split over replicas and any restart gives the same verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.columns import OTHER, CodedColumn, Subject, coded, joint_name
from governed_serving.fairness.counts.scores import Limits, ScoreTable

__all__ = ["FAVORABLE", "OTHER", "UNFAVORABLE", "UNKNOWN", "Cells", "CodedColumn", "GroupTable", "Key", "coded"]

Counts = NDArray[np.int64]
Key = tuple[str, ...]
UNFAVORABLE, FAVORABLE, UNKNOWN = 0, 1, 2
"""Last axis of counts: what the label (truth) said; UNKNOWN until it arrives. The axis before it is the outcome (0,
1)."""
_DENSE = 1 << 20


class GroupTable:
    """Counts of groups. ``groups``: names; ``counts``: int64 (groups, 2 outcomes, 3 labels)."""

    __slots__ = ("counts", "groups")

    def __init__(self, groups: Sequence[str], counts: Counts):
        self.groups = tuple(groups)
        self.counts = counts

    @property
    def rows(self) -> Counts:
        """Rows per group, shape (groups,)."""
        rows: Counts = self.counts.sum((1, 2))
        return rows

    def of(self, names: Iterable[str]) -> Counts:
        """Pooled counts of the named groups, shape (2, 3)."""
        chosen = [self.groups.index(name) for name in names if name in self.groups]
        pooled: Counts = self.counts[chosen].sum(0)
        return pooled


class Cells:
    """Counts per joint value of ``axes`` (protected attributes, then strata): key → int64 (2 outcomes, 3 labels).

    At most ``limit`` keys; rows of further ones are counted under ``OTHER`` on every axis, and in ``overflow``.
    ``scored``: subjects for whose groups the scores are kept as well, within ``limits``.
    """

    def __init__(
        self,
        axes: Sequence[str],
        limit: int = 20_000,
        scored: Sequence[Subject] = (),
        limits: Limits | None = None,
    ):
        self.axes = tuple(axes)
        self.limit = limit
        self.scores = ScoreTable(scored, limits) if scored else None
        self.counts: dict[Key, Counts] = {}
        self.overflow = 0

    @property
    def rows(self) -> int:
        """Rows counted."""
        return sum(int(c.sum()) for c in self.counts.values())

    @property
    def labelled(self) -> int:
        """Rows whose label is known."""
        return sum(int(c[:, :UNKNOWN].sum()) for c in self.counts.values())

    def add(
        self,
        columns: Mapping[str, CodedColumn],
        outcome: NDArray[np.bool_ | np.integer],
        label: NDArray[np.integer] | None = None,
        score: NDArray[np.floating] | None = None,
    ) -> None:
        """Fold rows: a coded column per axis, ``outcome`` 0/1 (bool or integer), ``label`` 0, 1 or 2 (unknown); all
        shape (rows,)."""
        if self.scores is not None and score is not None:
            self.scores.add(columns, score)
        sizes = [len(columns[name][1]) for name in self.axes]
        joint, space = _joint([columns[name][0] for name in self.axes], sizes, outcome, label)
        if space <= _DENSE:
            added = np.bincount(joint, minlength=space).reshape(-1, 2, 3)
            occupied = np.flatnonzero(added.any((1, 2)))
            self._put(occupied, added[occupied], sizes, columns)
            return
        codes, inverse = np.unique(joint // 6, return_inverse=True)
        added = np.bincount(inverse * 6 + joint % 6, minlength=6 * len(codes)).reshape(-1, 2, 3)
        self._put(codes, added, sizes, columns)

    def _put(
        self, codes: NDArray[np.integer], counts: Counts, sizes: Sequence[int], columns: Mapping[str, CodedColumn]
    ) -> None:
        names: list[list[str]] = []
        for axis, size in zip(reversed(self.axes), reversed(sizes), strict=True):
            codes, place = np.divmod(codes, size)
            values = columns[axis][1]
            names.append([values[i] for i in place.tolist()])
        keys = zip(*reversed(names), strict=True) if names else [()] * len(counts)
        for key, table in zip(keys, counts, strict=True):
            self.put(key, table)

    def put(self, key: Key, table: Counts) -> None:
        """Add ``table`` (2 outcomes, 3 labels) to one key."""
        cell = self.counts.get(key)
        if cell is None:
            other = (OTHER,) * len(self.axes)
            if key != other and len(self.counts) - (other in self.counts) >= self.limit:
                self.overflow += int(table.sum())
                key = other
            cell = self.counts.setdefault(key, np.zeros((2, 3), np.int64))
        cell += table

    def relabel(self, key: Key, outcome: int, label: int) -> bool:
        """A late label: one row of ``key`` with this outcome moves from unknown to ``label``; False when there is
        none. A key beyond the limit is among the others."""
        cell = self.counts.get(key, self.counts.get((OTHER,) * len(self.axes)) if self.overflow else None)
        if cell is None or cell[outcome, UNKNOWN] <= 0:
            return False
        cell[outcome, UNKNOWN] -= 1
        cell[outcome, label] += 1
        return True

    def merge(self, other: "Cells") -> "Cells":
        """Add the counts of ``other`` (same axes) to these; returns self. Raises ValueError for other axes."""
        if other.axes != self.axes:
            raise ValueError(f"expected counts over {self.axes}, found {other.axes}")
        for key, table in sorted(other.counts.items()):
            self.put(key, table)
        self.overflow += other.overflow
        if other.scores is not None:
            self.scores = self.scores or ScoreTable(other.scores.subjects, other.scores.limits)
            self.scores.merge(other.scores)
        return self

    def copy(self) -> "Cells":
        """An independent copy."""
        return Cells(self.axes, self.limit).merge(self)

    def by(self, *names: str) -> GroupTable:
        """Counts per value of the named axes (one: groups; several: intersections), sorted by name."""
        sums = self.sums(*names)
        ordered = sorted(sums)
        counts = np.array([sums[group] for group in ordered], np.int64).reshape(-1, 2, 3)
        return GroupTable([joint_name(group) for group in ordered], counts)

    def sums(self, *names: str) -> dict[Key, Counts]:
        """Counts, shape (2, 3), per joint value of the named axes."""
        places = [self.axes.index(name) for name in names]
        sums: dict[Key, Counts] = {}
        for key, table in self.counts.items():
            group = tuple(key[place] for place in places)
            sums[group] = sums[group] + table if group in sums else table
        return sums

    def where(self, name: str, value: str) -> "Cells":
        """The part in which axis ``name`` has ``value`` (shares its counts)."""
        place = self.axes.index(name)
        part = Cells(self.axes, self.limit)
        part.counts = {key: table for key, table in self.counts.items() if key[place] == value}
        return part

    def values(self, name: str) -> list[str]:
        """Values found on an axis, sorted."""
        place = self.axes.index(name)
        return sorted({key[place] for key in self.counts})

    def dump(self) -> dict[str, object]:
        """Plain data, sorted: equal counts give equal bytes."""
        occupied = sorted((key, table.ravel().tolist()) for key, table in self.counts.items() if table.any())
        cells = [[list(key), table] for key, table in occupied]
        dumped: dict[str, object] = {"axes": list(self.axes), "cells": cells, "overflow": self.overflow}
        return dumped if self.scores is None else {**dumped, "scores": self.scores.dump()}

    @classmethod
    def load(cls, dumped: Mapping[str, Any], limit: int = 20_000) -> "Cells":
        """Inverse of :meth:`dump`."""
        cells = cls(dumped["axes"], limit)
        for key, table in dumped["cells"]:
            cells.counts[tuple(key)] = np.array(table, np.int64).reshape(2, 3)
        cells.overflow = int(dumped["overflow"])
        if "scores" in dumped:
            cells.scores = ScoreTable.load(dumped["scores"])
        return cells


def _joint(
    codes: Sequence[NDArray[np.integer]],
    sizes: Sequence[int],
    outcome: NDArray[np.bool_ | np.integer],
    label: NDArray[np.integer] | None,
) -> tuple[NDArray[np.int64], int]:
    """Mixed-radix index of every row over axes × outcome × label, and the number of places."""
    joint = np.zeros(len(outcome), np.int64)
    space = 1
    for code, size in zip(codes, sizes, strict=True):
        if space > 1:
            joint *= size
        joint += code
        space *= size
    joint *= 6
    joint += np.multiply(outcome, 3, dtype=np.int64, casting="unsafe")
    joint += UNKNOWN if label is None else label
    return joint, space * 6

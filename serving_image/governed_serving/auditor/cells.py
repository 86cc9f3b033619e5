"""Mergeable sufficient statistics: counts per protected groups × strata × outcome × label.

Counts add up, so any split over replicas, windows and restarts gives the same total, and memory depends on the number of
groups, never on traffic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_VALUES", "OTHER", "UNLABELLED", "Cells", "Layout"]

MAX_VALUES = 64
"""Distinct values kept of a dimension; later ones are counted as OTHER."""
MAX_CELLS = 1 << 18
OTHER = "(other)"
UNLABELLED, UNFAVOURABLE, FAVOURABLE = 0, 1, 2
"""Last axis: what the label said, if one came."""

Codes = NDArray[np.int64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Names of the dimensions: protected attributes first, then strata (without repeats)."""

    attributes: tuple[str, ...]
    strata: tuple[str, ...] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        return (*self.attributes, *(s for s in self.strata if s not in self.attributes))


class Cells:
    """``counts``: int64, shape (values of dimension 1, …, values of dimension d, outcome 2, label 3)."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.values: list[dict[str, int]] = [{} for _ in layout.dimensions]
        self.counts: Counts = np.zeros((*(0 for _ in layout.dimensions), 2, 3), np.int64)
        self.overflowed = 0
        """Rows whose group was counted as OTHER for want of room."""

    @property
    def total(self) -> int:
        """Rows folded."""
        return int(self.counts.sum())

    def encode(self, dimension: int, words: Sequence[str]) -> Codes:
        """Codes of distinct values of a dimension, new ones added; shape (len(words),)."""
        index = self.values[dimension]
        codes = np.empty(len(words), np.int64)
        for n, word in enumerate(words):
            code = index.get(word)
            if code is None:
                room = len(index) < MAX_VALUES - 1 and self._room(dimension)
                code = index.setdefault(word if room else OTHER, len(index))
            codes[n] = code
        self._grow()
        return codes

    def add(
        self, codes: Sequence[Codes], outcome: NDArray[Any], label: NDArray[Any] | int = UNLABELLED, times: int = 1
    ) -> None:
        """Fold rows: one code array per dimension, ``outcome`` 0/1 and ``label`` 0/1/2, all of shape (rows,).

        ``times`` −1 takes rows out again (a window that slides, a label that replaces "none").
        """
        shape = self.counts.shape
        joint = np.zeros(len(outcome), np.int64)
        for size, code in zip(shape[:-2], codes, strict=True):
            joint *= size
            joint += code
        joint *= 6
        joint += outcome.astype(np.int64) * 3 + label
        flat = self.counts.reshape(-1)
        if len(joint) * 8 < flat.size:
            np.add.at(flat, joint, times)
        else:
            flat += times * np.bincount(joint, minlength=flat.size)

    def merge(self, other: "Cells", times: int = 1) -> None:
        """Add another table of the same layout, whatever the order in which its values were seen."""
        if other.layout != self.layout:
            raise ValueError(f"cells of {other.layout} can't be added to cells of {self.layout}")
        places = [self.encode(d, list(values)) for d, values in enumerate(other.values)]
        if other.counts.size:
            np.add.at(self.counts, np.ix_(*places), times * other.counts)
        self.overflowed += times * other.overflowed

    def copy(self) -> "Cells":
        """An independent copy."""
        out = Cells(self.layout)
        out.merge(self)
        return out

    def table(self, attribute: str, within: Mapping[str, str] | None = None) -> dict[str, Counts]:
        """Group of ``attribute`` → counts, shape (outcome 2, label 3), over all other dimensions or ``within`` given values."""
        names = self.layout.dimensions
        counts = self.counts
        picked = {names.index(k): self.values[names.index(k)].get(v) for k, v in (within or {}).items()}
        for axis in reversed(range(len(names))):
            if axis in picked:
                place = picked[axis]
                counts = np.zeros_like(counts.sum(axis=axis)) if place is None else counts.take(place, axis=axis)
            elif names[axis] != attribute:
                counts = counts.sum(axis=axis)
        groups = self.values[names.index(attribute)]
        return {name: counts[code] for name, code in sorted(groups.items()) if counts[code].any()}

    def intersections(self) -> dict[str, Counts]:
        """Joint group of all protected attributes ("F × 40+") → counts, shape (2, 3)."""
        names = self.layout.dimensions
        counts = self.counts
        for axis in reversed(range(len(names))):
            if names[axis] not in self.layout.attributes:
                counts = counts.sum(axis=axis)
        words = [list(v) for v in self.values[: len(self.layout.attributes)]]
        found = {}
        for place in np.ndindex(*counts.shape[:-2]):
            if counts[place].any():
                found[" × ".join(words[d][c] for d, c in enumerate(place))] = counts[place]
        return dict(sorted(found.items()))

    def values_of(self, dimension: str) -> list[str]:
        """Values seen of a dimension, sorted."""
        return sorted(self.values[self.layout.dimensions.index(dimension)])

    def dump(self) -> dict[str, Any]:
        """JSON form: only cells that hold rows, in sorted order, so that equal tables give equal bytes."""
        rows = []
        words = [list(v) for v in self.values]
        for place in np.ndindex(*self.counts.shape[:-2]):
            if self.counts[place].any():
                rows.append([[words[d][c] for d, c in enumerate(place)], self.counts[place].reshape(-1).tolist()])
        out: dict[str, Any] = {"attributes": list(self.layout.attributes), "strata": list(self.layout.strata)}
        return out | {"cells": sorted(rows), "overflowed": self.overflowed}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Cells":
        """Inverse of :meth:`dump`; raises ValueError, KeyError or TypeError on anything else."""
        out = cls(Layout(tuple(dumped["attributes"]), tuple(dumped["strata"])))
        rows = dumped["cells"]
        columns = [[row[0][d] for row in rows] for d in range(len(out.layout.dimensions))]
        places = [out.encode(d, words) for d, words in enumerate(columns)]
        if rows:
            counts = np.array([row[1] for row in rows], np.int64).reshape(len(rows), 2, 3)
            np.add.at(out.counts, tuple(places), counts)
        out.overflowed = int(dumped.get("overflowed", 0))
        return out

    def _room(self, dimension: int) -> bool:
        sizes = [len(v) + (d == dimension) for d, v in enumerate(self.values)]
        return int(np.prod([max(s, 1) for s in sizes])) <= MAX_CELLS

    def _grow(self) -> None:
        target = tuple(len(v) for v in self.values)
        if self.counts.shape[:-2] != target:
            wider = np.zeros((*target, 2, 3), np.int64)
            wider[tuple(slice(0, n) for n in self.counts.shape)] = self.counts
            self.counts = wider

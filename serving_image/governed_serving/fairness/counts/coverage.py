"""How many labelled rows' prediction sets or intervals hold the truth, of all rows and by group."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import OTHER

__all__ = ["ALL", "CoverageCounts", "is_covered", "packed"]

ALL = "(all)"
MOST_GROUPS = 1000
"""Groups of an attribute that are counted by name; later ones are counted together."""

Counts = dict[str, dict[str, list[int]]]
"""Attribute ("": none, all rows) → group → [covered, rows]."""


class CoverageCounts:
    """``axes``: names of a row's values; ``attributes``: those of them that groups are counted of. Sums of integers:
    the same in whatever order."""

    def __init__(self, axes: Sequence[str], attributes: Iterable[str]) -> None:
        self._places = {name: axes.index(name) for name in attributes}
        self.counts: Counts = {}

    def add(self, key: Sequence[str], covered: int, *, back: bool = False) -> None:
        """One labelled row; ``covered`` 1 or 0; any other: it isn't known and isn't counted. ``back``: it is taken
        back."""
        if covered not in (0, 1):
            return
        sign = -1 if back else 1
        for attribute, group in [("", ALL), *((name, key[place]) for name, place in self._places.items())]:
            groups = self.counts.setdefault(attribute, {})
            name = group if group in groups or len(groups) < MOST_GROUPS else OTHER
            count = groups.setdefault(name, [0, 0])
            count[0] += sign * covered
            count[1] += sign

    def dump(self) -> Counts:
        """A copy: plain data."""
        return {attribute: {group: [*n] for group, n in groups.items()} for attribute, groups in self.counts.items()}

    def load(self, dumped: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
        """Inverse of :meth:`dump`."""
        self.counts = {attribute: {group: [*n] for group, n in groups.items()} for attribute, groups in dumped.items()}

    @staticmethod
    def sum_of(parts: Iterable[Mapping[str, Mapping[str, Sequence[int]]]]) -> Counts:
        """All replicas together. One may take a label back before another's counts have come: never below 0."""
        whole: Counts = {}
        for part in parts:
            for attribute, groups in part.items():
                for group, (covered, rows) in groups.items():
                    count = whole.setdefault(attribute, {}).setdefault(group, [0, 0])
                    count[0] += covered
                    count[1] += rows
        return {a: {g: [max(min(k, n), 0), max(n, 0)] for g, (k, n) in groups.items()} for a, groups in whole.items()}


def packed(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Sets, BOOL (rows, classes), or intervals, FP32 (rows, 2), as bytes of each row: uint8 (rows, width)."""
    if values.dtype == bool or values.dtype == np.uint8:
        return np.packbits(values.astype(bool), axis=1)
    ends = np.ascontiguousarray(values, "<f4")
    return ends.view(np.uint8).reshape(len(ends), -1)


def is_covered(held: bytes, place: int, truth: float) -> int:
    """Whether a row's set holds class ``place`` or, where that is negative, its interval ``truth``; −1: not known."""
    if place >= 0:
        return held[place // 8] >> (7 - place % 8) & 1 if place // 8 < len(held) else -1
    if len(held) != 8 or truth != truth:
        return -1
    lower, upper = np.frombuffer(held, "<f4")
    return int(lower <= np.float32(truth) <= upper)

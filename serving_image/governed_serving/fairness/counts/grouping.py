"""From a journalled column to named groups: strings as they are, numbers as themselves when few and whole, otherwise in bands."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import CodedColumn, coded

__all__ = ["MISSING", "Grouping", "outcomes"]

MISSING = "(missing)"
BANDS = 5
_FEW = 16


@dataclass(frozen=True)
class Grouping:
    """One axis. ``edges``: inner borders of bands for a numeric column, ascending; empty: every value is a group."""

    name: str
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, low: float | None = None, high: float | None = None) -> "Grouping":
        """Bands of equal width over the training range, unless that holds at most 16 whole numbers.

        The range comes from the artefact, so that every replica draws the same borders.
        """
        if low is None or high is None or (float(low).is_integer() and float(high).is_integer() and high - low < _FEW):
            return cls(name)
        width = (high - low) / BANDS
        return cls(name, tuple(float(f"{low + width * i:.4g}") for i in range(1, BANDS)))

    def encode(self, values: NDArray[Any], words: Sequence[str] | None) -> CodedColumn:
        """``values``: codes into ``words``, or numbers when ``words`` is None; shape (rows,)."""
        if words is not None:
            return values, [word or MISSING for word in words] or [MISSING]
        if not self.edges:
            return coded(values)
        numbers = values.astype(np.float64)
        codes = np.searchsorted(np.array(self.edges), numbers, side="right")
        missing = np.isnan(numbers)
        if missing.any():
            codes = np.where(missing, len(self.edges) + 1, codes)
        return codes, self._names()

    def _names(self) -> list[str]:
        texts = [f"{edge:g}" for edge in self.edges]
        between = [f"[{low}, {high})" for low, high in pairwise(texts)]
        return [f"< {texts[0]}", *between, f"≥ {texts[-1]}", MISSING]


def outcomes(
    values: NDArray[Any], words: Sequence[str] | None, label: str | None, threshold: float | None
) -> NDArray[np.bool_]:
    """Whether each output favours its person: class ``label``, or a score at or above ``threshold``; shape (rows,)."""
    if threshold is not None:
        return np.asarray(values >= threshold)
    if words is not None:
        wanted = np.array([word == label for word in words] or [False])
        return np.asarray(wanted[values])
    names, codes = np.unique(values, return_inverse=True)
    texts = [str(int(n)) if float(n).is_integer() else str(n) for n in names.tolist()]
    return np.asarray(np.array([text == label for text in texts])[codes])

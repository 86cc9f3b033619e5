"""What inputs and outputs looked like in training: histograms alone, small cells suppressed. The trainer makes it, the
auditor compares with it.

JSON: ``{"rows", "columns": {name: {"edges", "counts"} | {"values", "counts"}}}``. Numeric columns are cut at quantiles;
``edges`` are the inner borders. Categories with fewer than :data:`SMALLEST` rows, or beyond :data:`MOST`, are counted
in the last place, which stands for all others. Texts are described by their number of characters, outputs as
``output:decision`` and ``output:score``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.monitoring.drift import quantile_edges

__all__ = ["DECISION", "SCORE", "Distribution", "describe", "read"]

SMALLEST = 10
MOST = 50
BINS = 10
DECISION, SCORE = "output:decision", "output:score"

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Distribution:
    """Counts of one column in training. ``edges`` for numbers; ``values`` for words, whose last count stands for all
    others."""

    counts: Counts
    edges: NDArray[np.float64] | None = None
    values: tuple[str, ...] = ()

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.generic], bins: int = BINS) -> "Distribution":
        """Cut at quantiles, so coarsely that no bin holds fewer than ``SMALLEST`` rows; gaps (NaN) are left out."""
        finite = np.asarray(numbers, np.float64)
        finite = finite[np.isfinite(finite)]
        edges = quantile_edges(finite, bins) if len(finite) else np.zeros(0)
        counts = _binned(finite, edges)
        while len(edges) and counts.min() < SMALLEST:
            edges = np.delete(edges, min(int(counts.argmin()), len(edges) - 1))
            counts = _binned(finite, edges)
        return cls(counts, edges)

    @classmethod
    def of_words(cls, words: NDArray[np.generic]) -> "Distribution":
        """The most frequent words by name, all others together."""
        occurrences = Counter(str(word) for word in words)
        kept = sorted(word for word, rows in occurrences.most_common(MOST) if rows >= SMALLEST)
        rest = sum(occurrences.values()) - sum(occurrences[word] for word in kept)
        if 0 < rest < SMALLEST and kept:  # its number alone would tell of fewer than SMALLEST rows
            least = min(kept, key=lambda word: (occurrences[word], word))
            kept.remove(least)
            rest += occurrences[least]
        return cls(np.array([*(occurrences[word] for word in kept), rest], np.int64), None, tuple(kept))

    def count(self, values: NDArray[np.generic], words: Sequence[str] | None = None) -> Counts:
        """Rows per place. ``values``: numbers, or codes into ``words``; shape (rows,)."""
        if self.edges is not None:
            return _binned(values[np.isfinite(values)], self.edges)
        place = {word: i for i, word in enumerate(self.values)}
        places = np.array([place.get(str(word), len(self.values)) for word in words or ()], np.int64)
        return np.bincount(places[values], minlength=len(self.counts)) if len(values) else np.zeros_like(self.counts)

    def plain(self) -> dict[str, object]:
        """For the document."""
        if self.edges is not None:
            return {"edges": self.edges.tolist(), "counts": self.counts.tolist()}
        return {"values": list(self.values), "counts": self.counts.tolist()}


def _binned(numbers: NDArray[np.integer | np.floating], edges: NDArray[np.float64]) -> Counts:
    return np.bincount(np.searchsorted(edges, numbers, "right"), minlength=len(edges) + 1)


def describe(
    features: Mapping[str, NDArray[np.generic]],
    texts: frozenset[str],
    decision: NDArray[np.generic] | None,
    score: NDArray[np.integer | np.floating] | None,
) -> dict[str, object]:
    """The document about training rows: raw ``features`` (numbers or str), the model's ``decision`` and ``score`` of
    them."""
    columns = {name: _column(values, name in texts) for name, values in features.items()}
    if decision is not None:
        columns[DECISION] = Distribution.of_words(decision)
    if score is not None:
        columns[SCORE] = Distribution.of_numbers(score)
    rows = len(next(iter(features.values())))
    return {"rows": rows, "columns": {name: column.plain() for name, column in columns.items()}}


def _column(values: NDArray[np.generic], text: bool) -> Distribution:
    if text:
        return Distribution.of_numbers(np.array([len(value) for value in values], np.float64))
    return Distribution.of_numbers(values) if values.dtype.kind == "f" else Distribution.of_words(values)


def read(document: Mapping[str, Any]) -> dict[str, Distribution]:
    """Column → distribution; columns without a row are left out."""
    distributions = {}
    for name, column in document.get("columns", {}).items():
        counts = np.array(column["counts"], np.int64)
        edges = np.array(column["edges"], np.float64) if "edges" in column else None
        if counts.sum() > 0:
            distributions[name] = Distribution(counts, edges, tuple(column.get("values", ())))
    return distributions

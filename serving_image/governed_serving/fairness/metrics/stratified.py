"""Differences of rates within strata: conditional parity, equal opportunity, error rates, predictive values.

The adjusted difference of a rate is the mean of the strata's, weighted n₁n₀/(n₁+n₀) as Mantel & Haenszel (1959) do,
where n₁ and n₀ are the rows that the rate is out of: for a true positive rate those with a favourable label. It is a
linear contrast of the strata's rates, and so has the exact evidence of all contrasts (:mod:`..inference.contrasts`).
Weights are those of the counts at each look; the evidence is about the value that these weights give to the true rates.
A stratum counts from the moment on at which both sides have rows in it: the bets on its rates, independent of those on
all others, join them then, so that the evidence stays a test martingale where arrivals don't hang on outcomes.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import Cells, Key
from governed_serving.fairness.counts.columns import joint_name
from governed_serving.fairness.metrics.metrics import LABEL_METRICS, METRICS, Floats, Rate
from governed_serving.fairness.metrics.sequences import Question, RateContrast

__all__ = [
    "ADJUSTED",
    "ADJUSTED_LABEL_METRICS",
    "MOST_STRATA",
    "Adjusted",
    "Overlap",
    "Within",
    "adjusted",
    "overlap",
    "within_strata",
]

Array = NDArray[np.integer | np.floating]

MOST_STRATA = 1000
"""Strata that both sides have, in which a difference has an interval; one of more strata is told without, and so never
judged. Taking those alone that weigh most would void what is promised: which they are changes from look to look."""

ADJUSTED: Mapping[str, str] = {
    f"adjusted{name[0].upper()}{name[1:]}": name
    for name in METRICS
    if name.endswith("Difference") and name != "baseRateDifference"
}
"""Name → the metric of all rows together. Base rates are no doing of the model's: there is nothing to adjust."""
ADJUSTED_LABEL_METRICS = frozenset(name for name, whole in ADJUSTED.items() if whole in LABEL_METRICS)


class Within(NamedTuple):
    """Counts of a group and of its reference in the same strata, shape (strata, 2, 3) each."""

    u: Array
    p: Array


class Adjusted(NamedTuple):
    """``value``: NaN where no stratum has rows of both sides; ``support``: of the smaller side of the smallest rate, in
    strata that have both."""

    value: float
    support: int
    samples: int
    question: Question | None


def within_strata(
    cells: Cells, axes: Sequence[str], strata: Sequence[str], groups: Sequence[str], base: Sequence[str]
) -> dict[str, Within]:
    """Each of ``groups`` of ``axes``, against ``base`` together, in the joint values of ``strata``."""
    parts: dict[Key, dict[str, Array]] = {}
    for key, counts in sorted(cells.sums(*axes, *strata).items()):
        parts.setdefault(key[len(axes) :], {})[joint_name(key[: len(axes)])] = counts
    empty = np.zeros((2, 3), np.int64)
    p = np.array([sum((part.get(b, empty) for b in base), empty) for part in parts.values()])
    return {g: Within(np.array([part.get(g, empty) for part in parts.values()]), p) for g in groups}


class Overlap(NamedTuple):
    """Cases and rows of one rate in the strata that both sides have, their ``places``, and weights, which sum to 1."""

    places: NDArray[np.int64]
    k1: Array
    n1: Array
    k0: Array
    n0: Array
    weight: Floats

    @property
    def value(self) -> float:
        if not len(self.weight):
            return nan
        return float((self.weight * (self.k1 / self.n1 - self.k0 / self.n0)).sum())

    @property
    def support(self) -> int:
        return int(min(self.n1.sum(), self.n0.sum()))

    def contrast(self, part: float = 1.0) -> RateContrast:
        """The adjusted difference, times ``part``."""
        pairs = ((self.k1, self.k0), (self.n1, self.n0), (part * self.weight, -part * self.weight))
        cases, rows, weights = (tuple(np.stack(pair, 1).ravel().tolist()) for pair in pairs)
        return RateContrast(cases, rows, weights)


def overlap(rate: Rate, counts: Within) -> Overlap:
    """Rows in strata that only one side has say nothing about the difference, and count for no support."""
    (k1, n1), (k0, n0) = rate(counts.u), rate(counts.p)
    weight = n1 * n0 / np.maximum(n1 + n0, 1)
    both = np.flatnonzero(weight > 0)
    k1, n1, k0, n0, weight = k1[both], n1[both], k0[both], n0[both], weight[both]
    return Overlap(both, k1, n1, k0, n0, weight / max(weight.sum(), 1e-300))


def adjusted(name: str, counts: Within) -> Adjusted:
    """Metric ``name`` of :data:`ADJUSTED`, with what is asked about it."""
    metric = METRICS[ADJUSTED[name]]
    overlaps = [overlap(rate, counts) for rate in metric.rates]
    samples = sum(int(rows.sum()) for shared in overlaps for rows in (shared.n1, shared.n0))
    if not all(len(shared.weight) for shared in overlaps):
        apart = sum(int(rate(side)[1].sum()) for rate in metric.rates for side in counts)
        return Adjusted(nan, 0, apart, None)
    support = min(shared.support for shared in overlaps)
    none = [np.zeros(())] * len(overlaps)
    value = float(metric.combine([np.array(shared.value) for shared in overlaps], none))
    few = max(len(shared.weight) for shared in overlaps) <= MOST_STRATA
    return Adjusted(value, support, samples, _question(name, overlaps) if few else None)


def _question(name: str, overlaps: Sequence[Overlap]) -> Question:
    if len(overlaps) == 1:
        return Question((overlaps[0].contrast(),), "difference")
    if name == "adjustedEqualizedOddsDifference":
        return Question(
            tuple(shared.contrast() for shared in overlaps), "largestDifference", (1 / len(overlaps),) * len(overlaps)
        )
    parts = [shared.contrast(1 / len(overlaps)) for shared in overlaps]
    cases, rows, weights = (tuple(x for part in parts for x in part[i] or ()) for i in range(3))
    return Question((RateContrast(cases, rows, weights),), "difference")

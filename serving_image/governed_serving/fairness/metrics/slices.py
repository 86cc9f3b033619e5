"""Subgroup discovery: values of two or three attributes together that fare otherwise than all others beside them.

A slice names at least one protected attribute, and may name strata of the manifest as well: then it is compared with
everybody else in these strata, so that a department is no finding. It is looked at by its selection rate and, where the
manifest has a metric that needs labels, by its true and false positive rates and accuracy too. Each has an e-process
against "it differs from the others' by no more than the bounds allow" (those of the manifest's metric, else ±.1), and a
weight: the product of its values' places in the roster, which don't depend on what else there is; all that could ever
come sum to at most 1.

What is found: by e-values times weights (compound e-values: Ignatiadis, Wang & Ramdas 2024) and the e-BH procedure
(Wang & Ramdas 2022), which finds all that a union bound would, and more where there is more. At any look, whenever one
stops, the expected share of false ones among what is found is at most alpha, whatever depends on whatever; where there
is nothing, so is the chance of ever finding anything. Intervals are wider the fewer are found, such that the expected
share of those that miss is at most alpha (e-BY: Xu, Wang & Ramdas 2022). What is found is shown; it decides nothing.

Where labels were corrected, a slice has the smaller of two e-values, by the corrected labels and by the first ones, and
none where these differ the other way: no more than that of the first labels, so that corrections, whoever makes them
after whatever look, can't make a find.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import inf, log, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_api.verdict import Slice, Slices
from governed_serving.fairness.counts.cells import Cells, Key
from governed_serving.fairness.metrics.measures import NEED_LABELS
from governed_serving.fairness.metrics.metrics import RATES
from governed_serving.fairness.metrics.roster import SMALLEST_GROUP, Roster, place_share
from governed_serving.fairness.metrics.sequences import Question, RateContrast, evidences, intervals

__all__ = ["MEASURES", "MOST_SHOWN", "MOST_SLICES", "slices_of"]

MOST_ATTRIBUTES = 3
MOST_SLICES = 1000
"""Slices that are looked at, the largest; the others are counted."""
MOST_SHOWN = 20
"""Slices that are told, those with the most evidence for their weight."""
MEASURES = {
    "selectionRate": "statisticalParityDifference",
    "truePositiveRate": "equalOpportunityDifference",
    "falsePositiveRate": "falsePositiveRateDifference",
    "accuracy": "accuracyDifference",
}
"""Rate → the metric whose bounds it is held against."""
_USUAL = (-0.1, 0.1)


class _Axes(NamedTuple):
    protected: tuple[str, ...]
    strata: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.protected + self.strata


class _Candidate(NamedTuple):
    axes: _Axes
    measure: str
    values: Key
    cases: int
    rows: int
    others: tuple[int, int]
    """Cases and rows of everybody else beside it."""
    share: float
    """Weight."""

    def question(self) -> Question:
        return Question((RateContrast((self.cases, self.others[0]), (self.rows, self.others[1])),), "difference")

    @property
    def name(self) -> tuple[_Axes, str, Key]:
        """Whatever is counted of it."""
        return self.axes, self.measure, self.values

    @property
    def difference(self) -> float:
        return self.cases / self.rows - self.others[0] / self.others[1]


def slices_of(bias: Bias, cells: Cells, roster: Roster, alpha: float, first: Cells | None = None) -> Slices | None:
    """None with one protected attribute and no strata: its values are compared anyway. ``first``: counts as if no label
    had been corrected; None: none was."""
    combined = _combined(bias)
    if not combined:
        return None
    measures = _measures(bias)
    every = _every(cells, roster, combined, measures)
    every.sort(key=lambda candidate: (-candidate.rows, candidate.axes, candidate.values, candidate.measure))
    looked_at, left_out = every[:MOST_SLICES], len(every) - min(len(every), MOST_SLICES)
    questions = [candidate.question() for candidate in looked_at]
    evidence = _evidence(bias, looked_at)
    if first is not None:
        evidence = _weaker(bias, looked_at, evidence, _every(first, roster, combined, measures))
    weighted = [log_value + log(candidate.share) for log_value, candidate in zip(evidence, looked_at, strict=True)]
    discovered = _e_bh(weighted, alpha)
    level = alpha * len(discovered)
    told = discovered[:MOST_SHOWN]
    ends = intervals([questions[i] for i in told], [level * looked_at[i].share for i in told])
    return Slices(
        looked_at=len(looked_at),
        left_out=left_out,
        found=[
            Slice(
                measure=candidate.measure,
                values=dict(zip(candidate.axes.protected, candidate.values, strict=False)),
                within=dict(zip(candidate.axes.strata, candidate.values[len(candidate.axes.protected) :], strict=True)),
                rows=candidate.rows,
                rate=candidate.cases / candidate.rows,
                difference=candidate.difference,
                lower=interval.lower,
                upper=interval.upper,
                log_evidence=evidence[i],
            )
            for i, candidate, interval in zip(told, (looked_at[i] for i in told), ends, strict=True)
        ],
    )


def _every(cells: Cells, roster: Roster, combined: Sequence[_Axes], measures: Sequence[str]) -> list[_Candidate]:
    coded, part = _coded(cells, roster), 1 / (len(combined) * len(measures))
    return [
        candidate
        for axes in combined
        for measure in measures
        for candidate in _candidates(coded, axes, measure, roster, part)
    ]


def _evidence(bias: Bias, candidates: Sequence[_Candidate]) -> list[float]:
    bounds = [_bounds(bias, MEASURES[candidate.measure]) for candidate in candidates]
    return evidences([candidate.question() for candidate in candidates], bounds)


def _weaker(
    bias: Bias, looked_at: Sequence[_Candidate], evidence: Sequence[float], before: Sequence[_Candidate]
) -> list[float]:
    """The smaller of each e-value's logarithm and that of the same slice ``before``; none where there was no such
    slice, or it differed the other way."""
    wanted = {candidate.name for candidate in looked_at}
    same = [candidate for candidate in before if candidate.name in wanted]
    was = {c.name: (value, c.difference) for c, value in zip(same, _evidence(bias, same), strict=True)}
    weaker = []
    for candidate, value in zip(looked_at, evidence, strict=True):
        earlier, difference = was.get(candidate.name, (-inf, 0.0))
        weaker.append(min(value, earlier) if difference * candidate.difference > 0 else -inf)
    return weaker


def _e_bh(weighted: Sequence[float], alpha: float) -> list[int]:
    """Places of what is found, by logs of e-values times weights, the strongest first: the largest k of which all
    reach 1 / (alpha k)."""
    ranked = sorted(range(len(weighted)), key=lambda place: -weighted[place])
    reached = [k for k, place in enumerate(ranked, 1) if weighted[place] >= -log(alpha * k)]
    return ranked[: max(reached, default=0)]


def _combined(bias: Bias) -> list[_Axes]:
    """Two or three attributes, at least one of them protected."""
    names = [a.name for a in bias.protected_attributes]
    return [
        _Axes(own, beside)
        for size in range(2, MOST_ATTRIBUTES + 1)
        for protected in range(size, 0, -1)
        for own in combinations(names, protected)
        for beside in combinations([s for s in bias.strata if s not in names], size - protected)
    ]


def _measures(bias: Bias) -> list[str]:
    """Those about labels where the manifest says that labels come; whether they have come decides nothing."""
    labelled = any(metric.name in NEED_LABELS for metric in bias.metrics)
    return list(MEASURES) if labelled else ["selectionRate"]


class _Coded(NamedTuple):
    """The cells as columns: ``places`` of each axis's value among those that are enrolled (−1: it isn't), and of each
    measure (cases, rows), shape (cells,) each; so that many combinations cost little."""

    places: Mapping[str, NDArray[np.int64]]
    counts: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]


def _coded(cells: Cells, roster: Roster) -> _Coded:
    counts = np.array([*cells.counts.values()], np.int64).reshape(-1, 2, 3)
    places = {}
    for axis, name in enumerate(cells.axes):
        order = {value: i for i, value in enumerate(roster.order(name))}
        places[name] = np.array([order.get(key[axis], -1) for key in cells.counts], np.int64)
    rates = {}
    for measure in MEASURES:
        k, n = RATES[measure](counts)
        rates[measure] = (k.astype(np.int64), n.astype(np.int64))
    return _Coded(places, rates)


def _candidates(coded: _Coded, axes: _Axes, measure: str, roster: Roster, part: float) -> list[_Candidate]:
    """Slices of values that are enrolled, with rows inside and beside."""
    orders = [roster.order(name) for name in axes.all]
    sizes = [len(order) for order in orders]
    beside = prod(sizes[len(axes.protected) :])
    cases, rows = coded.counts[measure]
    columns = np.stack([coded.places[axis] for axis in axes.all])
    inside = np.flatnonzero((columns >= 0).all(0))
    if not len(inside):
        return []
    strata = columns[len(axes.protected) :]
    within = np.flatnonzero((strata >= 0).all(0))
    stratum = (
        np.ravel_multi_index(tuple(strata[:, within]), sizes[len(axes.protected) :])
        if len(strata)
        else np.zeros(len(within), np.int64)
    )
    whole_k, whole_n = (np.bincount(stratum, some[within], beside) for some in (cases, rows))
    joint = np.ravel_multi_index(tuple(columns[:, inside]), sizes)
    k, n = (np.bincount(joint, some[inside], prod(sizes)) for some in (cases, rows))
    others_k, others_n = (w[np.arange(prod(sizes)) % beside] - own for w, own in ((whole_k, k), (whole_n, n)))
    candidates = []
    for place in np.flatnonzero((n >= SMALLEST_GROUP) & (others_n >= SMALLEST_GROUP)).tolist():
        at = [int(i) for i in np.unravel_index(place, sizes)]
        values = tuple(order[i] for order, i in zip(orders, at, strict=True))
        share = part * prod(place_share(i + 1) for i in at)
        others = int(others_k[place]), int(others_n[place])
        candidates.append(_Candidate(axes, measure, values, int(k[place]), int(n[place]), others, share))
    return candidates


def _bounds(bias: Bias, name: str) -> tuple[float, float]:
    """Those of the manifest's metric, else what is usual."""
    for metric in bias.metrics:
        if metric.name == name:
            low, high = metric.threshold_lower, metric.threshold_upper
            return -inf if low is None else low, inf if high is None else high
    return _USUAL

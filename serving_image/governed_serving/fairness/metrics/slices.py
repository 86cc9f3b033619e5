"""Subgroup discovery: values of two or three protected attributes together that are selected otherwise than all others.

Every slice has an e-process against "its rate differs from everybody else's by no more than the bounds allow" (those of
the manifest's statistical parity difference, else ±.1). Its part of alpha is the product of its values' places in the
roster, which don't depend on what else there is: the chance that any slice is ever found falsely, at any look, is at
most alpha (Ville 1939, with a union bound over all that could come). What is found is shown; it decides nothing.
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
from governed_serving.fairness.metrics.metrics import selected
from governed_serving.fairness.metrics.roster import SMALLEST_GROUP, Panel
from governed_serving.fairness.metrics.sequences import Question, RateContrast, evidences, intervals

__all__ = ["MOST_SHOWN", "MOST_SLICES", "slices_of"]

MOST_ATTRIBUTES = 3
MOST_SLICES = 1000
"""Slices that are looked at, the largest; the others are counted."""
MOST_SHOWN = 20
"""Slices that are told, those with the most evidence."""
_USUAL = (-0.1, 0.1)


class _Candidate(NamedTuple):
    axes: tuple[str, ...]
    values: Key
    cases: int
    rows: int
    share: float
    """Part of alpha."""


def slices_of(bias: Bias, cells: Cells, panels: Mapping[str, Panel], alpha: float) -> Slices | None:
    """None with fewer than two protected attributes: values of one are compared anyway."""
    names = [a.name for a in bias.protected_attributes]
    combined = [axes for size in range(2, MOST_ATTRIBUTES + 1) for axes in combinations(names, size)]
    if not combined:
        return None
    coded = _coded(cells, panels, names)
    every = [one for axes in combined for one in _candidates(coded, axes, panels, 1 / len(combined))]
    every.sort(key=lambda one: (-one.rows, one.axes, one.values))
    looked_at, left_out = every[:MOST_SLICES], len(every) - min(len(every), MOST_SLICES)
    whole_k, whole_n = int(coded.cases.sum()), int(coded.rows.sum())
    questions = [
        Question((RateContrast((one.cases, whole_k - one.cases), (one.rows, whole_n - one.rows)),), "difference")
        for one in looked_at
    ]
    evidence = evidences(questions, [_bounds(bias)] * len(questions))
    found = [i for i, one in enumerate(looked_at) if evidence[i] >= -log(alpha * one.share)]
    found = sorted(found, key=lambda i: -evidence[i])[:MOST_SHOWN]
    ends = intervals([questions[i] for i in found], [alpha * looked_at[i].share for i in found])
    told = [
        Slice(
            values=dict(zip(looked_at[i].axes, looked_at[i].values, strict=True)),
            rows=looked_at[i].rows,
            rate=looked_at[i].cases / looked_at[i].rows,
            difference=_difference(looked_at[i], whole_k, whole_n),
            lower=interval.lower,
            upper=interval.upper,
            log_evidence=evidence[i],
        )
        for i, interval in zip(found, ends, strict=True)
    ]
    return Slices(looked_at=len(looked_at), left_out=left_out, found=told)


class _Coded(NamedTuple):
    """The cells as columns: ``places`` of each attribute's value among those that are enrolled (−1: it isn't), cases
    and rows, shape (cells,) each; so that many combinations cost little."""

    places: Mapping[str, NDArray[np.int64]]
    cases: NDArray[np.int64]
    rows: NDArray[np.int64]


def _coded(cells: Cells, panels: Mapping[str, Panel], names: Sequence[str]) -> _Coded:
    counts = np.array([*cells.counts.values()], np.int64).reshape(-1, 2, 3)
    places = {}
    for name in names:
        axis, order = cells.axes.index(name), {value: i for i, value in enumerate(panels[name].order)}
        places[name] = np.array([order.get(key[axis], -1) for key in cells.counts], np.int64)
    k, n = selected(counts)
    return _Coded(places, k.astype(np.int64), n.astype(np.int64))


def _candidates(coded: _Coded, axes: tuple[str, ...], panels: Mapping[str, Panel], part: float) -> list[_Candidate]:
    """Slices of values that are enrolled, with rows inside and outside."""
    sizes = [len(panels[axis].order) for axis in axes]
    columns = np.stack([coded.places[axis] for axis in axes])
    known = np.flatnonzero((columns >= 0).all(0))
    if not len(known):
        return []
    joint = np.ravel_multi_index(tuple(columns[:, known]), sizes)
    k, n = (np.bincount(joint, some[known], prod(sizes)) for some in (coded.cases, coded.rows))
    large = np.flatnonzero((n >= SMALLEST_GROUP) & (coded.rows.sum() - n >= SMALLEST_GROUP))
    found = []
    for place in large.tolist():
        at = np.unravel_index(place, sizes)
        values = tuple(panels[axis].order[int(i)] for axis, i in zip(axes, at, strict=True))
        share = part * prod(panels[axis].share(value) for axis, value in zip(axes, values, strict=True))
        found.append(_Candidate(axes, values, int(k[place]), int(n[place]), share))
    return found


def _difference(one: _Candidate, whole_k: int, whole_n: int) -> float:
    return one.cases / one.rows - (whole_k - one.cases) / (whole_n - one.rows)


def _bounds(bias: Bias) -> tuple[float, float]:
    """Those of the manifest's statistical parity difference, else what is usual."""
    for metric in bias.metrics:
        if metric.name == "statisticalParityDifference":
            low, high = metric.threshold_lower, metric.threshold_upper
            return -inf if low is None else low, inf if high is None else high
    return _USUAL

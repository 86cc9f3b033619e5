"""Simpson's paradox and confounding, with uncertainty at all looks.

Three linear contrasts of the same rates in strata: the difference of all rows together, which is the mean of the
strata's rates, weighted by each group's own rows; the adjusted difference, whose weights are common to both groups
(:mod:`.stratified`); and how far the first is from the second. The first two have the exact confidence sequences of
:mod:`..inference.contrasts`, whose bets are by the signs of the weights: of these two they never change. Those of the
change do, whence it has that of :mod:`..inference.regions`, which holds for weights of any sign at each look. It is
about the true rates and the shares of strata as they were counted; every stratum that a side ever had a row of counts
in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.inference.regions import contrast_region
from governed_serving.fairness.metrics.metrics import (
    compare,
    ratio,
    reference_groups,
    selected,
)
from governed_serving.fairness.metrics.sequences import Question, RateContrast, intervals
from governed_serving.fairness.metrics.stratified import MOST_STRATA, Within, overlap, within_strata

__all__ = ["SimpsonFinding", "simpson"]

LEAST_DIFFERENCE = 0.01
"""A difference of all rows together that is smaller is nothing to explain."""


@dataclass(frozen=True)
class SimpsonFinding:
    """Whether an attribute's disparity survives within the strata. ``strata``: value → SPD (NaN: one side is empty).

    The three intervals hold at all looks together, and all three together, with the level that was asked for.
    """

    attribute: str
    group: str
    reference: str
    by: str
    difference: float
    adjusted: float
    change: float
    """``difference`` − ``adjusted``."""
    strata: dict[str, float]
    reverses: bool
    """Simpson's paradox: the adjusted difference has the other sign."""
    confounded: bool
    """Adjusting is shown to change the difference, whose sign stays, by half or more: that much is the strata's
    doing."""
    shown: bool
    """Both differences are shown to be on their sides of 0; a reversal that isn't may be chance."""
    difference_lower: float
    difference_upper: float
    adjusted_lower: float
    adjusted_upper: float
    change_lower: float
    change_upper: float


def simpson(
    cells: Cells,
    attribute: str,
    by: str,
    privileged: Sequence[str] = (),
    least: int = 0,
    level: float | Mapping[str, float] = 0.95,
) -> list[SimpsonFinding]:
    """Compare the aggregate SPD of every group with the one within the values of ``by`` (Simpson 1951; Bickel et al.
    1975).

    ``level``: of each group's intervals together, or group → its own. Strata with fewer than ``least`` rows on a side
    count, but their own difference isn't told (NaN).
    """
    table = cells.by(attribute)
    base = reference_groups(table, privileged)
    if not base:
        return []
    wholes = compare(table, base, ("statisticalParityDifference",))
    counts = within_strata(cells, (attribute,), (by,), [whole.group for whole in wholes], base)
    contrasts = {group: _contrasts(within) for group, within in counts.items()}
    asked = [
        (group, contrast) for group, two in contrasts.items() for contrast in two if isinstance(contrast, RateContrast)
    ]
    part = {group: (1 - (level if isinstance(level, float) else level[group])) / 3 for group in counts}
    questions = [Question((contrast,), "difference") for _, contrast in asked]
    solved = iter(intervals(questions, [part[group] for group, _ in asked]))
    findings, values = [], cells.values(by)
    for whole in wholes:
        within = counts[whole.group]
        ends = [contrast if isinstance(contrast, Interval) else next(solved) for contrast in contrasts[whole.group]]
        told = _told(within, values, least)
        all_rows, around = ends
        ends.append(_change(within, all_rows, around, part[whole.group]))
        head = (attribute, whole.group, whole.reference, by, whole.metrics["statisticalParityDifference"])
        findings.append(_finding(head, overlap(selected, within).value, told, ends))
    return findings


def _told(within: Within, values: Sequence[str], least: int) -> dict[str, float]:
    (k1, n1), (k0, n0) = selected(within.u), selected(within.p)
    shown = np.where(np.minimum(n1, n0) >= least, ratio(k1, n1) - ratio(k0, n0), nan)
    return dict(zip(values, shown.tolist(), strict=True))


def _finding(
    head: tuple[str, str, str, str, float], adjusted: float, told: dict[str, float], ends: Sequence[Interval]
) -> SimpsonFinding:
    difference = head[-1]
    whole, around, change = ends
    large = abs(difference) > LEAST_DIFFERENCE
    less = adjusted * difference >= 0 and abs(adjusted) <= abs(difference) / 2
    return SimpsonFinding(
        *head,
        adjusted,
        difference - adjusted,
        told,
        reverses=bool(large and adjusted * difference < 0),
        confounded=bool(large and less and _excludes_zero(change)),
        shown=_excludes_zero(whole) and _excludes_zero(around),
        difference_lower=whole.lower,
        difference_upper=whole.upper,
        adjusted_lower=around.lower,
        adjusted_upper=around.upper,
        change_lower=change.lower,
        change_upper=change.upper,
    )


def _excludes_zero(interval: Interval) -> bool:
    return not interval.lower <= 0 <= interval.upper


def _contrasts(within: Within) -> tuple[RateContrast, RateContrast | Interval]:
    """The difference in all and the adjusted one: what is to be solved, or is known."""
    (k1, n1), (k0, n0) = selected(within.u), selected(within.p)
    whole = RateContrast(tuple(map(float, (k1.sum(), k0.sum()))), tuple(map(float, (n1.sum(), n0.sum()))))
    both = overlap(selected, within)
    return whole, both.contrast() if 0 < len(both.places) <= MOST_STRATA else Interval(-1.0, 1.0)


def _change(within: Within, whole: Interval, around: Interval, alpha: float) -> Interval:
    """Of the difference in all less the adjusted one. A stratum weighs what it has of the group's rows less its weight
    in the adjusted difference, which may be of either sign and change it from look to look. What the two intervals
    leave to their difference holds with them."""
    (k1, n1), (k0, n0) = selected(within.u), selected(within.p)
    both = overlap(selected, within)
    if not len(both.places):
        return Interval(-2.0, 2.0)
    weight = np.zeros(len(n1))
    weight[both.places] = both.weight
    weights = np.concatenate([n1 / n1.sum() - weight, weight - n0 / n0.sum()])
    cases, rows = (np.concatenate(pair).astype(float) for pair in ((k1, k0), (n1, n0)))
    region = contrast_region(cases, rows, np.where(np.abs(weights) > _NOTHING, weights, 0.0), alpha)
    return Interval(max(region.lower, whole.lower - around.upper), min(region.upper, whole.upper - around.lower))


_NOTHING = 1e-12
"""A weight that is as small is one that rounding left."""

"""What could be done about a disparity, and what it would cost: offered with its effect measured, never applied
here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.metrics.metrics import Cells, GroupTable, coded, confusion, group_rates

__all__ = ["Offer", "Scored", "group_thresholds", "reweighing", "reweighing_of"]

Floats = NDArray[np.float64]


def reweighing(cells: Cells, attribute: str) -> dict[tuple[str, int], float]:
    """(group, label) → weight P(group)·P(label)/P(group, label) that makes both independent (Kamiran & Calders
    2012)."""
    return reweighing_of(cells.by(attribute))


def reweighing_of(table: GroupTable) -> dict[tuple[str, int], float]:
    """The same from counts per group; rows without a label are left out."""
    joint = table.counts[:, :, :2].sum(1).astype(np.float64)
    total = joint.sum()
    wanted = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True) / max(total, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(joint > 0, wanted / joint, 0.0)
    return {
        (group, label): float(weights[place, label]) for place, group in enumerate(table.groups) for label in (0, 1)
    }


@dataclass(frozen=True)
class Scored:
    """Rows as thresholds see them: ``score``, ``label`` (0/1) and ``groups``, shape (rows,)."""

    score: Floats
    label: NDArray[np.bool_ | np.integer]
    groups: NDArray[np.generic]

    def at(self, index: NDArray[np.bool_ | np.integer]) -> "Scored":
        """The rows at ``index`` (places or a mask)."""
        return Scored(self.score[index], self.label[index], self.groups[index])


@dataclass(frozen=True)
class Offer:
    """Thresholds per group on the score, and what they do on ``measured_rows`` rows that they weren't fitted on."""

    thresholds: dict[str, float]
    accuracy_before: float
    accuracy_after: float
    largest_difference_before: float
    largest_difference_after: float
    fitted_rows: int
    measured_rows: int


def group_thresholds(fit: Scored, held: Scored, threshold: float = 0.5) -> Offer:
    """Thresholds that give every group about the selection rate that ``threshold`` gives all together (demographic
    parity).

    Fitted on ``fit`` and measured on ``held``, which shares no row with it: on the rows that they were fitted on,
    thresholds equalise chance as well. A group that ``fit`` lacks keeps ``threshold``. The rate is the present one, so
    that as many are favoured as before; whether treating groups by different thresholds is lawful is for people to
    decide (Hardt, Price & Srebro 2016).
    """
    selected = int((fit.score >= threshold).sum())
    codes, names = coded(fit.groups)
    thresholds = {name: _cut(fit.score[codes == place], selected, len(fit.score)) for place, name in enumerate(names)}
    cut = np.array([thresholds.get(str(group), threshold) for group in held.groups.tolist()])
    before, after = held.score >= threshold, held.score >= cut
    return Offer(
        thresholds,
        float((before == held.label).mean()),
        float((after == held.label).mean()),
        _largest(held.groups, before),
        _largest(held.groups, after),
        len(fit.score),
        len(held.score),
    )


def _cut(score: Floats, selected: int, rows: int) -> float:
    """The score at or above which a share of ``selected`` / ``rows``, as near as ties allow, lies.

    Of two that are as near, the one that favours more. Shares are compared as whole numbers: of floats, rounding would
    choose.
    """
    ordered, counts = np.unique(score, return_counts=True)
    above = np.append(counts[::-1].cumsum()[::-1], 0)
    best = int(np.abs(above * rows - selected * len(score)).argmin())
    return float(ordered[best]) if best < len(ordered) else float(np.nextafter(ordered[-1], np.inf))


def _largest(groups: NDArray[np.generic], outcome: NDArray[np.bool_]) -> float:
    rates = [r["selectionRate"] for r in group_rates(confusion(groups, outcome)).values()]
    return max(rates) - min(rates)

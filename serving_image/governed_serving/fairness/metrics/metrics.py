"""Fairness metrics as functions of counts; numpy only, no I/O, shared by auditor and trainer.

Signed differences and ratios compare an unprivileged group with the privileged (AIF360's convention); the ``…MaxMin``
figures take the spread over all groups (fairlearn's). Counts are arrays (…, 2 outcomes, 3 labels) as in :mod:`.cells`,
and every function broadcasts over the leading axes, so that a bootstrap evaluates all its replicates at once. Undefined
values are NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import (
    FAVORABLE,
    UNFAVORABLE,
    UNKNOWN,
    Cells,
    CodedColumn,
    GroupTable,
    coded,
)
from governed_serving.fairness.counts.columns import OTHER, parts_of
from governed_serving.fairness.counts.grouping import MISSING

__all__ = [
    "LABEL_METRICS",
    "LEAST_REFERENCE",
    "LEAST_SHARE",
    "METRICS",
    "RATES",
    "Cells",
    "CodedColumn",
    "Comparison",
    "GroupTable",
    "coded",
    "compare",
    "confusion",
    "entropy_index",
    "group_rates",
    "impact_ratios",
    "is_group",
    "reference_groups",
    "spread",
]

Array = NDArray[np.integer | np.floating]
"""Counts, or figures made of them."""
Floats = NDArray[np.float64]


def ratio(numerator: Array, denominator: Array) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def selected(c: Array) -> tuple[Array, Array]:
    """(favourable outcomes, rows)."""
    return c[..., FAVORABLE, :].sum(-1), c.sum((-2, -1))


def labelled_favorable(c: Array) -> tuple[Array, Array]:
    """(favourable labels, rows with a label)."""
    labels = c[..., :UNKNOWN]
    return labels[..., FAVORABLE].sum(-1), labels.sum((-2, -1))


def true_positives(c: Array) -> tuple[Array, Array]:
    """(favourable outcomes, rows) among favourable labels: TPR."""
    return c[..., FAVORABLE, FAVORABLE], c[..., :, FAVORABLE].sum(-1)


def false_positives(c: Array) -> tuple[Array, Array]:
    """(favourable outcomes, rows) among unfavourable labels: FPR."""
    return c[..., FAVORABLE, UNFAVORABLE], c[..., :, UNFAVORABLE].sum(-1)


def precise(c: Array) -> tuple[Array, Array]:
    """(favourable labels, rows) among favourable outcomes with a label: PPV."""
    return c[..., FAVORABLE, FAVORABLE], c[..., FAVORABLE, :UNKNOWN].sum(-1)


def omitted(c: Array) -> tuple[Array, Array]:
    """(favourable labels, rows) among unfavourable outcomes with a label: false omission rate."""
    return c[..., UNFAVORABLE, FAVORABLE], c[..., UNFAVORABLE, :UNKNOWN].sum(-1)


def right(c: Array) -> tuple[Array, Array]:
    """(outcome = label, rows with a label): accuracy."""
    hits = c[..., FAVORABLE, FAVORABLE] + c[..., UNFAVORABLE, UNFAVORABLE]
    return hits, c[..., :UNKNOWN].sum((-2, -1))


Rate = Callable[[Array], tuple[Array, Array]]
"""Counts → (cases, out of)."""

RATES: Mapping[str, Rate] = {
    "selectionRate": selected,
    "baseRate": labelled_favorable,
    "truePositiveRate": true_positives,
    "falsePositiveRate": false_positives,
    "predictiveValue": precise,
    "falseOmissionRate": omitted,
    "accuracy": right,
}


def _value(rate: Rate, c: Array) -> Floats:
    return ratio(*rate(c))


@dataclass(frozen=True)
class Metric:
    """A metric of two groups: the rates that it rests on, and what is made of their values in (unprivileged,
    privileged)."""

    rates: tuple[Rate, ...]
    combine: Callable[[list[Floats], list[Floats]], Floats]

    def __call__(self, u: Array, p: Array) -> Floats:
        """Value for counts (…, 2, 3) of the unprivileged and the privileged; shape (…)."""
        return self.combine([_value(r, u) for r in self.rates], [_value(r, p) for r in self.rates])

    def support(self, u: Array, p: Array) -> int:
        """Rows on the smaller side of the smallest rate."""
        return int(min(min(r(u)[1], r(p)[1]) for r in self.rates))


def _difference(u: list[Floats], p: list[Floats]) -> Floats:
    return u[0] - p[0]


def _ratio(u: list[Floats], p: list[Floats]) -> Floats:
    return ratio(u[0], p[0])


def _mean_difference(u: list[Floats], p: list[Floats]) -> Floats:
    return (u[0] - p[0] + u[1] - p[1]) / 2


def _largest(u: list[Floats], p: list[Floats]) -> Floats:
    return np.maximum(np.abs(u[0] - p[0]), np.abs(u[1] - p[1]))


METRICS: Mapping[str, Metric] = {
    "statisticalParityDifference": Metric((selected,), _difference),
    "disparateImpactRatio": Metric((selected,), _ratio),
    "equalOpportunityDifference": Metric((true_positives,), _difference),
    "averageOddsDifference": Metric((true_positives, false_positives), _mean_difference),
    "equalizedOddsDifference": Metric((true_positives, false_positives), _largest),
    "predictiveParityDifference": Metric((precise,), _difference),
    "falsePositiveRateDifference": Metric((false_positives,), _difference),
    "falseOmissionRateDifference": Metric((omitted,), _difference),
    "accuracyDifference": Metric((right,), _difference),
    "baseRateDifference": Metric((labelled_favorable,), _difference),
}
"""SPD = P(Ŷ=1|u) − P(Ŷ=1|p); DIR their ratio (four-fifths rule, 29 CFR 1607.4 D: below .8); equal opportunity ΔTPR;
average odds (ΔTPR + ΔFPR)/2; equalised odds max(|ΔTPR|, |ΔFPR|) (Hardt, Price & Srebro 2016); predictive parity
ΔPPV."""

LABEL_METRICS = frozenset(METRICS) - {"statisticalParityDifference", "disparateImpactRatio"}
"""Those that need labels."""


@dataclass(frozen=True)
class Comparison:
    """One group against the reference; ``counts`` and ``against``: (2, 3). ``metrics``: name → value (NaN where not
    defined)."""

    group: str
    reference: str
    counts: Array
    against: Array
    metrics: dict[str, float]


def group_rates(table: GroupTable) -> dict[str, dict[str, float]]:
    """Group → rate → value."""
    columns = {name: _value(rate, table.counts).tolist() for name, rate in RATES.items()}
    return {group: {name: values[i] for name, values in columns.items()} for i, group in enumerate(table.groups)}


LEAST_SHARE = 0.02
"""Categories below this share of the rows may be left out (6 RCNY § 5-301 (d)); none is a reference unless it is
named."""
LEAST_REFERENCE = 30
"""Rows that a reference has at least, unless it is named."""


def is_group(name: str) -> bool:
    """Whether a line of counts is about people of one kind: rows without a value, and values beyond a limit, are
    not."""
    return not any(part in (MISSING, OTHER) for part in parts_of(name))


def reference_groups(table: GroupTable, privileged: Sequence[str] = ()) -> tuple[str, ...]:
    """The privileged groups that are there; none named: the group with the highest selection rate (ties: last by name).

    Of those with at least ``LEAST_REFERENCE`` rows and ``LEAST_SHARE`` of all, so that a stray row is nobody's measure;
    of all groups while none has as many.
    """
    named = tuple(name for name in privileged if name in table.groups)
    if named or privileged:
        return named
    rates = np.nan_to_num(_value(selected, table.counts), nan=-1.0)
    large = table.rows >= max(LEAST_REFERENCE, LEAST_SHARE * table.rows.sum())
    groups = [i for i, name in enumerate(table.groups) if is_group(name)]
    candidates = [i for i in groups if large[i]] or groups
    best = max(candidates, key=lambda i: (rates[i], table.groups[i]), default=None)
    return () if best is None else (table.groups[best],)


def compare(
    table: GroupTable, privileged: Sequence[str] = (), names: Sequence[str] = tuple(METRICS)
) -> list[Comparison]:
    """Every other group against the privileged ones together; empty when there is no reference."""
    base = reference_groups(table, privileged)
    pooled = table.of(base)
    comparisons = []
    for group, counts in zip(table.groups, table.counts, strict=True):
        if not base or group in base or not counts.any():
            continue
        values = {name: float(METRICS[name](counts, pooled)) for name in names}
        comparisons.append(Comparison(group, " + ".join(base), counts, pooled, values))
    return comparisons


def spread(table: GroupTable) -> dict[str, float]:
    """fairlearn's conventions over all groups: differences are max − min of a rate, ratios min / max, odds the worse of
    both (NaN if either is)."""
    rates = {name: _value(rate, table.counts) for name, rate in RATES.items()}
    gap = {name: gap_of(values) for name, values in rates.items()}
    low = {name: ratio_of(values) for name, values in rates.items()}
    odds = ("truePositiveRate", "falsePositiveRate")
    return {
        "demographicParityDifferenceMaxMin": gap["selectionRate"],
        "demographicParityRatioMinMax": low["selectionRate"],
        "equalOpportunityDifferenceMaxMin": gap["truePositiveRate"],
        "equalizedOddsDifferenceMaxMin": float(np.max([gap[name] for name in odds])),
        "equalizedOddsRatioMinMax": float(np.min([low[name] for name in odds])),
        "predictiveParityDifferenceMaxMin": gap["predictiveValue"],
        "accuracyDifferenceMaxMin": gap["accuracy"],
    }


def gap_of(values: Floats) -> float:
    """Greatest − least of the rates that are defined; NaN with fewer than two of them.

    Where fairlearn counts an undefined rate as 0, its group is left out here, and named by whoever tells the figure.
    """
    defined = values[~np.isnan(values)]
    return float(defined.max() - defined.min()) if len(defined) > 1 else float("nan")


def ratio_of(values: Floats) -> float:
    """Least / greatest of the rates that are defined; NaN with fewer than two of them, or where all are 0: 0/0 is
    neither best nor worst."""
    defined = values[~np.isnan(values)]
    return float(defined.min() / defined.max()) if len(defined) > 1 and defined.max() > 0 else float("nan")


def impact_ratios(table: GroupTable, least_share: float = 0.0) -> dict[str, float | None]:
    """NYC Local Law 144 (6 RCNY § 5-300): selection rate / rate of the most selected category.

    Categories with less than ``least_share`` of the rows are left out (None), as § 5-301 (d) allows below 2 %.
    """
    rows = table.rows
    kept = (rows > 0) & (rows >= least_share * rows.sum())
    rates = _value(selected, table.counts)
    best = rates[kept].max() if kept.any() else 0.0
    usable = kept & bool(best > 0)
    return {group: float(rates[i] / best) if usable[i] else None for i, group in enumerate(table.groups)}


def entropy_index(c: Array, alpha: float = 2.0) -> Floats:
    """Generalised entropy of the benefits ŷ − y + 1 ∈ {0, 1, 2} over rows with a label (Speicher et al., KDD 2018).

    ``alpha`` 1 is the Theil index; 0 isn't defined here, since benefits may be 0.
    """
    in_favour = c[..., FAVORABLE, UNFAVORABLE]
    hits, n = right(c)
    mean = ratio(hits + 2 * in_favour, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = 1 / mean, 2 / mean
        if alpha == 1:
            theil: Floats = (hits * one * np.log(one) + in_favour * two * np.log(two)) / n
            return theil
        general: Floats = ((hits * one**alpha + in_favour * two**alpha) / n - 1) / (alpha * (alpha - 1))
    return general


def confusion(
    groups: NDArray[np.generic] | Sequence[object],
    outcome: NDArray[np.bool_ | np.integer] | Sequence[object],
    label: NDArray[np.bool_ | np.integer] | Sequence[object] | None = None,
) -> GroupTable:
    """Counts per group straight from columns: ``outcome`` and ``label`` favourable or not (bool or 0/1), shape
    (rows,)."""
    cells = Cells(("group",))
    labels = None if label is None else np.asarray(label, np.int64)
    cells.add({"group": coded(np.asarray(groups))}, np.asarray(outcome), labels)
    return cells.by("group")

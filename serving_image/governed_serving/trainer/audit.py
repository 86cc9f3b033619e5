"""Group statistics of the data before training (what was decided) and of predictions after it, by the auditor's own
maths.

Signed differences and ratios are unprivileged − privileged and unprivileged / privileged, as in AIF360; intervals are
for one look at closed data (from exact limits of each rate). Undefined values are None.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_api.evidence import (
    AdjustedDifference,
    AttributeAudit,
    AuditedGroup,
    DataAudit,
    Disparity,
    ErrorDifferences,
    ErrorRates,
    ErrorTable,
    StratumAudit,
    StratumDisparity,
)
from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import Cells, GroupTable, coded
from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import rate_difference, rate_ratio
from governed_serving.fairness.metrics.metrics import (
    Comparison,
    compare,
    confusion,
    group_rates,
    reference_groups,
)
from governed_serving.fairness.metrics.simpson import simpson
from governed_serving.trainer.tables import Column

Flags = NDArray[np.bool_]
SPD, DIR = "statisticalParityDifference", "disparateImpactRatio"
ERRORS = {
    "equal_opportunity": "equalOpportunityDifference",
    "average_odds": "averageOddsDifference",
    "equalized_odds": "equalizedOddsDifference",
    "predictive_parity": "predictiveParityDifference",
}
RATES = {
    "accuracy": "accuracy",
    "selection_rate": "selectionRate",
    "base_rate": "baseRate",
    "tpr": "truePositiveRate",
    "fpr": "falsePositiveRate",
    "ppv": "predictiveValue",
}
"""Fields of evaluation.json → the auditor's metrics and rates."""


def favorable(bias: Bias, values: NDArray[np.integer | np.floating], classes: tuple[str | int, ...]) -> Flags:
    """Which labels or predictions favour a person. ``values``: class codes, or scores when ``classes`` is empty."""
    outcome = bias.favorable_outcome
    if not classes:
        threshold = 0.0 if outcome.threshold is None else outcome.threshold
        return np.asarray(values >= threshold)
    return np.asarray(values == [str(c) for c in classes].index(str(outcome.label)))


def audit(bias: Bias, groups: dict[str, Column], outcome: Flags) -> DataAudit:
    """Protected attribute → rates, disparities and χ² in all, and within each stratum of ``bias.strata``."""
    return {
        a.name: _attribute(groups, a.name, bias.strata, outcome, a.privileged, bias.confidence_level)
        for a in bias.protected_attributes
    }


def _attribute(
    columns: dict[str, Column], name: str, strata: Sequence[str], outcome: Flags, privileged: list[str], level: float
) -> AttributeAudit:
    cells = Cells((name, *(s for s in strata if s != name)))
    cells.add({axis: coded(columns[axis]) for axis in cells.axes}, outcome, None)
    table = cells.by(name)
    base = reference_groups(table, privileged)
    test = chi_square(table.counts.sum(2))
    return AttributeAudit(
        groups=_rates(table),
        disparities=[Disparity(**_disparity(c, level)) for c in compare(table, base, (SPD, DIR))],
        chi_square=test.statistic,
        p_value=test.p_value,
        strata={by: _stratified(cells, name, by, base, level) for by in strata if by != name},
    )


def _rates(table: GroupTable) -> list[AuditedGroup]:
    rows, favoured = table.rows.tolist(), table.counts[:, 1].sum(1).tolist()
    listed = zip(table.groups, rows, favoured, strict=True)
    return [AuditedGroup(group=g, rows=n, favorable=k, rate=k / n if n else None) for g, n, k in listed]


def _disparity(comparison: Comparison, level: float) -> dict[str, Any]:
    """Fields of :class:`Disparity`."""
    (k1, n1), (k0, n0) = ((int(c[1].sum()), int(c.sum())) for c in (comparison.counts, comparison.against))
    difference, ratio = rate_difference(k1, n1, k0, n0, level), rate_ratio(k1, n1, k0, n0, level)
    return {
        "group": comparison.group,
        "reference": comparison.reference,
        "spd": comparison.metrics[SPD],
        "dir": _known(comparison.metrics[DIR]),
        "spd_interval": [_known(v) for v in difference],
        "dir_interval": [_known(v) for v in ratio],
    }


def _stratified(cells: Cells, name: str, by: str, base: Sequence[str], level: float) -> StratumAudit:
    rows = []
    for value in cells.values(by):
        part = cells.where(by, value).by(name)
        if any(group in part.groups for group in base):
            compared = compare(part, base, (SPD, DIR))
            rows += [StratumDisparity(stratum=value, **_disparity(c, level)) for c in compared]
    differences = [f for f in simpson(cells, name, by, base, level=level) if f.adjusted == f.adjusted]
    adjusted = [
        AdjustedDifference(
            group=f.group,
            spd=f.difference,
            adjusted_spd=f.adjusted,
            reverses=f.reverses,
            confounded=f.confounded,
            shown=f.shown,
            adjusted_interval=[f.adjusted_lower, f.adjusted_upper],
            spd_interval=[f.difference_lower, f.difference_upper],
            change=f.change,
            change_interval=[f.change_lower, f.change_upper],
        )
        for f in differences
    ]
    return StratumAudit(by_stratum=rows, adjusted=adjusted, simpson=any(f.reverses for f in differences))


def errors(groups: Column, outcome: Flags, truth: Flags, privileged: list[str]) -> ErrorTable:
    """Error rates per group, and equal-opportunity, odds and predictive-parity differences to the privileged."""
    table = confusion(groups, outcome, truth)
    rates = group_rates(table)
    counted = zip(table.groups, table.rows.tolist(), strict=True)
    return ErrorTable(
        groups=[
            ErrorRates(group=g, rows=n, **{k: _known(rates[g][name]) for k, name in RATES.items()}) for g, n in counted
        ],
        disparities=[
            ErrorDifferences(
                group=c.group, reference=c.reference, **{k: _known(c.metrics[name]) for k, name in ERRORS.items()}
            )
            for c in compare(table, privileged, tuple(ERRORS.values()))
        ],
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

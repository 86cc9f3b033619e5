"""Group statistics: of the data before training (what was decided) and of predictions after it.

Signed differences and ratios are unprivileged − privileged and unprivileged / privileged, as in AIF360.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.trainer.tables import Column

Flags = NDArray[np.bool_]


def favorable(bias: Bias, values: NDArray[Any], classes: tuple[str | int, ...]) -> Flags:
    """Which labels or predictions favour a person. ``values``: class codes, or scores when ``classes`` is empty."""
    outcome = bias.favorable_outcome
    if not classes:
        threshold = 0.0 if outcome.threshold is None else outcome.threshold
        return np.asarray(values >= threshold)
    return np.asarray(values == [str(c) for c in classes].index(str(outcome.label)))


def rates(groups: Column, outcome: Flags) -> dict[str, tuple[int, int]]:
    """Group → (rows, favourable rows)."""
    names, codes = np.unique(groups.astype(str), return_inverse=True)
    totals = np.bincount(codes, minlength=len(names))
    good = np.bincount(codes, weights=outcome, minlength=len(names))
    return {n: (int(t), int(g)) for n, t, g in zip(names.tolist(), totals, good, strict=True)}


def reference(counts: dict[str, tuple[int, int]], privileged: list[str]) -> list[str]:
    """The privileged groups: those named, otherwise the one with the highest favourable rate."""
    named = [name for name in privileged if name in counts]
    return named or [max(counts, key=lambda name: (counts[name][1] / max(counts[name][0], 1), name))]


def chi_square(counts: dict[str, tuple[int, int]]) -> float:
    """Pearson's χ² of group × outcome, no continuity correction; 0 when a margin is empty."""
    table = np.array([[good, total - good] for total, good in counts.values()], dtype=np.float64)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / max(table.sum(), 1.0)
    if (expected <= 0).any():
        return 0.0
    return float(((table - expected) ** 2 / expected).sum())


def disparities(counts: dict[str, tuple[int, int]], privileged: list[str]) -> list[dict[str, Any]]:
    """SPD and DIR of every group against the privileged ones together; None where a rate isn't defined."""
    base = reference(counts, privileged)
    total, good = (sum(counts[name][k] for name in base) for k in (0, 1))
    found = []
    for name, (rows, favoured) in counts.items():
        if name in base or rows == 0 or total == 0:
            continue
        rate, against = favoured / rows, good / total
        ratio = rate / against if against > 0 else None
        comparison = {"group": name, "reference": "+".join(base)}
        found.append({**comparison, "spd": rate - against, "dir": ratio})
    return found


def adjusted(strata: dict[str, dict[str, tuple[int, int]]], group: str, base: list[str]) -> float | None:
    """Stratum-adjusted SPD of ``group`` against ``base``: mean over strata, weighted n₁n₀/(n₁+n₀) as Mantel & Haenszel."""
    weighted = weights = 0.0
    for counts in strata.values():
        n1, good1 = counts.get(group, (0, 0))
        n0, good0 = (sum(counts.get(name, (0, 0))[k] for name in base) for k in (0, 1))
        if n1 and n0:
            weight = n1 * n0 / (n1 + n0)
            weighted += weight * (good1 / n1 - good0 / n0)
            weights += weight
    return weighted / weights if weights else None


def audit_attribute(groups: Column, outcome: Flags, privileged: list[str], strata: dict[str, Column]) -> dict[str, Any]:
    """Rates, disparities and χ² of one protected attribute, in all and within each stratum."""
    counts = rates(groups, outcome)
    base = reference(counts, privileged)
    overall = disparities(counts, privileged)
    return {
        "groups": [
            {"group": name, "rows": rows, "favorable": good, "rate": good / rows}
            for name, (rows, good) in counts.items()
        ],
        "disparities": overall,
        "chiSquare": chi_square(counts),
        "strata": {name: _stratified(groups, outcome, base, column, overall) for name, column in strata.items()},
    }


def _stratified(
    groups: Column, outcome: Flags, base: list[str], column: Column, overall: list[dict[str, Any]]
) -> dict[str, Any]:
    values = sorted(set(column.tolist()))
    within = {value: rates(groups[column == value], outcome[column == value]) for value in values}
    rows = []
    for value, counts in within.items():
        present = [name for name in base if name in counts]
        rows += [{"stratum": value, **d} for d in (disparities(counts, present) if present else [])]
    compared = []
    for whole in overall:
        value = adjusted(within, whole["group"], base)
        if value is not None:
            reverses = abs(whole["spd"]) > 0.01 and value * whole["spd"] <= 0
            compared.append({"group": whole["group"], "spd": whole["spd"], "adjustedSpd": value, "reverses": reverses})
    return {"byStratum": rows, "adjusted": compared, "simpson": any(c["reverses"] for c in compared)}


def audit(bias: Bias, groups: dict[str, Column], outcome: Flags) -> dict[str, Any]:
    """Protected attribute → :func:`audit_attribute`, strata as ``bias`` names them."""
    strata = {name: groups[name] for name in bias.strata}
    return {a.name: audit_attribute(groups[a.name], outcome, a.privileged, strata) for a in bias.protected_attributes}


def confusion(groups: Column, outcome: Flags, truth: Flags, privileged: list[str]) -> dict[str, Any]:
    """Error rates per group, and equal-opportunity, average-odds and predictive-parity differences to the privileged."""
    names = sorted(set(groups.tolist()))
    table = {name: _error_rates(outcome[groups == name], truth[groups == name]) for name in names}
    base = reference(rates(groups, outcome), privileged)
    pool = np.isin(groups.astype(str), base)
    against = _error_rates(outcome[pool], truth[pool])
    compared = []
    for name in names:
        if name in base:
            continue
        tpr, fpr, ppv = (_difference(table[name][k], against[k]) for k in ("tpr", "fpr", "ppv"))
        odds = None if tpr is None or fpr is None else (tpr + fpr) / 2
        equalized = None if tpr is None or fpr is None else max(abs(tpr), abs(fpr))
        gaps = {"equalOpportunity": tpr, "averageOdds": odds, "equalizedOdds": equalized, "predictiveParity": ppv}
        compared.append({"group": name, "reference": "+".join(base), **gaps})
    return {"groups": [{"group": name, **table[name]} for name in names], "disparities": compared}


def _error_rates(outcome: Flags, truth: Flags) -> dict[str, float | None]:
    return {
        "rows": float(len(outcome)),
        "accuracy": _share(outcome == truth),
        "selectionRate": _share(outcome),
        "baseRate": _share(truth),
        "tpr": _share(outcome[truth]),
        "fpr": _share(outcome[~truth]),
        "ppv": _share(truth[outcome]),
    }


def _share(flags: Flags) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _difference(value: float | None, against: float | None) -> float | None:
    return None if value is None or against is None else value - against

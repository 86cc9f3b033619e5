"""From counts to a verdict, against the manifest's bounds.

A metric fails when its confidence sequence lies outside the bounds, so that looking after every request raises no false alarms; it
passes when the estimate lies inside; in between, and below ``minSamples``, the verdict is Unknown and says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf, isfinite
from typing import Any, Literal

from governed_api.governance import Bias, MetricBounds
from governed_serving.auditor.cells import Cells, GroupTable
from governed_serving.auditor.hypotheses import chi_square
from governed_serving.auditor.intervals import Interval, katz, newcombe
from governed_serving.auditor.metrics import LABEL_METRICS, METRICS, Comparison, compare, impact_ratios, simpson, spread
from governed_serving.auditor.sequences import e_benjamini_hochberg, metric_evidence, metric_sequence

__all__ = ["SMALLEST_GROUP", "judge"]

Verdict = Literal["Pass", "Fail", "Unknown"]
SMALLEST_GROUP = 10
"""Groups with fewer rows are neither compared nor shown (small-cell suppression)."""


def _counts(rate: tuple[Any, Any]) -> tuple[int, int]:
    return int(rate[0]), int(rate[1])


def _fixed(name: str, one: Comparison, level: float) -> Interval | None:
    """Interval for one look at a closed window."""
    metric = METRICS[name]
    if len(metric.rates) != 1:
        return None
    group, against = _counts(metric.rates[0](one.counts)), _counts(metric.rates[0](one.against))
    return (katz if name == "disparateImpactRatio" else newcombe)(*group, *against, level)


def _limits(bounds: MetricBounds) -> tuple[float, float]:
    low, high = bounds.threshold_lower, bounds.threshold_upper
    return -inf if low is None else low, inf if high is None else high


def _metric_verdict(name: str, one: Comparison, bounds: MetricBounds, interval: Interval) -> tuple[Verdict, str]:
    low, high = _limits(bounds)
    value = one.metrics[name]
    if value != value:
        return "Unknown", "no labels yet" if name in LABEL_METRICS else "a rate is not defined"
    if METRICS[name].support(one.counts, one.against) < SMALLEST_GROUP:
        return "Unknown", f"fewer than {SMALLEST_GROUP} rows in a group"
    if interval.upper < low or interval.lower > high:
        return "Fail", "the whole interval lies outside the bounds"
    if low <= value <= high:
        return "Pass", ""
    return "Unknown", "the estimate lies outside the bounds, but its interval still reaches them"


def judge(bias: Bias, cells: Cells) -> dict[str, Any]:
    """Verdict over ``cells``: ``verdict``, ``summary``, ``samples``, ``metrics``, ``groups``, ``strata``, …; JSON-ready.

    The overall level is shared among all comparisons (Bonferroni), so that one overall false alarm has probability ≤ 1 − level.
    ``discovered`` of a metric is the weaker claim that holds for most: false discovery rate by e-BH.
    """
    names = [bounds.name for bounds in bias.metrics]
    tables = {a.name: cells.by(a.name) for a in bias.protected_attributes}
    compared = {a.name: compare(tables[a.name], a.privileged, names) for a in bias.protected_attributes}
    level = 1 - (1 - bias.confidence_level) / max(len(names) * sum(map(len, compared.values())), 1)
    samples = cells.rows
    enough = samples >= bias.min_samples
    found = [
        _entry(attribute, one, bounds, level, bias.confidence_level, enough)
        for attribute, comparisons in compared.items()
        for one in comparisons
        for bounds in bias.metrics
    ]
    overall = _overall([f["verdict"] for f in found]) if enough else "Unknown"
    discoveries = e_benjamini_hochberg([f["logEvidence"] for f in found], bias.confidence_level)
    for place, entry in enumerate(found):
        entry["discovered"] = enough and place in discoveries
        entry["logEvidence"] = _number(entry["logEvidence"])
    strata = [
        asdict(row)
        for a in bias.protected_attributes
        for s in bias.strata
        if s != a.name
        for row in simpson(cells, a.name, s, a.privileged)
    ]
    return {
        "verdict": overall,
        "summary": _summary(found, samples, bias.min_samples),
        "samples": samples,
        "labelled": cells.labelled,
        "confidenceLevel": bias.confidence_level,
        "metrics": found,
        "groups": {name: _group_rates(table) for name, table in tables.items()},
        "strata": [_clean(row) for row in strata],
        "attributes": {name: _attribute(table) for name, table in tables.items()},
        "intersections": _intersections(bias, cells),
    }


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    within = {name: _number(value) for name, value in row["strata"].items()}
    return {**row, "adjusted": _number(row["adjusted"]), "strata": within}


def _attribute(table: GroupTable) -> dict[str, Any]:
    """What is said of an attribute as a whole: fairlearn's spread, LL144's impact ratios, χ² of one look."""
    large = table.rows >= SMALLEST_GROUP
    shown = GroupTable([group for group, keep in zip(table.groups, large, strict=True) if keep], table.counts[large])
    test = chi_square(shown.counts.sum(2))
    return {
        "spread": {name: _number(value) for name, value in spread(shown).items()},
        "impactRatios": impact_ratios(shown, 0.02),
        "chiSquare": {"statistic": test.statistic, "pValue": test.p_value},
    }


def _intersections(bias: Bias, cells: Cells) -> dict[str, Any]:
    """Groups of all protected attributes together, small cells left out."""
    if len(bias.protected_attributes) < 2:
        return {}
    table = cells.by(*(a.name for a in bias.protected_attributes))
    ratios = impact_ratios(table, 0.02)
    rows = [{**row, "impactRatio": ratios[row["group"]]} for row in _group_rates(table)]
    return {"groups": rows, "suppressed": len(table.groups) - len(rows)}


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    if "Fail" in verdicts:
        return "Fail"
    return "Unknown" if "Unknown" in verdicts or not verdicts else "Pass"


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _entry(
    attribute: str, one: Comparison, bounds: MetricBounds, level: float, fixed_level: float, enough: bool
) -> dict[str, Any]:
    name = bounds.name
    interval = metric_sequence(name, one.counts, one.against, level)
    verdict, why = _metric_verdict(name, one, bounds, interval) if enough else ("Unknown", "too few samples")
    entry: dict[str, Any] = {
        "name": name,
        "attribute": attribute,
        "group": one.group,
        "reference": one.reference,
        "value": _number(one.metrics[name]),
        "lower": _number(interval.lower),
        "upper": _number(interval.upper),
        "thresholdLower": bounds.threshold_lower,
        "thresholdUpper": bounds.threshold_upper,
        "samples": int(one.counts.sum() + one.against.sum()),
        "verdict": verdict,
        "message": why,
        "logEvidence": metric_evidence(name, one.counts, one.against, *_limits(bounds)),
    }
    fixed = _fixed(name, one, fixed_level)
    if fixed is not None:
        entry["fixedSample"] = {"lower": _number(fixed.lower), "upper": _number(fixed.upper)}
    return entry


def _group_rates(table: GroupTable) -> list[dict[str, Any]]:
    rows, favourable = table.rows.tolist(), table.counts[:, 1].sum(1).tolist()
    return [
        {"group": name, "rows": n, "favorable": k, "rate": k / n}
        for name, n, k in zip(table.groups, rows, favourable, strict=True)
        if n >= SMALLEST_GROUP
    ]


def _summary(found: list[dict[str, Any]], samples: int, least: int) -> str:
    if samples < least:
        return f"{samples} of {least} samples"
    if not found:
        return f"{samples} samples, and no two groups to compare"
    order = {"Fail": 0, "Unknown": 1, "Pass": 2}
    worst = min(found, key=lambda f: (order[f["verdict"]], -_excess(f)))
    about = f"{worst['name']} of {worst['attribute']}={worst['group']} against {worst['reference']}"
    if worst["value"] is None:
        return f"{about}: {worst['message']}"
    limits = ", ".join(
        f"{sign} {worst[key]:g}"
        for sign, key in (("≥", "thresholdLower"), ("≤", "thresholdUpper"))
        if worst[key] is not None
    )
    upper = "∞" if worst["upper"] is None else f"{worst['upper']:.4f}"
    return f"{about}: {worst['value']:+.4f} [{worst['lower']:.4f}, {upper}], expected {limits}"


def _excess(entry: Mapping[str, Any]) -> float:
    value = entry["value"] if entry["value"] is not None else 0.0
    low, high = entry["thresholdLower"], entry["thresholdUpper"]
    return max(low - value if low is not None else -inf, value - high if high is not None else -inf)

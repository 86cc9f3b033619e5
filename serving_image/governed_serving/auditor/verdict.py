"""From counts to a verdict, against the manifest's bounds.

A metric fails when its anytime-valid interval lies outside the bounds, so that looking after every request raises no false
alarms; it passes when the estimate lies inside; in between, and below ``minSamples``, the verdict is Unknown and says why.
"""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, Literal

from governed_api.governance import Bias, MetricBounds
from governed_serving.auditor.cells import Cells
from governed_serving.auditor.intervals import Interval, binomial_sequence, katz, newcombe
from governed_serving.auditor.metrics import METRICS, Comparison, Confusion, compare, simpson

__all__ = ["SMALLEST_GROUP", "judge", "sequence_interval"]

Verdict = Literal["Pass", "Fail", "Unknown"]
SMALLEST_GROUP = 10
"""Groups with fewer rows are not compared (small-cell suppression)."""


def sequence_interval(one: Comparison, level: float) -> Interval:
    """Anytime-valid interval of a comparison: a confidence sequence per rate, the level shared among them (union bound)."""
    metric = METRICS[one.metric]
    share = 1 - (1 - level) / (2 * len(metric.rates))
    pairs = [
        (binomial_sequence(*rate(one.group_counts), share), binomial_sequence(*rate(one.reference_counts), share))
        for rate in metric.rates
    ]
    if one.metric == "disparateImpactRatio":
        a, b = pairs[0]
        return Interval(a.lower / b.upper, a.upper / b.lower if b.lower else inf)
    gaps = [Interval(a.lower - b.upper, a.upper - b.lower) for a, b in pairs]
    if one.metric == "equalizedOddsDifference":
        least = [max(g.lower, -g.upper, 0.0) for g in gaps]
        return Interval(max(least), max(max(abs(g.lower), abs(g.upper)) for g in gaps))
    return Interval(sum(g.lower for g in gaps) / len(gaps), sum(g.upper for g in gaps) / len(gaps))


def _fixed(one: Comparison, level: float) -> Interval | None:
    metric = METRICS[one.metric]
    if len(metric.rates) != 1:
        return None
    group, against = metric.rates[0](one.group_counts), metric.rates[0](one.reference_counts)
    return (katz if one.metric == "disparateImpactRatio" else newcombe)(*group, *against, level)


def _rows(one: Comparison) -> int:
    """The smaller side's rows that the metric rests on."""
    metric = METRICS[one.metric]
    return min(min(r(one.group_counts)[1], r(one.reference_counts)[1]) for r in metric.rates)


def _metric_verdict(one: Comparison, bounds: MetricBounds, interval: Interval, enough: bool) -> tuple[Verdict, str]:
    low = -inf if bounds.threshold_lower is None else bounds.threshold_lower
    high = inf if bounds.threshold_upper is None else bounds.threshold_upper
    if one.value != one.value:
        return "Unknown", "no labels yet" if METRICS[one.metric].labelled else "a rate is not defined"
    if not enough or _rows(one) < SMALLEST_GROUP:
        return "Unknown", "too few samples"
    if interval.upper < low or interval.lower > high:
        return "Fail", "the whole interval lies outside the bounds"
    if low <= one.value <= high:
        return "Pass", ""
    return "Unknown", "the estimate lies outside the bounds, but its interval still reaches them"


def judge(bias: Bias, cells: Cells) -> dict[str, Any]:
    """Verdict over ``cells``: ``verdict``, ``summary``, ``samples``, ``metrics``, ``groups``, ``strata``; JSON-ready.

    The overall level is shared among all comparisons (Bonferroni), so that one overall false alarm has probability ≤ 1 − level.
    """
    bounds = {b.name: b for b in bias.metrics}
    samples = cells.total
    found = []
    tables = {a.name: {g: Confusion.of(c) for g, c in cells.table(a.name).items()} for a in bias.protected_attributes}
    compared = [(a, compare(tables[a.name], a.privileged, list(bounds))) for a in bias.protected_attributes]
    number = max(sum(len(c) for _, c in compared), 1)
    level = 1 - (1 - bias.confidence_level) / number
    for attribute, comparisons in compared:
        for one in comparisons:
            interval = sequence_interval(one, level)
            verdict, why = _metric_verdict(one, bounds[one.metric], interval, samples >= bias.min_samples)
            found.append(
                _entry(
                    attribute.name, one, bounds[one.metric], interval, _fixed(one, bias.confidence_level), verdict, why
                )
            )
    overall = _overall([f["verdict"] for f in found]) if samples >= bias.min_samples else "Unknown"
    return {
        "verdict": overall,
        "summary": _summary(overall, found, samples, bias.min_samples),
        "samples": samples,
        "confidenceLevel": bias.confidence_level,
        "metrics": found,
        "groups": {name: _group_rates(groups) for name, groups in tables.items()},
        "strata": [
            row
            for a in bias.protected_attributes
            for s in bias.strata
            if s != a.name
            for row in simpson(cells, a.name, s, a.privileged)
        ],
    }


def _overall(verdicts: list[Verdict]) -> Verdict:
    if "Fail" in verdicts:
        return "Fail"
    return "Unknown" if "Unknown" in verdicts or not verdicts else "Pass"


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _entry(
    attribute: str,
    one: Comparison,
    bounds: MetricBounds,
    interval: Interval,
    fixed: Interval | None,
    verdict: Verdict,
    why: str,
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": one.metric,
        "attribute": attribute,
        "group": one.group,
        "reference": one.reference,
        "value": _number(one.value),
        "lower": _number(interval.lower),
        "upper": _number(interval.upper),
        "thresholdLower": bounds.threshold_lower,
        "thresholdUpper": bounds.threshold_upper,
        "samples": one.group_counts.rows + one.reference_counts.rows,
        "verdict": verdict,
        "message": why,
    }
    if fixed is not None:
        entry["fixedSample"] = {"lower": _number(fixed.lower), "upper": _number(fixed.upper)}
    return entry


def _group_rates(groups: Mapping[str, Confusion]) -> list[dict[str, Any]]:
    return [
        {"group": name, "rows": c.rows, "favorable": c.favourable, "rate": c.favourable / c.rows}
        for name, c in groups.items()
        if c.rows >= SMALLEST_GROUP
    ]


def _summary(overall: Verdict, found: list[dict[str, Any]], samples: int, least: int) -> str:
    if samples < least:
        return f"{samples} of {least} samples"
    order = {"Fail": 0, "Unknown": 1, "Pass": 2}
    if not found:
        return f"{samples} samples of a single group: nothing to compare"
    worst = min(found, key=lambda f: (order[f["verdict"]], -_excess(f)))
    if worst["value"] is None:
        return f"{worst['name']} {worst['attribute']}: {worst['message']}"
    upper = "∞" if worst["upper"] is None else f"{worst['upper']:.4f}"
    text = f"{worst['name']} {worst['attribute']} {worst['group']}/{worst['reference']} {worst['value']:+.4f} [{worst['lower']:.4f}, {upper}]"
    limits = ", ".join(
        f"{w} {v:g}" for w, v in (("≥", worst["thresholdLower"]), ("≤", worst["thresholdUpper"])) if v is not None
    )
    return f"{text} (bounds {limits})"


def _excess(entry: Mapping[str, Any]) -> float:
    value = entry["value"] if entry["value"] is not None else 0.0
    low, high = entry["thresholdLower"], entry["thresholdUpper"]
    return max(low - value if low is not None else -inf, value - high if high is not None else -inf)

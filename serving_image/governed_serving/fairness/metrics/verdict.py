"""From counts to a verdict, against the manifest's bounds.

A metric fails when its confidence sequence lies outside the bounds, so that looking after every request raises no false alarms; it
passes when the estimate lies inside; in between, and below ``minSamples``, the verdict is Unknown and says why.
"""

from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isfinite

from governed_api.governance import Bias, MetricBounds
from governed_api.verdict import (
    AttributeFigures,
    BiasVerdict,
    Bounds,
    ChiSquare,
    GroupRate,
    Intersections,
    MetricFinding,
    RecordedOutcome,
    StratifiedDifference,
    VerdictWord,
)
from governed_serving.fairness.counts.cells import Cells, GroupTable
from governed_serving.fairness.counts.columns import joint_name
from governed_serving.fairness.counts.grouping import MISSING
from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.measures import (
    LEAST_SHARE,
    NEED_LABELS,
    SMALLEST_GROUP,
    Finding,
    bound_evidence,
    findings,
    sequences,
)
from governed_serving.fairness.metrics.metrics import SimpsonFinding, impact_ratios, simpson, spread
from governed_serving.fairness.metrics.sequences import e_benjamini_hochberg

__all__ = ["SMALLEST_GROUP", "judge"]

FEW = f"fewer than {SMALLEST_GROUP} rows in a group"


def _limits(bounds: MetricBounds) -> tuple[float, float]:
    low, high = bounds.threshold_lower, bounds.threshold_upper
    return -inf if low is None else low, inf if high is None else high


def _metric_verdict(name: str, one: Finding, bounds: MetricBounds, interval: Interval) -> tuple[VerdictWord, str]:
    low, high = _limits(bounds)
    if one.support < SMALLEST_GROUP:
        return "Unknown", "no labels yet" if one.support == 0 and name in NEED_LABELS else FEW
    if one.value != one.value:
        return "Unknown", "a rate is not defined"
    if interval.upper < low or interval.lower > high:
        return "Fail", "the whole interval lies outside the bounds"
    if low <= one.value <= high:
        return "Pass", ""
    return "Unknown", "the estimate lies outside the bounds, but its interval still reaches them"


def judge(bias: Bias, cells: Cells) -> BiasVerdict:
    """Verdict over ``cells``.

    The overall level is shared among all comparisons (Bonferroni), so that one overall false alarm has probability ≤ 1 − level.
    ``discovered`` of a metric is the weaker claim that holds for most: false discovery rate by e-BH.
    """
    tables = {a.name: cells.by(a.name) for a in bias.protected_attributes}
    samples = cells.rows
    metrics = _metrics(bias, cells, samples >= bias.min_samples)
    strata = [
        row
        for a in bias.protected_attributes
        for s in bias.strata
        if s != a.name
        for row in simpson(cells, a.name, s, a.privileged, SMALLEST_GROUP)
    ]
    return BiasVerdict(
        verdict=_overall([m.verdict for m in metrics]) if samples >= bias.min_samples else "Unknown",
        summary=_summary(metrics, samples, bias.min_samples),
        samples=samples,
        labelled=cells.labelled,
        favorable_outcome=RecordedOutcome.model_validate(bias.favorable_outcome.plain()),
        confidence_level=bias.confidence_level,
        metrics=metrics,
        missing={name: missing for name, table in tables.items() if (missing := _missing(table))},
        groups={name: _group_rates(table) for name, table in tables.items()},
        strata=[_stratified(row) for row in strata],
        attributes={name: _attribute(table) for name, table in tables.items()},
        intersections=_intersections(bias, cells),
    )


def _metrics(bias: Bias, cells: Cells, enough: bool) -> list[MetricFinding]:
    compared = _compared(bias, cells)
    level = 1 - (1 - bias.confidence_level) / max(len(compared), 1)
    judged = [one for *_, one in compared]
    evidence = bound_evidence(judged, [_limits(bounds) for _, bounds, _ in compared])
    found = sequences(judged, [level] * len(judged))
    discoveries = e_benjamini_hochberg(evidence, bias.confidence_level)
    return [
        _metric(attribute, one, bounds, found[place], bias.confidence_level, enough).model_copy(
            update={"log_evidence": _number(evidence[place]), "discovered": enough and place in discoveries}
        )
        for place, (attribute, bounds, one) in enumerate(compared)
    ]


def _compared(bias: Bias, cells: Cells) -> list[tuple[str, MetricBounds, Finding]]:
    """(attribute, bounds, finding) of everything that is judged; small cells of intersections are left out."""
    subjects = [([a.name], a.privileged) for a in bias.protected_attributes]
    if bias.intersections and len(subjects) > 1:
        subjects.append(([a.name for a in bias.protected_attributes], []))
    return [
        (joint_name(axes), bounds, one)
        for axes, privileged in subjects
        for bounds in bias.metrics
        for one in findings(bounds.name, cells, axes, privileged, bias.strata)
        if len(axes) == 1 or one.support >= SMALLEST_GROUP
    ]


def _stratified(row: SimpsonFinding) -> StratifiedDifference:
    within = {name: _number(value) for name, value in row.strata.items()}
    return StratifiedDifference(**{**asdict(row), "adjusted": _number(row.adjusted), "strata": within})


def _attribute(table: GroupTable) -> AttributeFigures:
    """What is said of an attribute as a whole: fairlearn's spread, LL144's impact ratios, χ² of one look."""
    large = table.rows >= SMALLEST_GROUP
    shown = GroupTable([group for group, keep in zip(table.groups, large, strict=True) if keep], table.counts[large])
    test = chi_square(shown.counts.sum(2))
    return AttributeFigures(
        spread={name: _number(value) for name, value in spread(shown).items()},
        impact_ratios=impact_ratios(shown, LEAST_SHARE),
        excluded=_excluded(table),
        chi_square=ChiSquare(statistic=test.statistic, p_value=test.p_value),
    )


def _missing(table: GroupTable) -> int:
    """Rows whose attribute isn't known."""
    return int(table.rows[list(table.groups).index(MISSING)]) if MISSING in table.groups else 0


def _excluded(table: GroupTable) -> list[str]:
    """Categories that are too small a share of the rows for impact ratios; their counts aren't shown."""
    small = table.rows < LEAST_SHARE * table.rows.sum()
    return [group for group, out in zip(table.groups, small, strict=True) if out]


def _intersections(bias: Bias, cells: Cells) -> Intersections:
    """Groups of all protected attributes together, small cells left out."""
    if len(bias.protected_attributes) < 2:
        return Intersections()
    table = cells.by(*(a.name for a in bias.protected_attributes))
    ratios = impact_ratios(table, LEAST_SHARE)
    rows = [row.model_copy(update={"impact_ratio": ratios[row.group]}) for row in _group_rates(table)]
    return Intersections(groups=rows, suppressed=len(table.groups) - len(rows))


def _overall(verdicts: Sequence[VerdictWord]) -> VerdictWord:
    if "Fail" in verdicts:
        return "Fail"
    return "Unknown" if "Unknown" in verdicts or not verdicts else "Pass"


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _metric(
    attribute: str, one: Finding, bounds: MetricBounds, interval: Interval, fixed_level: float, enough: bool
) -> MetricFinding:
    verdict, why = _metric_verdict(bounds.name, one, bounds, interval) if enough else ("Unknown", "too few samples")
    shown = one.support >= SMALLEST_GROUP
    found = MetricFinding(
        name=bounds.name,
        attribute=attribute,
        group=one.group,
        reference=one.reference,
        value=_number(one.value) if shown else None,
        lower=_number(interval.lower) if shown else None,
        upper=_number(interval.upper) if shown else None,
        threshold_lower=bounds.threshold_lower,
        threshold_upper=bounds.threshold_upper,
        samples=one.samples,
        verdict=verdict,
        message=why,
    )
    fixed = one.fixed(fixed_level) if shown else None
    if fixed is None:
        return found
    return found.model_copy(update={"fixed_sample": Bounds(lower=_number(fixed.lower), upper=_number(fixed.upper))})


def _group_rates(table: GroupTable) -> list[GroupRate]:
    rows, favourable = table.rows.tolist(), table.counts[:, 1].sum(1).tolist()
    return [
        GroupRate(group=name, rows=n, favorable=k, rate=k / n)
        for name, n, k in zip(table.groups, rows, favourable, strict=True)
        if n >= SMALLEST_GROUP
    ]


def _summary(found: Sequence[MetricFinding], samples: int, least: int) -> str:
    if samples < least:
        return f"{samples} of {least} samples"
    if not found:
        return f"{samples} samples, and no two groups to compare"
    order = {"Fail": 0, "Unknown": 1, "Pass": 2}
    worst = min(found, key=lambda m: (order[m.verdict], -_excess(m)))
    against = f" against {worst.reference}" if worst.reference else ""
    about = f"{worst.name} of {worst.attribute}={worst.group}{against}"
    if worst.value is None:
        return f"{about}: {worst.message}"
    limits = ", ".join(
        f"{sign} {bound:g}"
        for sign, bound in (("≥", worst.threshold_lower), ("≤", worst.threshold_upper))
        if bound is not None
    )
    upper = "∞" if worst.upper is None else f"{worst.upper:.4f}"
    lower = "−∞" if worst.lower is None else f"{worst.lower:.4f}"
    return f"{about}: {worst.value:+.4f} [{lower}, {upper}], expected {limits}"


def _excess(metric: MetricFinding) -> float:
    value = metric.value if metric.value is not None else 0.0
    low, high = metric.threshold_lower, metric.threshold_upper
    return max(low - value if low is not None else -inf, value - high if high is not None else -inf)

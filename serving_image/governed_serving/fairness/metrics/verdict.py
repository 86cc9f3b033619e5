"""From counts to a verdict, against the manifest's bounds.

Three states, of each metric of each comparison and of all together. Fail: its confidence sequence lies outside the
bounds. Pass: it lies inside them or, with a margin, inside the bounds widened by it. Unknown: neither is shown yet; the
estimate, the interval and about how many more rows will decide are told. An interval narrower than the margin decides,
as it can't reach across both a bound and the widened one. A confidence sequence covers its value at all times together,
so that looking after every request makes neither a false Fail nor a false Pass likelier. What that comes to over all
looks, :mod:`.promise` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil, floor, inf, isfinite, log10

import numpy as np

from governed_api.governance import Bias, MetricBounds
from governed_api.verdict import (
    AttributeFigures,
    BiasVerdict,
    Bounds,
    ChiSquare,
    GroupRate,
    Intersections,
    LabelCorrections,
    LabelledShare,
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
from governed_serving.fairness.metrics.calibration import calibration_curves
from governed_serving.fairness.metrics.corrections import Corrected, corrections_of, withheld
from governed_serving.fairness.metrics.labelled import label_shares, uneven, unseen_outcome, worst_case
from governed_serving.fairness.metrics.measures import (
    ALL,
    ENTROPIES,
    LEAST_SHARE,
    NEED_LABELS,
    MetricValue,
    bound_evidence,
    findings,
    sequences,
)
from governed_serving.fairness.metrics.metrics import impact_ratios, is_group, spread
from governed_serving.fairness.metrics.promise import alpha_of, promise_of
from governed_serving.fairness.metrics.roster import (
    SMALLEST_GROUP,
    Panel,
    Roster,
    enrolled,
    panel_of,
    pooled,
    subjects_of,
)
from governed_serving.fairness.metrics.sequences import e_benjamini_hochberg
from governed_serving.fairness.metrics.simpson import SimpsonFinding, simpson
from governed_serving.fairness.metrics.slices import slices_of
from governed_serving.fairness.metrics.stratified import MOST_STRATA

__all__ = ["SMALLEST_GROUP", "judge"]

FEW = f"fewer than {SMALLEST_GROUP} rows in a group"
WITHIN_MARGIN = "within the margin"


def _limits(bounds: MetricBounds) -> tuple[float, float]:
    low, high = bounds.threshold_lower, bounds.threshold_upper
    return -inf if low is None else low, inf if high is None else high


def _widened(bounds: MetricBounds) -> tuple[float, float]:
    """What the whole interval must lie in to pass."""
    low, high = _limits(bounds)
    margin = bounds.margin or 0.0
    return low - margin, high + margin


def _inside(interval: Interval, limits: tuple[float, float]) -> bool:
    return limits[0] <= interval.lower and interval.upper <= limits[1]


def _metric_verdict(
    name: str, finding: MetricValue, bounds: MetricBounds, interval: Interval
) -> tuple[VerdictWord, str]:
    low, high = _limits(bounds)
    if finding.support < SMALLEST_GROUP and finding.within is not None and finding.samples > 0:
        return "Unknown", f"fewer than {SMALLEST_GROUP} rows on a side, in strata that both sides have"
    if finding.support < SMALLEST_GROUP:
        return "Unknown", "no labels yet" if finding.support == 0 and name in NEED_LABELS else FEW
    if finding.value != finding.value:
        return "Unknown", "a rate is not defined"
    if not finding.judged:
        few = f"fewer than {LEAST_SHARE:.0%} of the rows" if is_group(finding.group) else "not people of one kind"
        return "Unknown", f"{few}: shown, not judged"
    if finding.within is not None and finding.question is None:
        return "Unknown", f"more than {MOST_STRATA:,} strata that both sides have: no interval, and so no judgement"
    if interval.upper < low or interval.lower > high:
        about = ", as far as is known for many rows: the interval is asymptotic" if finding.asymptotic else ""
        return "Fail", f"the whole interval lies outside the bounds{about}"
    if _inside(interval, (low, high)):
        return "Pass", ""
    if _inside(interval, _widened(bounds)):
        return "Pass", f"{WITHIN_MARGIN} of {bounds.margin:g}: not shown to lie within the bounds alone"
    inside = low <= finding.value <= high
    return (
        "Unknown",
        f"the estimate lies {'inside' if inside else 'outside'} the bounds, its interval reaches across them",
    )


def _rows_to_decide(finding: MetricValue, bounds: MetricBounds, interval: Interval, rows: int) -> int | None:
    """About how many more rows, of ``rows`` so far: an interval is as wide as the root of 1/rows. None: hardly ever, or
    it can't be told."""
    (low, high), (least, most) = _limits(bounds), _widened(bounds)
    below, above = finding.value - interval.lower, interval.upper - finding.value
    sides = ((below, finding.value - least), (above, most - finding.value))
    ratio = max(wide / room if room > 0 else inf for wide, room in sides)
    if finding.value > high:
        ratio = min(ratio, below / (finding.value - high))
    elif finding.value < low:
        ratio = min(ratio, above / (low - finding.value))
    more = (ratio * ratio - 1) * rows
    if not 0 < more < MOST_ROWS_TO_DECIDE:
        return None
    return _two_digits(more)


MOST_ROWS_TO_DECIDE = 1e9


def _what_decides(bias: Bias, more: int | None, rows: int) -> dict[str, int | None]:
    """More rows; or a larger window, where a sliding one is full before they have come."""
    room = bias.window.samples
    if more is None or bias.window.type == "whole" or rows + more <= room:
        return {"rows_to_decide": more}
    return {"rows_to_decide": None, "window_to_decide": _two_digits(max(rows + more, room + 1))}


def _two_digits(number: float) -> int:
    unit: int = 10 ** max(floor(log10(number)) - 1, 0)
    return ceil(number / unit) * unit


def judge(bias: Bias, cells: Cells, roster: Roster | None = None, corrected: Corrected | None = None) -> BiasVerdict:
    """Verdict over ``cells``. ``roster``: who is compared, as decided earlier; None: as if these counts were seen for
    the first time. ``corrected``: labels were, see :mod:`.corrections`.

    One false alarm (or a false Pass) overall, at any time (of a sliding window: as :mod:`.promise` says), has
    probability ≤ 1 − level: the level is shared among the metrics of the manifest, and of each metric among its
    comparisons by a series that doesn't depend on how many there are. ``discovered`` of a metric is the weaker claim
    that holds for most: false discovery rate by e-BH.
    """
    roster = enrolled(roster or Roster(), bias, cells)
    cells, gone = pooled(cells, bias, roster)
    panels = _panels(bias, cells, roster)
    tables = {a.name: cells.by(a.name) for a in bias.protected_attributes}
    samples, least = cells.rows, bias.least_samples
    metrics = _metrics(bias, cells, panels, samples >= least)
    corrections, before = LabelCorrections(), None
    if corrected is not None:
        before, _ = pooled(corrected.first, bias, roster)
        told = withheld(metrics, _metrics(bias, before, _panels(bias, before, roster), samples >= least))
        corrections, metrics = corrections_of(corrected, metrics, told), told
    awaited = any(m.name in NEED_LABELS for m in bias.metrics)
    labels = {name: label_shares(table) for name, table in tables.items()} if awaited else {}
    verdict = BiasVerdict(
        verdict=_overall([m.verdict for m in metrics if m.judged]) if samples >= least else "Unknown",
        summary=_summary(metrics, samples, least)
        + _unlabelled(metrics, cells, labels)
        + _corrected(corrections)
        + _cut(bias, cells)
        + _promised(bias),
        samples=samples,
        labelled=cells.labelled,
        favorable_outcome=RecordedOutcome.model_validate(bias.favorable_outcome.plain()),
        confidence_level=bias.confidence_level,
        metrics=metrics,
        missing={name: missing for name, table in tables.items() if (missing := _missing(table))},
        references={name: " + ".join(panel.base) for name, panel in panels.items() if panel.base},
        groups={name: _group_rates(table) for name, table in tables.items()},
        strata=[_stratified(row) for row in _within_strata(bias, cells, panels)],
        attributes={name: _attribute(table) for name, table in tables.items()},
        intersections=_intersections(bias, cells),
    )
    more: dict[str, object] = {"pooled": gone, "labels": labels, "outside_range": _outside(cells)}
    more["calibration"] = calibration_curves(bias, cells, panels, alpha_of(bias))
    more["slices"] = slices_of(bias, cells, roster, alpha_of(bias), before) if samples >= least else None
    more["corrections"] = corrections if corrections.corrected else None
    return verdict.changed(**{name: value for name, value in more.items() if value})


def _panels(bias: Bias, cells: Cells, roster: Roster) -> dict[str, Panel]:
    return {joint_name(axes): panel_of(cells, axes, privileged, roster) for axes, privileged in subjects_of(bias)}


def _metrics(bias: Bias, cells: Cells, panels: Mapping[str, Panel], enough: bool) -> list[MetricFinding]:
    compared = _compared(bias, cells, panels)
    # Fixed by the manifest: figures over all rows once, all others once per subject.
    families = sum(1 if m.name in ENTROPIES else len(panels) for m in bias.metrics)
    looked_at = [finding for *_, finding in compared]
    limits = [_limits(bounds) for _, bounds, _ in compared]
    alpha = alpha_of(bias)
    intervals = sequences(looked_at, [1 - alpha / families * finding.share for finding in looked_at])
    evidence = bound_evidence(looked_at, limits)
    judged = [place for place, finding in enumerate(looked_at) if finding.judged and finding.support >= SMALLEST_GROUP]
    rejected = e_benjamini_hochberg([evidence[place] for place in judged], 1 - alpha)
    discovered = {judged[i] for i in rejected}
    metrics = []
    for place, (attribute, bounds, finding) in enumerate(compared):
        metric = _metric(attribute, finding, bounds, intervals[place], bias.confidence_level, enough)
        told: dict[str, object] = {
            "log_evidence": _number(evidence[place]),
            "discovered": enough and place in discovered,
        }
        if metric.verdict == "Unknown" and metric.value is not None and finding.judged and enough:
            told |= _what_decides(bias, _rows_to_decide(finding, bounds, intervals[place], cells.rows), cells.rows)
        if attribute in panels:
            told |= _of_labels(metric, finding, panels[attribute])
        metrics.append(metric.model_copy(update=told))
    return metrics


def _of_labels(metric: MetricFinding, finding: MetricValue, panel: Panel) -> dict[str, object]:
    """What rows without labels leave open; a rate of which one outcome has no label at all isn't judged."""
    told: dict[str, object] = {}
    if (
        metric.value is not None
        and (worst := worst_case(metric.name, panel, finding.group, finding.within)) is not None
    ):
        told["worst_case"] = Bounds(lower=_number(worst.lower), upper=_number(worst.upper))
    if metric.verdict in ("Pass", "Fail") and (
        unseen := unseen_outcome(metric.name, panel, finding.group, finding.within)
    ):
        told |= {"verdict": "Unknown", "message": f"{unseen}: the rate can't be known"}
        told |= {"within_margin": False} if metric.within_margin else {}
    return told


def _unlabelled(metrics: Sequence[MetricFinding], cells: Cells, labels: Mapping[str, Sequence[LabelledShare]]) -> str:
    """A warning where labels are missing and could move what is judged over a bound; empty otherwise."""
    width, worst, ends = max(
        ((high - low, m, f"{low:+.4f} to {high:+.4f}") for m in metrics if m.judged for low, high in _crossing(m)),
        key=lambda crossing: crossing[0],
        default=(0.0, None, ""),
    )
    if worst is None or not width:
        return ""
    text = f"; {cells.labelled:,} of {cells.rows:,} samples have a label, the others are taken as missing at random: "
    text += f"they could make {worst.name} of {worst.attribute}={worst.group} anything from {ends}"
    for attribute, shares in labels.items():
        if unevenness := uneven(shares):
            told = " and ".join(
                f"{s.labelled:,} of {s.rows:,} {s.outcome} of {attribute}={s.group}" for s in unevenness
            )
            text += f"; labels come unevenly: {told}"
            break
    return text


def _corrected(told: LabelCorrections) -> str:
    if not told.corrected:
        return ""
    text = f"; labels corrected: {told.corrected:,} of {told.labelled:,}"
    many = "s are" if told.withheld > 1 else " is"
    return text + (
        f", {told.withheld} metric{many} Unknown as the first labels show otherwise" if told.withheld else ""
    )


def _crossing(metric: MetricFinding) -> list[tuple[float, float]]:
    """The worst case, where labels that are missing could move the value over a bound; otherwise nothing."""
    worst = metric.worst_case
    if worst is None or worst.lower is None or worst.upper is None:
        return []
    low = -inf if metric.threshold_lower is None else metric.threshold_lower
    high = inf if metric.threshold_upper is None else metric.threshold_upper
    inside = low <= worst.lower and worst.upper <= high
    outside = worst.upper < low or worst.lower > high
    return [] if inside or outside else [(worst.lower, worst.upper)]


def _compared(bias: Bias, cells: Cells, panels: Mapping[str, Panel]) -> list[tuple[str, MetricBounds, MetricValue]]:
    """(attribute, bounds, finding) of everything that is looked at; of intersections only what is judged."""
    probabilities = bias.favorable_outcome.threshold is None
    of_rates = [
        (subject, bounds, finding)
        for subject, panel in panels.items()
        for bounds in bias.metrics
        if bounds.name not in ENTROPIES
        for finding in findings(
            bounds.name, cells, panel.axes, panel.base, bias.strata, panel, probabilities=probabilities
        )
        if len(panel.axes) == 1 or (finding.judged and finding.support >= SMALLEST_GROUP)
    ]
    return of_rates + [
        (ALL, bounds, finding)
        for bounds in bias.metrics
        if bounds.name in ENTROPIES
        for finding in findings(bounds.name, cells, cells.axes, ())
    ]


def _within_strata(bias: Bias, cells: Cells, panels: Mapping[str, Panel]) -> list[SimpsonFinding]:
    """Of every attribute and stratum; all intervals together miss with the chance that a verdict may, beside it."""
    pairs = [(a.name, s) for a in bias.protected_attributes for s in bias.strata if s != a.name]
    reversals = []
    for attribute, by in pairs:
        panel = panels[attribute]
        reference = panel.base[0] if panel.base else None
        alpha = alpha_of(bias) / len(pairs)
        levels = {group: 1 - alpha * panel.share(group, reference) for group in panel.table.groups}
        reversals += simpson(cells, attribute, by, panel.base, SMALLEST_GROUP, levels)
    return reversals


def _stratified(row: SimpsonFinding) -> StratifiedDifference:
    within = {name: _number(value) for name, value in row.strata.items()}
    undefined = {"adjusted": _number(row.adjusted), "change": _number(row.change)}
    return StratifiedDifference(**{**asdict(row), **undefined, "strata": within})


def _attribute(table: GroupTable) -> AttributeFigures:
    """What is said of an attribute as a whole: fairlearn's spread, LL144's impact ratios, χ² of one look."""
    large = (table.rows >= SMALLEST_GROUP) & np.array([is_group(group) for group in table.groups], bool)
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
    """Categories that are too small a share of the rows for impact ratios."""
    small = table.rows < LEAST_SHARE * table.rows.sum()
    return [group for group, out in zip(table.groups, small, strict=True) if out and is_group(group)]


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
    attribute: str, finding: MetricValue, bounds: MetricBounds, interval: Interval, fixed_level: float, enough: bool
) -> MetricFinding:
    verdict, why = _metric_verdict(bounds.name, finding, bounds, interval) if enough else ("Unknown", "too few samples")
    shown = finding.support >= SMALLEST_GROUP
    metric = MetricFinding(
        name=bounds.name,
        attribute=attribute,
        group=finding.group,
        reference=finding.reference,
        value=_number(finding.value) if shown else None,
        lower=_number(interval.lower) if shown else None,
        upper=_number(interval.upper) if shown else None,
        threshold_lower=bounds.threshold_lower,
        threshold_upper=bounds.threshold_upper,
        samples=finding.samples,
        verdict=verdict,
        message=why,
    )
    more: dict[str, object] = {} if finding.judged and finding.support >= SMALLEST_GROUP else {"judged": finding.judged}
    fixed = finding.fixed(fixed_level) if shown else None
    if fixed is not None:
        more["fixed_sample"] = Bounds(lower=_number(fixed.lower), upper=_number(fixed.upper))
    if bounds.margin is not None:
        more["margin"] = bounds.margin
        if verdict == "Pass" and not _inside(interval, _limits(bounds)):
            more["within_margin"] = True
    if finding.excluded:
        more["excluded"] = list(finding.excluded)
    if finding.asymptotic:
        more["asymptotic"] = True
    if finding.resolution is not None and shown and finding.resolution.upper > finding.resolution.lower:
        more["resolution"] = Bounds(lower=finding.resolution.lower, upper=finding.resolution.upper)
    return metric.model_copy(update=more)


def _group_rates(table: GroupTable) -> list[GroupRate]:
    rows, favourable = table.rows.tolist(), table.counts[:, 1].sum(1).tolist()
    return [
        GroupRate(group=name, rows=n, favorable=k, rate=k / n)
        for name, n, k in zip(table.groups, rows, favourable, strict=True)
        if n >= SMALLEST_GROUP
    ]


def _summary(judged: Sequence[MetricFinding], samples: int, least: int) -> str:
    if samples < least:
        return f"{samples} of {least} samples"
    if not judged:
        return f"{samples} samples, and no two groups to compare"
    order = {"Fail": 0, "Unknown": 1, "Pass": 2}
    worst = min(judged, key=lambda m: (not m.judged, order[m.verdict], -_excess(m)))
    against = f" against {worst.reference}" if worst.reference else ""
    about = f"{worst.name} of {worst.attribute}={worst.group}{against}"
    small = sorted({f"{m.attribute}={m.group}" for m in judged if not m.judged and is_group(m.group)})
    left = f"; too few rows to judge {', '.join(small[:3])}{' …' if len(small) > 3 else ''}" if small else ""
    if worst.value is None:
        return f"{about}: {worst.message}{left}"
    limits = ", ".join(
        f"{sign} {bound:g}"
        for sign, bound in (("≥", worst.threshold_lower), ("≤", worst.threshold_upper))
        if bound is not None
    )
    upper = "∞" if worst.upper is None else f"{worst.upper:.4f}"
    lower = "−∞" if worst.lower is None else f"{worst.lower:.4f}"
    return f"{about}: {worst.value:+.4f} [{lower}, {upper}], expected {limits}{_waits(worst)}{left}"


def _waits(metric: MetricFinding) -> str:
    if metric.within_margin:
        return f"; {WITHIN_MARGIN} of {metric.margin:g}"
    if metric.verdict != "Unknown" or not metric.judged:
        return ""
    if metric.window_to_decide is not None:
        return f"; shown neither inside nor outside, a window of about {metric.window_to_decide:,} samples will decide"
    if metric.rows_to_decide is None:
        return "; shown neither inside nor outside"
    return f"; shown neither inside nor outside, about {metric.rows_to_decide:,} more rows will decide"


def _outside(cells: Cells) -> dict[str, int]:
    """Scores and labels that lay outside the declared range; those of which there are any."""
    if cells.scores is None:
        return {}
    outside = {"scores": cells.scores.outside, "labels": cells.scores.outside_truths}
    return {name: rows for name, rows in outside.items() if rows > 0}


def _cut(bias: Bias, cells: Cells) -> str:
    declared, outside = bias.favorable_outcome.range, _outside(cells)
    if declared is None or not outside:
        return ""
    told = " and ".join(f"{rows:,} {name}" for name, rows in outside.items())
    return f"; {told} outside the declared range [{declared.min:g}, {declared.max:g}] count as its ends"


def _promised(bias: Bias) -> str:
    """Of a sliding window: what is promised over all looks. A whole one promises it for ever."""
    promise = promise_of(bias)
    if promise.within_rows is None:
        return ""
    return f"; at most a {promise.chance:.2g} chance of a false verdict in any {promise.within_rows:,} predictions"


def _excess(metric: MetricFinding) -> float:
    value = metric.value if metric.value is not None else 0.0
    low, high = metric.threshold_lower, metric.threshold_upper
    return max(low - value if low is not None else -inf, value - high if high is not None else -inf)

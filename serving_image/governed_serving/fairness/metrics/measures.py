"""Every metric that a manifest can name, as findings: a value with its anytime-valid interval for each comparison.

Names say the convention. Signed differences and ratios: unprivileged against privileged (AIF360). ``…MaxMin`` and
``…MinMax``: over all groups (fairlearn). ``impactRatio``: each category against the most selected one (NYC Local Law
144). ``adjusted…``: within strata (Mantel & Haenszel). ``score…``, ``…Error…`` and ``calibration…`` are about scores.
``theilIndex`` and ``generalizedEntropyIndex`` are about all rows together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from math import e, inf, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import FAVORABLE, UNFAVORABLE, Cells, GroupTable
from governed_serving.fairness.counts.scores import GroupScores, Moments
from governed_serving.fairness.inference.intervals import Interval, binomial_sequence, rate_difference, rate_ratio
from governed_serving.fairness.inference.shares import function_evidence, function_sequence
from governed_serving.fairness.metrics.metrics import (
    LABEL_METRICS,
    LEAST_SHARE,
    METRICS,
    RATES,
    compare,
    entropy_index,
    gap_of,
    is_group,
    ratio_of,
    reference_groups,
    right,
)
from governed_serving.fairness.metrics.roster import SMALLEST_GROUP, Panel, panel_of
from governed_serving.fairness.metrics.score_sequences import (
    PROBABILITIES,
    Span,
    calibration_answers,
    difference_answers,
    span_of,
)
from governed_serving.fairness.metrics.sequences import (
    DIFFERENCES,
    Form,
    Question,
    RateContrast,
    evidences,
    intervals,
    metric_question,
    mixture_evidence,
    mixture_radius,
)
from governed_serving.fairness.metrics.stratified import (
    ADJUSTED,
    ADJUSTED_LABEL_METRICS,
    Within,
    adjusted,
    within_strata,
)

__all__ = [
    "ALL",
    "ENTROPIES",
    "LEAST_SHARE",
    "NEED_LABELS",
    "SCORE_METRICS",
    "SMALLEST_GROUP",
    "SPREADS",
    "MetricValue",
    "bound_evidence",
    "findings",
    "largest_gap",
    "least_ratio",
    "sequences",
]

Array = NDArray[np.integer | np.floating]
"""Counts, or figures made of them."""

MOST_PAIRED = 8
"""Groups of which every pair is compared for a figure over all; with more, each rate has an interval of its own, which
is wider."""
ALL = "(all)"


@dataclass(frozen=True)
class MetricValue:
    """A value with what is asked about it. ``question``: of rates, answered exactly; None: ``own_sequence`` and
    ``own_evidence`` answer.

    ``fixed(level)``: interval for one look at a closed window, where there is one. ``support``: rows on the smallest
    side.
    """

    group: str
    reference: str
    value: float
    support: int
    samples: int
    question: Question | None = None
    own_sequence: Callable[[float], Interval] = lambda _: Interval(-inf, inf)
    own_evidence: Callable[[float, float], float] = lambda *_: -inf
    share: float = 1.0
    """Part of the metric's level that is this comparison's."""
    judged: bool = True
    """False: shown only, the group is too small a share of the rows."""
    asymptotic: bool = False
    """The interval holds for many rows: of scores whose range isn't known beforehand. All others hold for any
    number."""
    excluded: tuple[str, ...] = ()
    """Groups that a figure over all leaves out."""
    resolution: Interval | None = None
    """Where the value of the very rows lies, when counts of nearby floats don't say it exactly."""
    fixed: Callable[[float], Interval | None] = lambda _: None
    within: Within | None = None
    """Counts within strata, where it is adjusted for them."""

    def sequence(self, level: float) -> Interval:
        """Interval valid at all times."""
        return sequences([self], [level])[0]

    def evidence(self, lower: float, upper: float) -> float:
        """Log e-value against the bounds."""
        return bound_evidence([self], [(lower, upper)])[0]


def sequences(compared: Sequence[MetricValue], levels: Sequence[float]) -> list[Interval]:
    """The interval of each at its level; those of rates are solved together."""
    questions = [
        (finding.question, 1 - level) for finding, level in zip(compared, levels, strict=True) if finding.question
    ]
    exact = iter(intervals([q for q, _ in questions], [alpha for _, alpha in questions]))
    return [
        next(exact) if finding.question else finding.own_sequence(level)
        for finding, level in zip(compared, levels, strict=True)
    ]


def bound_evidence(compared: Sequence[MetricValue], bounds: Sequence[tuple[float, float]]) -> list[float]:
    """The log e-value of each against its bounds; those of rates are solved together."""
    questions = [
        (finding.question, limits) for finding, limits in zip(compared, bounds, strict=True) if finding.question
    ]
    exact = iter(evidences([q for q, _ in questions], [limits for _, limits in questions]))
    return [
        next(exact) if finding.question else finding.own_evidence(*limits)
        for finding, limits in zip(compared, bounds, strict=True)
    ]


@dataclass(frozen=True)
class _Estimate:
    """A value with its sampling variance, in units of ``scale``."""

    value: float
    variance: float
    scale: float = 1.0

    def sequence(self, level: float) -> Interval:
        if not (np.isfinite(self.value) and self.variance > 0):
            return Interval(-inf, inf)
        radius = self.scale * mixture_radius(self.variance / self.scale**2, 1 - level, DIFFERENCES)
        return Interval(self.value - radius, self.value + radius)

    def within(self, least: float, most: float) -> Callable[[float], Interval]:
        """The sequence, cut to the values that are possible."""

        def sequence(level: float) -> Interval:
            interval = self.sequence(level)
            return Interval(max(least, interval.lower), min(most, interval.upper))

        return sequence

    def evidence(self, lower: float, upper: float) -> float:
        if not (np.isfinite(self.value) and self.variance > 0):
            return -inf
        distance = max(lower - self.value, self.value - upper, 0.0) / self.scale
        return float(mixture_evidence(distance, self.variance / self.scale**2, DIFFERENCES))


def findings(
    name: str,
    cells: Cells,
    axes: Sequence[str],
    privileged: Sequence[str],
    strata: Sequence[str] = (),
    panel: Panel | None = None,
    *,
    probabilities: bool = False,
) -> list[MetricValue]:
    """Metric ``name`` over the groups of ``axes`` (several: their intersections), as ``panel`` has them compared.

    ``probabilities``: scores are probabilities, known to lie in [0, 1] before any data.
    """
    panel = panel or panel_of(cells, axes, privileged)
    if name in METRICS:
        return _pairs(name, panel.table, panel.base, panel)
    if name in SCORE_METRICS:
        return _scores(name, cells, panel, probabilities)
    if name == "impactRatio":
        return _impact(panel)
    if name in ADJUSTED:
        return _adjusted(name, cells, panel, [s for s in strata if s not in axes])
    if name in ENTROPIES:
        return _entropy(ENTROPIES[name], cells)
    return _spread(name, panel)


# ---- two groups ----


def _pairs(name: str, table: GroupTable, base: Sequence[str], panel: Panel) -> list[MetricValue]:
    judged, pairs = set(panel.judged.groups), []
    for comparison in compare(table, base, [name]):
        u, p = comparison.counts, comparison.against
        pairs.append(
            MetricValue(
                comparison.group,
                comparison.reference,
                comparison.metrics[name],
                METRICS[name].support(u, p),
                int(u.sum() + p.sum()),
                metric_question(name, u, p),
                share=panel.share(comparison.group, base[0] if base else None),
                judged=comparison.group in judged,
                fixed=partial(_fixed, name, u, p),
            )
        )
    return pairs


def _fixed(name: str, u: Array, p: Array, level: float) -> Interval | None:
    metric = METRICS[name]
    if len(metric.rates) != 1:
        return None
    (k1, n1), (k0, n0) = (tuple(int(x) for x in metric.rates[0](side)) for side in (u, p))
    return (rate_ratio if name == "disparateImpactRatio" else rate_difference)(k1, n1, k0, n0, level)


def _impact(panel: Panel) -> list[MetricValue]:
    """Against the most selected category, of those with at least ``LEAST_SHARE`` of the rows."""
    table = panel.table
    kept = (table.rows >= max(LEAST_SHARE * panel.total, 1)) & np.array([is_group(g) for g in table.groups], bool)
    large = GroupTable([g for g, keep in zip(table.groups, kept, strict=True) if keep], table.counts[kept])
    base = reference_groups(large)
    return _pairs("disparateImpactRatio", large, base, replace(panel, base=base, named=False))


def _adjusted(name: str, cells: Cells, panel: Panel, strata: Sequence[str]) -> list[MetricValue]:
    """Within the joint values of ``strata``; without strata there is nothing to adjust for."""
    if not strata or not panel.base:
        return []
    judged, reference = set(panel.judged.groups), " + ".join(panel.base)
    groups = [group for group in panel.table.groups if group not in panel.base]
    return [
        MetricValue(
            group,
            reference,
            *adjusted(name, within),
            share=panel.share(group, panel.base[0]),
            judged=group in judged,
            within=within,
        )
        for group, within in within_strata(cells, panel.axes, strata, groups, panel.base).items()
    ]


# ---- all groups ----

SPREADS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "demographicParityDifferenceMaxMin": (("selectionRate",), False),
    "demographicParityRatioMinMax": (("selectionRate",), True),
    "equalOpportunityDifferenceMaxMin": (("truePositiveRate",), False),
    "equalizedOddsDifferenceMaxMin": (("truePositiveRate", "falsePositiveRate"), False),
    "equalizedOddsRatioMinMax": (("truePositiveRate", "falsePositiveRate"), True),
    "predictiveParityDifferenceMaxMin": (("predictiveValue",), False),
    "accuracyDifferenceMaxMin": (("accuracy",), False),
}
"""Name → the rates that it is about, and whether it is a ratio."""


def _spread(name: str, panel: Panel) -> list[MetricValue]:
    """Of the groups in which a rate has support; the others are named, and where fewer than two are left nothing is
    defined."""
    table = panel.judged
    if len(table.groups) < 2:
        return []
    rates, ratio = SPREADS[name]
    values, support, excluded, parts, shares = [], 1 << 62, set(panel.small), [], []
    for rate in rates:
        k, n = RATES[rate](table.counts)
        large = np.flatnonzero(n >= SMALLEST_GROUP)
        excluded |= {group for i, group in enumerate(table.groups) if i not in large}
        values.append((ratio_of if ratio else gap_of)(np.divide(k[large], n[large])))
        support = min(support, int(np.sort(n)[-2]))
        some = [(table.groups[i], float(k[i]), float(n[i])) for i in large]
        parts += [
            RateContrast((k1, k0), (n1, n0), None if ratio else (1.0, -1.0))
            for (_, k1, n1), (_, k0, n0) in combinations(some, 2)
        ]
        shares += [panel.share(one, other) / len(rates) for (one, *_), (other, *_) in combinations(some, 2)]
    value = float(np.min(values) if ratio else np.max(values))
    what = "least / greatest" if ratio else "greatest − least"
    spread = MetricValue(ALL, what, value, support, int(table.counts.sum()), excluded=tuple(sorted(excluded)))
    if value != value or support < SMALLEST_GROUP:
        return [spread]
    if len(table.groups) > MOST_PAIRED:
        return [replace(spread, own_sequence=partial(_spread_sequence, panel, rates, ratio))]
    form: Form = "leastRatio" if ratio else "largestDifference"
    return [replace(spread, question=Question(tuple(parts), form, tuple(shares)))]


def _spread_sequence(panel: Panel, rates: Sequence[str], ratio: bool, level: float) -> Interval:
    """From exact sequences of all rates, each at its part of alpha: the spread lies between what their ends allow."""
    ends, table = [], panel.judged
    shares = [panel.share(group) / len(rates) for group in table.groups]
    for rate in rates:
        listed = zip(*(x.tolist() for x in RATES[rate](table.counts)), shares, strict=True)
        each = [binomial_sequence(k, n, 1 - (1 - level) * share) for k, n, share in listed if n >= SMALLEST_GROUP]
        ends.append((least_ratio if ratio else largest_gap)(each))
    worst = min if ratio else max
    return Interval(worst(low for low, _ in ends), worst(high for _, high in ends))


def largest_gap(ranges: Sequence[Interval]) -> Interval:
    """Least and greatest possible max − min of values of which each lies in its range; two or more."""
    widest = max(ranges[i].upper - ranges[j].lower for i, j in _furthest(ranges))
    least = max(r.lower for r in ranges) - min(r.upper for r in ranges)
    return Interval(max(least, 0.0), max(widest, 0.0))


def least_ratio(ranges: Sequence[Interval]) -> Interval:
    """Least and greatest possible min / max of values of which each lies in its range, none below 0; two or more."""
    least = min(_quotient(ranges[j].lower, ranges[i].upper) for i, j in _furthest(ranges))
    top = max(r.lower for r in ranges)
    return Interval(min(least, 1.0), min(1.0, min(r.upper for r in ranges) / top) if top > 0 else 1.0)


def _furthest(ranges: Sequence[Interval]) -> list[tuple[int, int]]:
    """Places of the highest upper end and the lowest lower one, of two values: none is held against itself."""
    low, next_low = sorted(range(len(ranges)), key=lambda i: ranges[i].lower)[:2]
    high, next_high = sorted(range(len(ranges)), key=lambda i: -ranges[i].upper)[:2]
    return [(high, low)] if high != low else [(high, next_low), (next_high, low)]


def _quotient(value: float, top: float) -> float:
    return value / top if top > 0 else 0.0


ENTROPIES = {"theilIndex": 1.0, "generalizedEntropyIndex": 2.0}


def _entropy(alpha: float, cells: Cells) -> list[MetricValue]:
    """A function of the shares of three benefits: of rows unduly refused, right, unduly favoured."""
    counts = np.array([*cells.counts.values()], np.float64).reshape(-1, 2, 3).sum(0)
    hits, n = right(counts)
    value = float(entropy_index(counts, alpha)) if n > 0 else nan
    if n < 1:
        return [MetricValue(ALL, "", value, 0, int(counts.sum()))]
    benefits = np.array([counts[UNFAVORABLE, FAVORABLE], hits, counts[FAVORABLE, UNFAVORABLE]])
    index = partial(_index_of_shares, alpha)
    sequence = lambda level: function_sequence(benefits, index, 1 - level)  # noqa: E731
    return [
        MetricValue(
            ALL, "", value, int(n), int(counts.sum()), None, sequence, partial(function_evidence, benefits, index)
        )
    ]


def _index_of_shares(alpha: float, shares: Array) -> NDArray[np.float64]:
    """:func:`entropy_index` of shares (points, 3); without any benefit it is unbounded."""
    counts = np.zeros((len(shares), 2, 3))
    counts[:, UNFAVORABLE, FAVORABLE], counts[:, FAVORABLE, FAVORABLE], counts[:, FAVORABLE, UNFAVORABLE] = shares.T
    with np.errstate(all="ignore"):
        index = entropy_index(counts, alpha)
    terms: NDArray[np.float64] = np.where(np.isnan(index), inf if alpha > 1 else 0.0, index)
    return terms


# ---- scores ----


def _means(pick: Callable[[GroupScores], Moments]) -> Callable[[GroupScores, GroupScores], _Estimate]:
    def difference(u: GroupScores, p: GroupScores) -> _Estimate:
        a, b = pick(u), pick(p)
        if min(a.n, b.n) < 2:
            return _Estimate(nan, nan)
        scale = sqrt(_pooled(a, b)) or 1.0
        return _Estimate(a.mean - b.mean, a.variance / a.n + b.variance / b.n, scale)

    return difference


def _pooled(a: Moments, b: Moments) -> float:
    return float(((a.n - 1) * a.variance + (b.n - 1) * b.variance) / (a.n + b.n - 2))


def _standardized(u: GroupScores, p: GroupScores) -> _Estimate:
    """Cohen's d with the pooled deviation; variance after Hedges & Olkin 1985."""
    a, b = u.score, p.score
    if min(a.n, b.n) < 2 or _pooled(a, b) <= 0:
        return _Estimate(nan, nan)
    d = (a.mean - b.mean) / sqrt(_pooled(a, b))
    return _Estimate(d, 1 / a.n + 1 / b.n + d * d / (2 * (a.n + b.n)))


def _root_mean_square(u: GroupScores, p: GroupScores) -> _Estimate:
    """Difference of RMSE; variance by the delta method, var(e²) / (4 n mean(e²))."""
    if min(u.square.n, p.square.n) < 2 or min(u.square.mean, p.square.mean) <= 0:
        return _Estimate(nan, nan)
    a, b = sqrt(u.square.mean), sqrt(p.square.mean)
    variance = sum(g.square.variance / (4 * g.square.n * g.square.mean) for g in (u, p))
    return _Estimate(a - b, variance, sqrt(_pooled(u.error, p.error)) or 1.0)


def _calibration_variance(g: GroupScores) -> float:
    """Each row adds ±(score − label), the sign that of its bin."""
    return max(g.error.mean_square - g.calibration_error**2, 1e-12) / g.error.n if g.error.n else nan


def _calibration(u: GroupScores, p: GroupScores) -> _Estimate:
    variance = _calibration_variance(u) + _calibration_variance(p)
    return _Estimate(u.calibration_error - p.calibration_error, variance)


def _distance(u: GroupScores, p: GroupScores) -> Interval:
    """Kolmogorov and Smirnov's: largest gap between the distribution functions. Its least and greatest possible value.

    Exact for few scores. Many are counted by floats of 8 bits of mantissa: the gaps at the borders of these counts are
    exact; between two borders it can't grow by more than the rows counted there.
    """
    if u.coarse or p.coarse:
        u, p = replace(u, near=dict(u.near)), replace(p, near=dict(p.near))
        u.coarsen()
        p.coarsen()
    codes = sorted({*u.near, *p.near})
    a = np.array([u.near.get(c, 0) for c in codes], np.float64)
    b = np.array([p.near.get(c, 0) for c in codes], np.float64)
    if not len(codes) or not a.sum() or not b.sum():
        return Interval(nan, nan)
    a, b = a / a.sum(), b / b.sum()
    after = a.cumsum() - b.cumsum()
    if not u.coarse:
        return Interval(float(np.abs(after).max()), float(np.abs(after).max()))
    before = after - a + b
    within = np.maximum(np.abs(before + a), np.abs(before - b))
    return Interval(float(np.abs(after).max()), float(np.minimum(np.maximum(within, np.abs(after)).max(), 1.0)))


def _uniform_radius(n: int, alpha: float) -> float:
    """Time-uniform Dvoretzky–Kiefer–Wolfowitz bound (Howard & Ramdas, Bernoulli 2022, Corollary 2)."""
    return 0.85 * sqrt((log(log(e * n)) + 0.8 * log(1612 / alpha)) / n) if n else inf


SCORE_METRICS: Mapping[str, Callable[[GroupScores, GroupScores], _Estimate] | None] = {
    "scoreMeanDifference": _means(lambda g: g.score),
    "scoreStandardizedMeanDifference": _standardized,
    "scoreDistributionDistance": None,
    "meanErrorDifference": _means(lambda g: g.error),
    "meanAbsoluteErrorDifference": _means(lambda g: g.absolute),
    "rootMeanSquaredErrorDifference": _root_mean_square,
    "calibrationDifference": _calibration,
    "calibrationError": None,
}
"""Name → estimate for (unprivileged, privileged)."""


NEED_LABELS = LABEL_METRICS | {
    *ADJUSTED_LABEL_METRICS,
    "equalOpportunityDifferenceMaxMin",
    "equalizedOddsDifferenceMaxMin",
    "equalizedOddsRatioMinMax",
    "predictiveParityDifferenceMaxMin",
    "accuracyDifferenceMaxMin",
    *ENTROPIES,
    *(name for name in SCORE_METRICS if not name.startswith("score")),
}
"""Metrics that wait for labels."""


def _scores(name: str, cells: Cells, panel: Panel, probabilities: bool) -> list[MetricValue]:
    base, subject, judged = panel.base, panel.axes, set(panel.judged.groups)
    if cells.scores is None or subject not in cells.scores.subjects or not base:
        return []
    if name == "calibrationError":
        return [
            replace(
                _own_calibration(g, cells.scores.of(subject, [g]), probabilities),
                share=panel.share(g),
                judged=g in judged,
            )
            for g in panel.table.groups
        ]
    pooled = cells.scores.of(subject, base)
    limits = cells.scores.limits

    def span(own: GroupScores) -> Span | None:
        if limits is not None:
            return span_of(limits)
        return PROBABILITIES if probabilities and own.within(0.0, 1.0) and pooled.within(0.0, 1.0) else None

    scores = {group: cells.scores.of(subject, [group]) for group in panel.table.groups if group not in base}
    return [
        replace(
            _score_finding(name, group, " + ".join(base), own, pooled, span(own)),
            share=panel.share(group, base[0]),
            judged=group in judged,
        )
        for group, own in scores.items()
    ]


def _score_finding(
    name: str, group: str, reference: str, own: GroupScores, pooled: GroupScores, span: Span | None
) -> MetricValue:
    estimator = SCORE_METRICS[name]
    n1, n0 = (own.score.n, pooled.score.n) if name.startswith("score") else (own.error.n, pooled.error.n)
    if estimator is None:
        distance = _distance(own, pooled)
        sequence = _distance_sequence(distance, n1, n0)
        return MetricValue(group, reference, distance.lower, min(n1, n0), n1 + n0, None, sequence, resolution=distance)
    estimate = estimator(own, pooled)
    if span is not None:
        exact = difference_answers(name, own, pooled, span)
        return MetricValue(group, reference, estimate.value, min(n1, n0), n1 + n0, None, *exact)
    own_answers = (estimate.sequence, estimate.evidence)
    return MetricValue(group, reference, estimate.value, min(n1, n0), n1 + n0, None, *own_answers, asymptotic=True)


def _distance_sequence(value: Interval, n1: int, n0: int) -> Callable[[float], Interval]:
    def sequence(level: float) -> Interval:
        radius = _uniform_radius(n1, (1 - level) / 2) + _uniform_radius(n0, (1 - level) / 2)
        return Interval(max(0.0, value.lower - radius), min(1.0, value.upper + radius))

    return sequence


def _own_calibration(group: str, own: GroupScores, probabilities: bool) -> MetricValue:
    """Calibration within a group (Kleinberg, Mullainathan & Raghavan 2017) needs no other group."""
    if probabilities and own.within(0.0, 1.0):
        calibration = (own.calibration_error, own.error.n, own.error.n, None, *calibration_answers(own))
        return MetricValue(group, "its own labels", *calibration)
    estimate = _Estimate(own.calibration_error, _calibration_variance(own))
    answers = (estimate.within(0.0, 1.0), estimate.evidence)
    return MetricValue(
        group, "its own labels", estimate.value, own.error.n, own.error.n, None, *answers, asymptotic=True
    )

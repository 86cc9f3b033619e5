"""Labels that haven't come: who has them, and where a metric could lie if the others were anything.

An estimate from the labelled rows takes the others as missing at random. The worst case asks for no such thing: each
row without a label may have either one (Manski, *Partial Identification of Probability Distributions*, 2003). It is
about the rows that were counted and says nothing of their sampling error.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from governed_api.verdict import LabelledShare
from governed_serving.fairness.counts.cells import FAVORABLE, UNFAVORABLE, UNKNOWN, GroupTable
from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.measures import ALL, NEED_LABELS, SPREADS, largest_gap, least_ratio
from governed_serving.fairness.metrics.metrics import LABEL_METRICS, METRICS, RATES, Rate, is_group
from governed_serving.fairness.metrics.roster import SMALLEST_GROUP, Panel
from governed_serving.fairness.metrics.stratified import ADJUSTED, ADJUSTED_LABEL_METRICS, Within

__all__ = ["label_shares", "uneven", "unseen_outcome", "worst_case"]

Array = NDArray[np.int64]
Floats = NDArray[np.float64]
OUTCOMES = {FAVORABLE: "favorable", UNFAVORABLE: "unfavorable"}
UNEVEN_GAP, UNEVEN_LEVEL = 0.1, 0.001
"""Labels come unevenly where shares differ by so much and chance is no explanation (χ², one look)."""


def label_shares(table: GroupTable) -> list[LabelledShare]:
    """Labelled rows of each group and outcome; small groups are left out."""
    return [
        LabelledShare(group=group, outcome=word, rows=rows, labelled=known, share=known / rows if rows else None)
        for group, counts in zip(table.groups, table.counts, strict=True)
        if counts.sum() >= SMALLEST_GROUP
        for outcome, word in OUTCOMES.items()
        for rows, known in [(int(counts[outcome].sum()), int(counts[outcome, :UNKNOWN].sum()))]
    ]


def uneven(shares: Sequence[LabelledShare]) -> tuple[LabelledShare, LabelledShare] | None:
    """The group and outcome with the smallest share of labels and the one with the largest; None: no telling apart."""
    large = [one for one in shares if one.rows >= SMALLEST_GROUP and is_group(one.group)]
    if len(large) < 2:
        return None
    low, high = (pick(large, key=lambda one: one.labelled / one.rows) for pick in (min, max))
    test = chi_square(np.array([[one.labelled, one.rows - one.labelled] for one in large]))
    apart = high.labelled / high.rows - low.labelled / low.rows >= UNEVEN_GAP
    return (low, high) if apart and test.p_value < UNEVEN_LEVEL else None


def worst_case(name: str, panel: Panel, group: str, within: Within | None = None) -> Interval | None:
    """Least and greatest value of metric ``name`` of ``group`` over all labels that the unlabelled rows could have.

    None: no row lacks a label, or the metric is none of rates from labels. Of average and equalised odds, whose two
    rates share their labels, and of true and false positive rates within strata (``within``: their counts), whose
    labels decide the strata's weights as well, the ends may be too wide, never too narrow.
    """
    if name in SPREADS:
        found = _spread(name, panel.judged) if group == ALL else None
    elif name in ADJUSTED_LABEL_METRICS and within is not None:
        found = _adjusted(ADJUSTED[name], within)
    elif name in LABEL_METRICS and panel.base and group in panel.table.groups:
        found = _pair(name, panel.table.of([group]), panel.table.of(panel.base))
    else:
        found = None
    return found


def unseen_outcome(name: str, panel: Panel, group: str, within: Within | None = None) -> str:
    """A group and outcome with rows but no label, without which a rate of ``name`` can't be known; empty: none."""
    if name not in NEED_LABELS:
        return ""
    if name in SPREADS:
        rates, table = [RATES[rate] for rate in SPREADS[name][0]], panel.judged
        groups = dict(zip(table.groups, table.counts, strict=True))
    elif name in LABEL_METRICS | ADJUSTED_LABEL_METRICS and panel.base and group in panel.table.groups:
        rates = list(METRICS[ADJUSTED.get(name, name)].rates)
        groups = {group: panel.table.of([group]), " + ".join(panel.base): panel.table.of(panel.base)}
    else:
        return ""
    for one, counts in groups.items():
        for outcome, word in OUTCOMES.items():
            if _hides(counts, outcome, rates):
                return f"no {word} outcome of {one} has a label yet"
    return "" if within is None else _unseen_within(within, group, " + ".join(panel.base), rates)


def _unseen_within(within: Within, group: str, reference: str, rates: Sequence[Rate]) -> str:
    for one, strata in ((group, within.u), (reference, within.p)):
        for outcome, word in OUTCOMES.items():
            if any(_hides(counts, outcome, rates) for counts in strata):
                return f"in one of the strata no {word} outcome of {one} has a label yet"
    return ""


def _hides(counts: Array, outcome: int, rates: Sequence[Rate]) -> bool:
    if counts[outcome].sum() < SMALLEST_GROUP or counts[outcome, :UNKNOWN].any():
        return False
    alone = np.zeros_like(counts)
    alone[outcome] = counts[outcome]
    return any(_moves(rate, alone) for rate in rates)


def _pair(name: str, u: Array, p: Array) -> Interval | None:
    rates = METRICS[name].rates
    if not any(_moves(rate, side) for rate in rates for side in (u, p)):
        return None
    return _combined(name, [_gap(_range(rate, u), _range(rate, p)) for rate in rates])


def _combined(name: str, gaps: Sequence[Interval]) -> Interval:
    if name == "equalizedOddsDifference":
        return _largest(gaps)
    return Interval(sum(g.lower for g in gaps) / len(gaps), sum(g.upper for g in gaps) / len(gaps))


def _adjusted(name: str, within: Within) -> Interval | None:
    rates = METRICS[name].rates
    sides = [*within.u, *within.p]
    if not any(_moves(rate, side) for rate in rates for side in sides):
        return None
    return _combined(name, [_mean_gap(rate, within) for rate in rates])


def _mean_gap(rate: Rate, within: Within) -> Interval:
    """Of the strata's differences of a rate, each in its range, with weights that labels may change as well."""
    pairs = list(zip(within.u, within.p, strict=True))
    gaps = [_gap(_range(rate, u), _range(rate, p)) for u, p in pairs]
    rows = [[[int(rate(full)[1]) for full in _completed(side)] for side in pair] for pair in pairs]
    least, most = (np.array([_weight(pick(n1), pick(n0)) for n1, n0 in rows]) for pick in (min, max))
    lows, highs = (np.array([gap[end] for gap in gaps]) for end in (0, 1))
    return Interval(-_greatest_mean(-lows, least, most), _greatest_mean(highs, least, most))


def _weight(n1: int, n0: int) -> float:
    return n1 * n0 / max(n1 + n0, 1)


def _greatest_mean(values: Floats, least: Floats, most: Floats) -> float:
    """The greatest weighted mean of ``values``, each weight in its range: those above it at most, the others at
    least. 1 where none need weigh anything."""
    order = np.argsort(-values, kind="stable")
    values, least, most = values[order], least[order], most[order]
    weights = np.where(np.arange(len(values)) < np.arange(len(values) + 1)[:, None], most, least)
    total = weights.sum(1)
    means = (weights * values).sum(1)[total > 0] / total[total > 0]
    return float(means.max()) if len(means) else 1.0


def _gap(u: Interval, p: Interval) -> Interval:
    return Interval(u.lower - p.upper, u.upper - p.lower)


def _largest(gaps: Sequence[Interval]) -> Interval:
    least = [0.0 if g.lower <= 0 <= g.upper else min(abs(g.lower), abs(g.upper)) for g in gaps]
    return Interval(max(least), max(max(abs(g.lower), abs(g.upper)) for g in gaps))


def _spread(name: str, table: GroupTable) -> Interval | None:
    rates, ratio = SPREADS[name]
    used = [RATES[rate] for rate in rates]
    if len(table.groups) < 2 or not any(_moves(rate, one) for rate in used for one in table.counts):
        return None
    ends = []
    for rate in used:
        ranges = [_range(rate, one) for one in table.counts]
        ends.append((least_ratio if ratio else largest_gap)(ranges))
    worst = min if ratio else max
    return Interval(worst(e.lower for e in ends), worst(e.upper for e in ends))


def _completed(counts: Array) -> Iterator[Array]:
    """Counts (2, 3) with every row labelled: in each outcome all that lack a label one way or the other.

    Each rate rises or falls with the number of favourable labels of an outcome, whatever that of the other is; so its
    extremes are among these four.
    """
    for first in (UNFAVORABLE, FAVORABLE):
        for second in (UNFAVORABLE, FAVORABLE):
            full = counts.copy()
            full[UNFAVORABLE, first] += counts[UNFAVORABLE, UNKNOWN]
            full[FAVORABLE, second] += counts[FAVORABLE, UNKNOWN]
            full[:, UNKNOWN] = 0
            yield full


def _range(rate: Rate, counts: Array) -> Interval:
    """[0, 1] where the rows could be such that the rate isn't defined."""
    found = [rate(full) for full in _completed(counts)]
    if any(n == 0 for _, n in found):
        return Interval(0.0, 1.0)
    values = [float(k) / float(n) for k, n in found]
    return Interval(min(values), max(values))


def _moves(rate: Rate, counts: Array) -> bool:
    """Whether labels that are missing could change the rate."""
    return bool(counts[:, UNKNOWN].any()) and len({tuple(map(int, rate(full))) for full in _completed(counts)}) > 1

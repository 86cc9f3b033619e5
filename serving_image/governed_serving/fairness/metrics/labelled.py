"""Labels that haven't come: who has them, and where a metric could lie if the others were anything.

An estimate from the labelled rows takes the others as missing at random. The worst case asks for no such thing: each
row without a label may have either one (Manski, *Partial Identification of Probability Distributions*, 2003). It is
about the rows that were counted and says nothing of their sampling error.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, floor, sqrt

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
        LabelledShare(group=group, outcome=word, rows=rows, labelled=labels, share=labels / rows if rows else None)
        for group, counts in zip(table.groups, table.counts, strict=True)
        if counts.sum() >= SMALLEST_GROUP
        for outcome, word in OUTCOMES.items()
        for rows, labels in [(int(counts[outcome].sum()), int(counts[outcome, :UNKNOWN].sum()))]
    ]


def uneven(shares: Sequence[LabelledShare]) -> tuple[LabelledShare, LabelledShare] | None:
    """The group and outcome with the smallest share of labels and the one with the largest; None: no telling apart."""
    large = [share for share in shares if share.rows >= SMALLEST_GROUP and is_group(share.group)]
    if len(large) < 2:
        return None
    low, high = (pick(large, key=lambda share: share.labelled / share.rows) for pick in (min, max))
    test = chi_square(np.array([[share.labelled, share.rows - share.labelled] for share in large]))
    apart = high.labelled / high.rows - low.labelled / low.rows >= UNEVEN_GAP
    return (low, high) if apart and test.p_value < UNEVEN_LEVEL else None


def worst_case(name: str, panel: Panel, group: str, within: Within | None = None) -> Interval | None:
    """Least and greatest value of metric ``name`` of ``group`` over all labels that the unlabelled rows could have.

    None: no row lacks a label, or the metric is none of rates from labels. ``within``: counts within strata, of
    adjusted ones. The ends may be too wide, never too narrow, of average odds within strata and at the lower end of
    equalised odds: two rates share their labels.
    """
    if name in SPREADS:
        extremes = _spread(name, panel.judged) if group == ALL else None
    elif name in ADJUSTED_LABEL_METRICS and within is not None:
        extremes = _adjusted(ADJUSTED[name], within)
    elif name in LABEL_METRICS and panel.base and group in panel.table.groups:
        extremes = _pair(name, panel.table.of([group]), panel.table.of(panel.base))
    else:
        extremes = None
    return extremes


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
    for side, counts in groups.items():
        for outcome, word in OUTCOMES.items():
            if _hides(counts, outcome, rates):
                return f"no {word} outcome of {side} has a label yet"
    return "" if within is None else _unseen_within(within, group, " + ".join(panel.base), rates)


def _unseen_within(within: Within, group: str, reference: str, rates: Sequence[Rate]) -> str:
    """Of strata that both have: what only one side has counts for nothing."""
    both = within.u.any((1, 2)) & within.p.any((1, 2))
    for one, strata in ((group, within.u[both]), (reference, within.p[both])):
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
    if name == "averageOddsDifference":
        one, other = _odds(u), _odds(p)
        return Interval((one.lower - other.upper) / 2, (one.upper - other.lower) / 2)
    return _combined(name, [_gap(_range(rate, u), _range(rate, p)) for rate in rates])


def _odds(counts: Array) -> Interval:
    """Of the sum of true and false positive rate, which share their labels; [0, 2] where one may not be defined.

    It is concave in the number of favoured rows that deserved it and convex in that of the others: for the greatest
    value the latter is at an end and the former where the slope is 0, to the whole number; for the least the reverse.
    """
    if any(rate(full)[1] <= 0 for rate in METRICS["averageOddsDifference"].rates for full in _completed(counts)):
        return Interval(0.0, 2.0)
    (d, b, refused), (c, a, favoured) = counts.tolist()

    def value(x: int, y: int) -> float:
        k, r = a + x, c + favoured - x
        return float(k / (k + b + y) + r / (r + d + refused - y))

    tops = [(x, y) for y in (0, refused) for x in _steepest((c + favoured, a), (b + y, d + refused - y), favoured)]
    lows = [(x, y) for x in (0, favoured) for y in _steepest((d + refused, b), (a + x, c + favoured - x), refused)]
    return Interval(min(value(*at) for at in lows), max(value(*at) for at in tops))


def _steepest(ends: tuple[int, int], others: tuple[int, int], most: int) -> set[int]:
    """Where t in 0 … ``most`` can be best for two rates that it moves to and fro: its ends, and about √m (e₁ + q) −
    √q (e₂ + m) over √m + √q, at which both slopes are equal."""
    m, q = (sqrt(max(other, 0)) for other in others)
    at = (m * (ends[0] + others[1]) - q * (ends[1] + others[0])) / (m + q) if m + q > 0 else 0.0
    return {0, most, *(min(max(int(near), 0), most) for near in (floor(at), ceil(at)))}


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
    """Of the strata's differences of a rate, whose weights labels may change as well.

    The adjusted difference is Σ F over Σ G, of strata F = (k₁m₀ − k₀m₁)/N and G = n₁n₀/N, where m are the rows without
    a case. F − λG is a quotient of two linear functions of each unknown count alone, and so has its extremes where each
    is as small or as large as it can be: the best quotient of sums is found stratum by stratum (Dinkelbach 1967).
    """
    sides = product(*(_completed(np.asarray(side, np.int64)) for side in within))
    counts = [(*rate(u), *rate(p)) for u, p in sides]
    k1, n1, k0, n0 = (np.stack(some, -1).astype(np.float64) for some in zip(*counts, strict=True))
    both = np.maximum(n1 + n0, 1.0)
    over, under = (k1 * n0 - k0 * n1) / both, n1 * n0 / both
    return Interval(-_greatest_quotient(-over, under), _greatest_quotient(over, under))


def _greatest_quotient(over: Floats, under: Floats) -> float:
    """Of Σ ``over`` by Σ ``under``, shape (strata, ways) each, one way chosen in each stratum; 1 where all are 0/0."""
    strata, chosen = np.arange(len(over)), under.argmax(1)
    greatest = -1.0
    while (below := float(under[strata, chosen].sum())) > 0:
        value = float(over[strata, chosen].sum()) / below
        if value <= greatest:
            return greatest
        greatest, chosen = value, (over - value * under).argmax(1)
    return greatest if greatest > -1 else 1.0


def _gap(u: Interval, p: Interval) -> Interval:
    return Interval(u.lower - p.upper, u.upper - p.lower)


def _largest(gaps: Sequence[Interval]) -> Interval:
    least = [0.0 if g.lower <= 0 <= g.upper else min(abs(g.lower), abs(g.upper)) for g in gaps]
    return Interval(max(least), max(max(abs(g.lower), abs(g.upper)) for g in gaps))


def _spread(name: str, table: GroupTable) -> Interval | None:
    rates, ratio = SPREADS[name]
    used = [RATES[rate] for rate in rates]
    if len(table.groups) < 2 or not any(_moves(rate, row) for rate in used for row in table.counts):
        return None
    ends = []
    for rate in used:
        ranges = [_range(rate, row) for row in table.counts]
        ends.append((least_ratio if ratio else largest_gap)(ranges))
    worst = min if ratio else max
    return Interval(worst(e.lower for e in ends), worst(e.upper for e in ends))


def _completed(counts: Array) -> Iterator[Array]:
    """Counts (…, 2, 3) with every row labelled: in each outcome all that lack a label one way or the other.

    Each rate rises or falls with the number of favourable labels of an outcome, whatever that of the other is; so its
    extremes are among these four.
    """
    for first in (UNFAVORABLE, FAVORABLE):
        for second in (UNFAVORABLE, FAVORABLE):
            full = counts.copy()
            full[..., UNFAVORABLE, first] += counts[..., UNFAVORABLE, UNKNOWN]
            full[..., FAVORABLE, second] += counts[..., FAVORABLE, UNKNOWN]
            full[..., UNKNOWN] = 0
            yield full


def _range(rate: Rate, counts: Array) -> Interval:
    """[0, 1] where the rows could be such that the rate isn't defined."""
    rates = [rate(full) for full in _completed(counts)]
    if any(n == 0 for _, n in rates):
        return Interval(0.0, 1.0)
    values = [float(k) / float(n) for k, n in rates]
    return Interval(min(values), max(values))


def _moves(rate: Rate, counts: Array) -> bool:
    """Whether labels that are missing could change the rate."""
    return bool(counts[:, UNKNOWN].any()) and len({tuple(map(int, rate(full))) for full in _completed(counts)}) > 1

"""Intervals, evidence and metrics by themselves, figure by figure, at the edges of what counts can be."""

from math import exp, inf, log, nan

import numpy as np
import pytest
import scipy.special

from governed_serving.fairness.counts.cells import GroupTable
from governed_serving.fairness.counts.columns import OTHER
from governed_serving.fairness.counts.grouping import MISSING
from governed_serving.fairness.inference.bounded import (
    Sample,
    difference_evidence,
    difference_sequence,
    mean_sequence,
)
from governed_serving.fairness.inference.contrasts import log_evidence, log_gamma, lower_end
from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import (
    Interval,
    binomial_sequence,
    clopper_pearson,
    log_mixture,
    mover,
    paired,
    rate_difference,
    rate_ratio,
)
from governed_serving.fairness.inference.shares import function_evidence, function_sequence
from governed_serving.fairness.metrics.labelled import label_shares, uneven
from governed_serving.fairness.metrics.metrics import (
    METRICS,
    RATES,
    compare,
    confusion,
    entropy_index,
    group_rates,
    impact_ratios,
    is_group,
    reference_groups,
    spread,
)
from governed_serving.fairness.metrics.roster import has_support
from governed_serving.fairness.metrics.sequences import (
    DIFFERENCES,
    Mixture,
    Question,
    RateContrast,
    e_benjamini_hochberg,
    evidences,
    intervals,
    mixture_evidence,
    mixture_radius,
)

from .frozen import numbers, same

RATES_SEEN = [(0, 0), (0, 1), (1, 1), (0, 12), (12, 12), (3, 12), (40, 97), (500, 1000), (999, 1000)]
PAIRS = [(a, b) for a in RATES_SEEN for b in RATES_SEEN[::2]]


def test_intervals_stay_what_they_were() -> None:
    told = {
        "exact": [clopper_pearson(k, n, level) for k, n in RATES_SEEN for level in (0.95, 0.8)],
        "difference": [rate_difference(*one, *other) for one, other in PAIRS],
        "ratio": [rate_ratio(*one, *other) for one, other in PAIRS],
        "at all times": [binomial_sequence(k, n, level) for k, n in RATES_SEEN for level in (0.95, 0.99)],
        "martingale": [log_mixture(k, n, p) for k, n in RATES_SEEN for p in (0.0, 0.2, 0.9, 1.0)],
        "paired": [paired(a, b, 50, 0.9) for a in (0, 1, 20, 50) for b in (0, 3, 20) if a + b <= 50],
        "paired, no rows": paired(0, 0, 0),
        "mover": [mover(0.5, Interval(0.3, 0.6), 0.2, Interval(0.15, 0.4), c) for c in (0.0, 0.5, -0.3, 1.0)],
        "levels": [rate_difference(3, 12, 40, 97, 0.8), rate_ratio(3, 12, 40, 97, 0.8)],
    }  # fmt: skip
    same("intervals", numbers(told))


def test_evidence_about_contrasts_stays_what_it_was() -> None:
    x = np.array([0.5, 1.0, 1.5, 3.25, 10.0, 1e3, 1e7])
    assert log_gamma(x) == pytest.approx(scipy.special.gammaln(x), rel=1e-12, abs=5e-12)
    k = np.array([[0.0, 30.0], [25.0, 0.0], [10.0, 30.0], [90.0, 400.0], [3.0, 900.0], [5.0, 5.0], [0.0, 0.0]])
    n = np.array([[25.0, 60.0], [25.0, 40.0], [40.0, 41.0], [300.0, 900.0], [60.0, 1800.0], [5.0, 5.0], [0.0, 9.0]])
    told = {}
    for a in ((1.0, -1.0), (-1.0, 1.0), (-1.0, 0.8), (0.5, -0.25)):
        for b in (-1.5, -0.9999999, -0.2, 0.0, 0.05, 0.3):
            told[f"{a} {b}"] = log_evidence(k, n, np.tile(a, (7, 1)), np.full(7, b))
    four = [[3.0, 40.0, 9.0, 8.0]], [[30.0, 90.0, 20.0, 80.0]], [[0.5, -0.5, 0.5, -0.5]]
    told["four"] = [
        log_evidence(*four[:2], sign * np.array(four[2]), [b]) for sign in (1, -1) for b in (-0.2, 0.0, 0.1)
    ]
    many = np.repeat(k[:4], 1100, 0), np.repeat(n[:4], 1100, 0)
    chunks = log_evidence(*many, np.tile((-1.0, 1.0), (4400, 1)), np.full(4400, 0.05))
    assert chunks == pytest.approx(np.repeat(told["(-1.0, 1.0) 0.05"][:4], 1100), rel=1e-9)
    ends = [
        lower_end(lambda t, rows, s=s: log_evidence(k[rows], n[rows], np.tile((s, -s), (len(rows), 1)), t),  # type: ignore[misc]
                  np.full(6, -1.0), np.clip(s * (k[:6, 0] / n[:6, 0] - k[:6, 1] / n[:6, 1]), -1, 1), np.full(6, scale),
                  np.full(6, log(20)))
        for s in (1.0, -1.0) for scale in (0.02, 0.1)
    ]  # fmt: skip
    same("contrasts", numbers([told, ends]))


def question(form: str, *parts: tuple[tuple[int, int], tuple[int, int]]) -> Question:
    weights = None if form in ("ratio", "leastRatio") else (1.0, -1.0)
    made = tuple(RateContrast((k1, k0), (n1, n0), weights) for (k1, n1), (k0, n0) in parts)
    return Question(made, form, (1 / len(parts),) * len(parts))  # type: ignore[arg-type]


def test_questions_are_answered_as_they_were() -> None:
    few, many = ((4, 30), (20, 40)), ((300, 1000), (500, 900))
    asked = [
        *(question(form, one) for form in ("difference", "ratio", "largestDifference", "leastRatio")
          for one in (few, many, ((0, 40), (0, 400)), ((0, 0), (3, 9)), ((0, 30), (20, 40)), ((9, 9), (1, 90)))),
        question("largestDifference", few, many), question("leastRatio", few, many, ((5, 50), (5, 50))),
        Question((RateContrast((4, 20, 3, 9), (30, 40, 10, 20), (0.5, -0.5, 0.5, -0.5)),), "difference"),
    ]  # fmt: skip
    told = [intervals(asked, [alpha] * len(asked)) for alpha in (0.05, 0.001)]
    bounds = [(-0.1, 0.1), (-inf, 0.05), (0.8, 1.25), (0.9, inf), (0.0, inf), (0.5, 2.0)]
    same("questions", numbers([told, {str(b): evidences(asked, [b] * len(asked)) for b in bounds}]))
    assert intervals([], []) == evidences([], []) == []


def test_mixtures_stay_what_they_were() -> None:
    told = [
        [mixture_evidence(d, v, m), mixture_radius(v, alpha, m)]
        for m in (DIFFERENCES, Mixture(0.3, 0.1))
        for d in (0.0, 0.15, 0.6)
        for v in (1e-8, 1e-4, 0.01, 3.0)
        for alpha in (0.05, 1e-5)
    ]
    same("mixtures", numbers(told))
    values = {"a": log(400), "b": log(100), "c": log(30), "d": log(19), "e": -1.0}
    assert e_benjamini_hochberg(values, 0.8) == ["a", "b", "c", "d"]
    assert e_benjamini_hochberg(values, 0.95) == ["a", "b"]
    assert e_benjamini_hochberg([0.0, log(40)], 0.95) == [1]
    assert e_benjamini_hochberg([log(39.9), 0.0], 0.95) == []


SAMPLES = [
    Sample(0, 0.0, 0.0, 0.0, 1.0), Sample(1, 0.2, 0.0, 0.0, 1.0), Sample(10, 0.0, 0.0, 0.0, 1.0),
    Sample(40, 1.0, 0.0, 0.0, 1.0), Sample(200, 0.3, 0.04, 0.0, 1.0), Sample(5000, 0.31, 0.2, 0.0, 1.0),
    Sample(300, -0.2, 0.3, -1.0, 1.0), Sample(50, 3.0, 4.0, -2.0, 9.0),
]  # fmt: skip


def test_sequences_of_means_stay_what_they_were() -> None:
    told = {
        "means": [mean_sequence(one, alpha) for one in SAMPLES for alpha in (0.05, 1e-4)],
        "differences": [difference_sequence(a, b, 0.05) for a in SAMPLES for b in SAMPLES[1::2]],
        "evidence": [
            difference_evidence(a, b, *ends)
            for a in SAMPLES
            for b in SAMPLES[::3]
            for ends in ((-0.1, 0.1), (0.4, 0.5), (-2.0, -1.5), (-9.0, 0.0))
        ],
    }
    same("means", numbers(told))


def test_functions_of_shares_stay_what_they_were() -> None:
    told = []
    for counts in ((3, 9, 4), (50, 0, 900)):
        c = np.array(counts, float)
        for function in (lambda p: p[:, 0] - p[:, 2], lambda p: (p**2).sum(1)):
            told.append([function_sequence(c, function, alpha) for alpha in (0.05, 1e-3)])
            told.append([function_evidence(c, function, *ends) for ends in ((-0.1, 0.1), (0.0, 0.3), (0.9, 1.0))])
    same("shares", numbers(told))


def test_tables_without_a_margin_say_nothing() -> None:
    assert (chi_square([[5, 0], [7, 0]]).statistic, chi_square([[5, 0], [7, 0]]).p_value) == (0.0, 1.0)
    assert (chi_square([[5, 3]]).statistic, chi_square([[5, 3], [0, 0]]).p_value) == (0.0, 1.0)
    assert chi_square([[5, 3, 0], [0, 0, 0], [2, 9, 0]]).statistic == pytest.approx(
        chi_square([[5, 3], [2, 9]]).statistic
    )
    same("tables", numbers([chi_square([[5, 3, 1], [2, 9, 4]]), chi_square([[50, 3], [2, 91]])]))


# ---- metrics ----

TABLES = np.array(
    [
        [[[30, 10, 2], [5, 40, 8]], [[20, 15, 0], [25, 35, 4]]],
        [[[0, 0, 9], [0, 0, 4]], [[3, 1, 0], [1, 2, 0]]],
        [[[7, 0, 0], [0, 0, 0]], [[5, 5, 5], [0, 0, 0]]],
        [[[0, 0, 0], [0, 11, 0]], [[0, 6, 0], [0, 3, 1]]],
        [[[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]],
        [[[1, 1, 0], [3, 3, 0]], [[5, 5, 0], [0, 0, 0]]],
    ]
)
"""Pairs of (2 outcomes, 3 labels), some without labels, favours, or rows."""


def rows_of(table: np.ndarray) -> list[tuple[int, int]]:
    """(outcome, label) of each row."""
    return [place for place in np.ndindex(2, 3) for _ in range(int(table[place]))]


CASES = {
    "selectionRate": lambda o, y: (o == 1, y < 3),
    "baseRate": lambda o, y: (y == 1, o < 2 and y < 2),
    "truePositiveRate": lambda o, y: (o == 1, y == 1),
    "falsePositiveRate": lambda o, y: (o == 1, y == 0),
    "predictiveValue": lambda o, y: (y == 1, o == 1 and y < 2),
    "falseOmissionRate": lambda o, y: (y == 1, o == 0 and y < 2),
    "accuracy": lambda o, y: (o == y, y < 2),
}
"""Whether a row is a case, and whether it counts."""


def rate_of(name: str, table: np.ndarray) -> float:
    counted = [case for case, counts in (CASES[name](o, y) for o, y in rows_of(table)) if counts]
    return sum(counted) / len(counted) if counted else nan


@pytest.mark.parametrize("place", range(len(TABLES)))
def test_metrics_are_what_their_definitions_make_of_rows(place: int) -> None:
    u, p = TABLES[place]
    a, b = ({name: rate_of(name, side) for name in RATES} for side in (u, p))
    told = group_rates(GroupTable(["u", "p"], TABLES[place]))
    assert told["u"] == pytest.approx(a, nan_ok=True)
    assert told["p"] == pytest.approx(b, nan_ok=True)
    gap = {name: a[name] - b[name] for name in RATES}
    tpr, fpr = gap["truePositiveRate"], gap["falsePositiveRate"]
    expected = {
        "statisticalParityDifference": gap["selectionRate"],
        "disparateImpactRatio": a["selectionRate"] / b["selectionRate"] if b["selectionRate"] > 0 else nan,
        "equalOpportunityDifference": tpr,
        "averageOddsDifference": (tpr + fpr) / 2,
        "equalizedOddsDifference": nan if tpr + fpr != tpr + fpr else max(abs(tpr), abs(fpr)),
        "predictiveParityDifference": gap["predictiveValue"],
        "falsePositiveRateDifference": fpr,
        "falseOmissionRateDifference": gap["falseOmissionRate"],
        "accuracyDifference": gap["accuracy"],
        "baseRateDifference": gap["baseRate"],
    }
    assert {name: float(metric(u, p)) for name, metric in METRICS.items()} == pytest.approx(expected, nan_ok=True)
    broadcast = {name: metric(TABLES[:, 0], TABLES[:, 1])[place] for name, metric in METRICS.items()}
    assert broadcast == pytest.approx(expected, nan_ok=True)
    for metric in METRICS.values():
        smallest = min(int(rate(side)[1]) for rate in metric.rates for side in (u, p))
        assert metric.support(u, p) == smallest
    benefits = np.array([o - y + 1 for o, y in rows_of(u) if y < 2], float)
    if len(benefits) and benefits.mean() > 0:
        x = benefits / benefits.mean()
        theil = np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0).mean()
        assert float(entropy_index(u, 1.0)) == pytest.approx(theil, abs=1e-12)
        assert float(entropy_index(u)) == pytest.approx((x**2 - 1).mean() / 2, abs=1e-12)
        assert float(entropy_index(u, 3.0)) == pytest.approx((x**3 - 1).mean() / 6, abs=1e-12)


def table(*counts: tuple[str, int, int]) -> GroupTable:
    """(group, favoured, rows)."""
    made = [[[rows - k, 0, 0], [k, 0, 0]] for _, k, rows in counts]
    return GroupTable([name for name, *_ in counts], np.array(made))


def test_a_reference_has_30_rows_and_two_percent() -> None:
    assert reference_groups(table(("a", 30, 30), ("b", 10, 100))) == ("a",)
    assert reference_groups(table(("a", 29, 29), ("b", 10, 100))) == ("b",)
    assert reference_groups(table(("a", 40, 40), ("b", 100, 1960))) == ("a",)
    assert reference_groups(table(("a", 40, 40), ("b", 100, 1961))) == ("b",)
    assert reference_groups(table(("a", 5, 9), ("b", 6, 9))) == ("b",), "all, while none has support"
    assert reference_groups(table(("a", 20, 40), ("b", 20, 40))) == ("b",), "ties: the last by name"
    assert reference_groups(table((MISSING, 50, 50), (OTHER, 50, 50), ("b", 1, 50))) == ("b",)
    assert reference_groups(table((MISSING, 50, 50))) == ()
    assert reference_groups(table(("a", 1, 50), ("b", 9, 50)), ["z"]) == ()
    assert reference_groups(table(("a", 1, 50), ("b", 9, 50)), ["a", "z"]) == ("a",)
    assert reference_groups(table(("a", 0, 0), ("b", 0, 9))) == ("b",), "no rate is less than none"
    assert [is_group(name) for name in ("a", "a ∧ b", f"a ∧ {MISSING}", OTHER)] == [True, True, False, False]


def test_support_is_ten_rows_and_two_percent_or_500_rows() -> None:
    seen = [(9, 9), (10, 500), (10, 501), (499, 25_000), (500, 10**6), (499, 10**6), (0, 0)]
    assert [has_support(*one) for one in seen] == [False, True, False, False, True, False, False]


def test_figures_over_groups_stay_what_they_were() -> None:
    groups = table(("a", 30, 60), ("b", 5, 40), ("c", 3, 3), ("d", 0, 0), ("e", 0, 30))
    labelled = GroupTable(["a", "b", "c"], TABLES[:3, 0])
    told = {
        "spread": [spread(each) for each in (groups, labelled, table(("a", 0, 5), ("b", 0, 9)), table(("a", 1, 5)))],
        "impact": [impact_ratios(groups, least) for least in (0.0, 0.02, 3 / 133, 0.1)] + [impact_ratios(groups)],
        "nobody": [impact_ratios(table(("a", 0, 9), ("b", 0, 9))), impact_ratios(table(("a", 0, 0)))],
        "against": [[c.group, c.reference, c.metrics] for c in compare(groups, ["b", "e"]) + compare(groups)],
        "none": compare(groups, ["z"]),
    }  # fmt: skip
    same("groups-compared", numbers(told))
    rows = confusion(["a", "b", "a", "a"], [1, 0, 0, 1], [1, 0, 1, 0])
    assert rows.counts.tolist() == [[[0, 1, 0], [1, 1, 0]], [[1, 0, 0], [0, 0, 0]]]
    assert confusion(["a", "b"], [True, False]).counts.tolist() == [[[0, 0, 0], [0, 0, 1]], [[0, 0, 1], [0, 0, 0]]]


def test_who_has_labels_stays_what_it_was() -> None:
    counts = np.array(
        [[[40, 10, 50], [10, 50, 0]], [[5, 5, 90], [10, 10, 80]], [[5, 0, 4], [0, 0, 0]], [[0, 0, 0], [3, 3, 4]]]
    )
    shares = label_shares(GroupTable(["a", "b", "c", MISSING], counts))
    even = label_shares(GroupTable(["a", "b"], np.array([[[40, 10, 50], [10, 50, 0]], [[50, 40, 10], [1, 7, 1]]])))
    close = label_shares(GroupTable(["a"], np.array([[[5000, 0, 5000], [6000, 0, 4000]]])))
    near = label_shares(GroupTable(["a"], np.array([[[5000, 0, 5000], [5999, 0, 4001]]])))
    same("labels", numbers([shares, uneven(shares), uneven(even), uneven(shares[:1]), uneven(close), uneven(near)]))


def test_levels_are_those_that_are_asked_for() -> None:
    """Twice the evidence, and no more, at the square of the level."""
    one = intervals([question("difference", ((30, 100), (60, 100)))], [0.05])[0]
    found = evidences([question("difference", ((30, 100), (60, 100)))], [(one.upper, one.upper)])[0]
    assert exp(found) == pytest.approx(20, rel=0.01)

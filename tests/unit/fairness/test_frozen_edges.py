"""Edges that whole verdicts don't reach: one row, exactly the least, nothing known, a bound that is met."""

from math import inf, isfinite, nan
from typing import Any

import numpy as np
import pytest
import scipy.stats

from governed_api.governance import SCORED, Bias, FavorableOutcome, MetricBounds
from governed_api.verdict import wire
from governed_serving.fairness.counts.cells import Cells, GroupTable
from governed_serving.fairness.counts.grouping import Grouping
from governed_serving.fairness.counts.scores import GroupScores, ScoreTable
from governed_serving.fairness.counts.truth import label_of, posted, read_truth, word_of
from governed_serving.fairness.counts.windows import Joined, Window
from governed_serving.fairness.inference.bounded import Sample, difference_evidence
from governed_serving.fairness.inference.contrasts import log_evidence
from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.labelled import label_shares, uneven, worst_case
from governed_serving.fairness.metrics.measures import MetricValue, _index_of_shares, findings
from governed_serving.fairness.metrics.metrics import impact_ratios
from governed_serving.fairness.metrics.mitigation import reweighing
from governed_serving.fairness.metrics.roster import Roster, enrolled, panel_of
from governed_serving.fairness.metrics.verdict import _rows_to_decide, judge
from governed_serving.fairness.monitoring.inputs import InputDrift
from governed_serving.fairness.monitoring.proxies import proxies
from governed_serving.fairness.monitoring.reference import Distribution, read

from .frozen import numbers, same


def counts(**groups: list[list[int]]) -> Cells:
    """Group → [[unfavourable outcomes by label], [favourable ones]]."""
    cells = Cells(("g",))
    for group, table in groups.items():
        cells.put((group,), np.array(table))
    return cells


def decided(**groups: tuple[int, int]) -> Cells:
    """Group → (favoured, rows)."""
    return counts(**{group: [[0, 0, n - k], [0, 0, k]] for group, (k, n) in groups.items()})


def rules(*names: str, **more: Any) -> Bias:
    plain: dict[str, Any] = {
        "protectedAttributes": [{"name": "g", "privileged": ["m"]}],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": name, "thresholdLower": -0.25, "thresholdUpper": 0.25} for name in names],
        "minSamples": 10,
    }
    return Bias.model_validate(plain | more)


SPD = "statisticalParityDifference"


def test_a_value_on_its_bound_is_never_decided() -> None:
    for f, m in (((10, 40), (30, 60)), ((30, 40), (30, 60))):
        (found,) = judge(rules(SPD), decided(f=f, m=m)).metrics
        assert (abs(found.value or 0), found.verdict, found.rows_to_decide) == (0.25, "Unknown", None)


def test_an_interval_that_meets_the_bound_needs_no_more_rows() -> None:
    one, bounds = (
        MetricValue("f", "m", 0.5, 100, 200),
        MetricBounds(name=SPD, threshold_lower=-0.25, threshold_upper=0.25),
    )
    told = [_rows_to_decide(one, bounds, Interval(low, 0.75), 100) for low in (0.25, 0.24, 0.0, -0.5, -1e9)]
    assert told == [None, 9, 300, 1500, None]
    below, inside = MetricValue("f", "m", -0.5, 100, 200), MetricValue("f", "m", 0.2, 100, 200)
    assert _rows_to_decide(below, bounds, Interval(-0.75, 0.0), 100) == 300
    assert _rows_to_decide(inside, bounds, Interval(-0.7, 0.3), 100) == 300
    assert _rows_to_decide(inside, bounds, Interval(-0.8, 0.21), 1000) == 4000
    assert _rows_to_decide(one, bounds, Interval(0.0, 0.75), 330_000_000) == 990_000_000
    assert _rows_to_decide(one, bounds, Interval(0.0, 0.75), 350_000_000) is None
    unbounded = MetricBounds(name=SPD, threshold_upper=0.25)
    assert _rows_to_decide(inside, unbounded, Interval(-inf, 0.3), 100) is None
    assert _rows_to_decide(inside, unbounded, Interval(0.0, 0.3), 100) == 300


def test_the_least_samples_suffice() -> None:
    cells = decided(f=(10, 40), m=(30, 60))
    assert judge(rules(SPD, minSamples=101), cells).summary == "100 of 101 samples"
    assert judge(rules(SPD, minSamples=100), cells).summary.startswith(f"{SPD} of g=f against m")


def test_what_is_shown_comes_before_what_is_larger() -> None:
    """f is shown to lie outside; x lies further outside, by 25 rows that show nothing."""
    told = judge(rules(SPD), decided(f=(0, 575), m=(300, 600), x=(1, 25)))
    assert {m.group: m.verdict for m in told.metrics} == {"f": "Fail", "x": "Unknown"}
    further = judge(rules(SPD), decided(f=(80, 575), m=(300, 600), x=(1, 25)))
    assert f"{SPD} of g=f" in told.summary
    same("order-of-findings", [wire(told), wire(further)])


def test_labels_that_come_unevenly_are_told() -> None:
    cells = counts(f=[[100, 40, 10], [60, 200, 90]], m=[[40, 10, 350], [50, 300, 50]], x=[[4, 4, 1], [0, 3, 0]])
    upper = [{"name": n, "thresholdUpper": 0.1} for n in ("accuracyDifference", "equalOpportunityDifference")]
    lower = [{"name": n, "thresholdLower": -0.1} for n in ("accuracyDifference", "baseRateDifference")]
    told = [wire(judge(rules(SPD, metrics=metrics), cells)) for metrics in (upper, lower)]
    none = counts(f=[[9, 9, 0], [0, 0, 30]], m=[[40, 10, 0], [50, 300, 0]])
    told.append(
        wire(judge(rules("equalOpportunityDifference", "accuracyDifference", "predictiveParityDifference"), none))
    )
    same("labels-unevenly", told)
    gaps = [
        label_shares(GroupTable(["a"], np.array([[[5000, 0, 5000], [k, 0, 10_000 - k]]]))) for k in (5990, 6010, 6250)
    ]
    assert [uneven(shares) is not None for shares in gaps] == [False, True, True]


def test_a_rate_that_is_always_nothing_has_a_worst_case() -> None:
    cells = counts(f=[[10, 10, 5], [0, 0, 0]], m=[[20, 20, 9], [0, 0, 0]])
    panel = panel_of(cells, ["g"], ["m"])
    accuracy = 29 / 49 - 10 / 25  # of f 10 to 15 of 25 are right, of m 20 to 29 of 49
    expected = {
        "equalizedOddsRatioMinMax": (0.0, 1.0),
        "equalizedOddsDifferenceMaxMin": (0.0, 0.0),
        "accuracyDifferenceMaxMin": (0.0, pytest.approx(accuracy)),
    }
    assert {name: worst_case(name, panel, "(all)") for name in expected} == expected
    assert worst_case(SPD, panel, "(all)") is None
    omitted = worst_case("falseOmissionRateDifference", panel, "f")
    assert omitted == (pytest.approx(10 / 25 - 29 / 49), pytest.approx(15 / 25 - 20 / 49))
    assert worst_case("equalizedOddsDifference", panel, "f") == (0.0, 0.0)


def test_what_seems_to_pass_is_unknown_while_an_outcome_has_no_label() -> None:
    """Of f none of the favoured has a label: how precise decisions are about f can't be known."""
    shown = counts(f=[[900, 100, 0], [0, 0, 60]], m=[[900, 100, 0], [60, 0, 0]])
    metrics = {m.name: m for m in judge(rules("baseRateDifference", "falseOmissionRateDifference"), shown).metrics}
    assert (metrics["falseOmissionRateDifference"].verdict, metrics["baseRateDifference"].verdict) == (
        "Pass",
        "Unknown",
    )
    assert metrics["baseRateDifference"].message == "no favorable outcome of f has a label yet: the rate can't be known"
    apart = counts(f=[[900, 100, 0], [0, 0, 60]], m=[[100, 900, 0], [60, 0, 0]])
    (found,) = judge(rules("baseRateDifference"), apart).metrics
    assert (found.verdict, found.message) == ("Unknown", metrics["baseRateDifference"].message)


def test_groups_of_exactly_ten_rows_count() -> None:
    sizes = {f"r{n}": (n, 10 if n % 2 else 11 + n) for n in range(10)}
    metrics = ["demographicParityDifferenceMaxMin", "demographicParityRatioMinMax", "impactRatio"]
    bias = rules(*metrics, protectedAttributes=[{"name": "g"}])
    same("ten-rows", wire(judge(bias, decided(**sizes))))


def test_without_strata_there_is_nothing_to_adjust_for() -> None:
    cells = decided(f=(10, 40), m=(30, 60))
    assert findings("adjusted" + SPD[0].upper() + SPD[1:], cells, ["g"], ["m"]) == []
    assert findings("scoreMeanDifference", cells, ["g"], ["m"]) == []
    assert findings("demographicParityDifferenceMaxMin", decided(f=(10, 40)), ["g"], ["m"]) == []


def test_scores_that_are_no_probabilities_are_estimated() -> None:
    cells = Cells(("g",), scored=[("g",)])
    for group, power in (("f", 2.0), ("m", 1.0)):
        scores = (((np.arange(200) * 37 % 200 + 0.5) / 200) ** power).astype(np.float32)
        cells.add({"g": (np.zeros(200, np.int64), [group])}, scores > 0.5, None, scores)
        assert cells.scores is not None
        for row, score in enumerate(scores.tolist()):
            cells.scores.learn({"g": group}, score, float(row % 3 == 0))
    told: dict[str, Any] = {}
    for name in ("calibrationError", "calibrationDifference", "scoreMeanDifference", "scoreDistributionDistance"):
        for one in findings(name, cells, ["g"], ["m"]):
            evidence = [one.evidence(*ends) for ends in ((-9.0, 9.0), (-0.01, 0.01), (0.6, 0.7))]
            told[f"{name} {one.group}"] = [one.value, one.sequence(0.95), one.sequence(0.9), evidence, one.asymptotic]
    assert Cells.load(cells.dump()).dump() == cells.dump()
    same("estimated", numbers(told))


def test_an_index_without_benefit_is_unbounded_where_it_is_squared() -> None:
    nobody = np.array([[1.0, 0.0, 0.0]])
    assert [float(_index_of_shares(alpha, nobody)[0]) for alpha in (1.0, 2.0)] == [0.0, inf]


def test_means_that_meet_the_bound_are_no_evidence() -> None:
    one = Sample(100, 0.5, 0.1, 0.0, 1.0)
    assert [difference_evidence(one, one, *ends) for ends in ((-0.1, 0.0), (0.0, 0.1), (0.0, 0.0))] == [-inf] * 3
    far, nothing = Sample(100, 0.1, 0.01, 0.0, 1.0), Sample(0, 0.0, 0.0, 0.0, 1.0)
    assert difference_evidence(one, nothing, -0.1, 0.1) == difference_evidence(nothing, one, 5.0, 6.0) == -inf
    assert difference_evidence(one, far, -0.1, 0.1) == pytest.approx(difference_evidence(far, one, -0.1, 0.1))


def test_hypotheses_at_the_end_of_what_is_possible() -> None:
    k, n = np.array([[20.0, 1.0]]), np.array([[20.0, 30.0]])
    assert 10 < log_evidence(k, n, [[1.0, -1.0]], [-1.0])[0] < inf
    assert log_evidence(k, n, [[1.0, -1.0]], [-1.0001])[0] == inf
    assert log_evidence(k, n, [[1.0, -1.0]], [k[0, 0] / 20 - k[0, 1] / 30])[0] == -inf
    assert log_evidence([[0.0, 1.0]], [[0.0, 30.0]], [[1.0, -1.0]], [0.0])[0] == -inf


def test_two_percent_are_enough_for_an_impact_ratio() -> None:
    table = decided(a=(1, 2), b=(20, 49), c=(40, 49)).by("g")
    assert impact_ratios(table, 0.02)["a"] == pytest.approx(0.5 / (40 / 49))
    assert impact_ratios(table, 0.021)["a"] is None


def test_a_label_that_a_group_never_has_weighs_nothing() -> None:
    assert reweighing(counts(f=[[5, 0, 1], [3, 0, 0]], m=[[4, 2, 0], [1, 6, 0]]), "g")["f", 1] == 0.0


def test_weak_associations_are_proxies_from_a_tenth_on() -> None:
    table = np.array([[280, 220], [224, 276]])
    rows = np.repeat(np.arange(4), table.ravel())
    (found,) = proxies({"x": (rows // 2, ["a", "b"])}, (rows % 2, ["p", "q"]))
    assert 0.1 < found.cramers_v < 0.125


def test_a_single_other_row_is_hidden_among_more() -> None:
    found = Distribution.of_words(np.array(["a"] * 30 + ["b"] * 12 + ["c"], object))
    assert (found.values, found.counts.tolist()) == (("a",), [30, 13])
    whole = Distribution.of_words(np.array(["a"] * 30 + ["b"] * 12, object))
    assert (whole.values, whole.counts.tolist()) == (("a", "b"), [30, 12, 0])
    assert list(read({"columns": {"one": {"values": [], "counts": [1]}, "none": {"values": [], "counts": [0]}}})) == [
        "one"
    ]
    assert read({}) == {}


def test_numbers_get_bands_by_their_range() -> None:
    assert [Grouping.of("n", low, low + 10).edges for low in (100.0, -5.0)] == [(), ()]
    assert Grouping.of("n", 0.0, 100.0).edges == (20.0, 40.0, 60.0, 80.0)
    assert Grouping.of("n", 1.0, 17.0).edges == (4.2, 7.4, 10.6, 13.8)


def test_labels_are_read_against_the_outcome() -> None:
    body = posted(b'{"label": [1, 2.0, true, "x"]}')
    assert (body.id, body.values, posted(b'{"id": "q", "label": "a"}').values) == ("", [1, 2.0, True, "x"], ["a"])
    assert [word_of(v) for v in (True, 2.0, 2.5, "A", 3)] == ["true", "2", "2.5", "A", "3"]
    two = FavorableOutcome(label="2")
    assert tuple(read_truth(two, body)) == ([0, 1, 0, 0], [0.0, 1.0, 0.0, 0.0])
    least = FavorableOutcome(threshold=1.5)
    assert tuple(read_truth(least, posted(b'{"label": [1, 1.5, "7"]}'))) == ([0, 1, 1], [1.0, 1.5, 7.0])
    assert label_of(FavorableOutcome(pattern="(?i)granted"), [True, "Granted!", "no"]) == [1, 1, 0]
    assert (label_of(two, "2"), label_of(two, ("2", "1")), label_of(two, True)) == ([1], [1, 0], [0])
    with pytest.raises(ValueError, match="expected true, false or the right text, found 3"):
        label_of(FavorableOutcome(pattern="x"), ["x", 3])
    with pytest.raises(ValueError, match="expected a number within float64, found one of 401 digits"):
        label_of(least, 10**400)


def test_a_score_alone_has_powers_and_limits() -> None:
    one = GroupScores()
    one.count(np.array([(1 << 31) | 0x3F000000]), np.array([1]))
    assert one.most_fourth_power(0.0) == pytest.approx((0.5 + 2**-9) ** 4)
    table = ScoreTable([("g",), ("g", "h")])
    columns = {"g": (np.array([0, 1]), ["a", "b"]), "h": (np.array([0, 0]), ["p"])}
    table.add(columns, np.array([0.25, 0.5]))
    table.learn({"g": "a", "h": "p"}, 0.25, 1.0)
    again = ScoreTable.load(table.dump())
    assert again.dump() == table.dump()
    assert again.group(("g", "h"), "a ∧ p").binned == table.group(("g",), "a").binned
    assert table.dump()[0] == ["g", ["g", "h"]]
    assert again.group(("g",), "a").bins[2].tolist() == [1, 1]


def window_of(*rows: int, samples: int = 40) -> Window:
    window = Window(("g",), samples)
    for minute, count in enumerate(rows):
        codes = np.zeros(count, np.int64)
        window.add({"g": (codes, ["a"])}, codes == 0, np.full(count, minute))
    return window


def test_a_window_lets_go_only_of_what_a_whole_step_follows() -> None:
    """Marks stand ten rows apart."""
    told = {}
    for rows in ((5, 3, 60), (5, 5, 60), (9, 1, 40), (10, 40), (10, 39, 1), (1,) * 60, (30, 20, 1, 1), (50, 1), (41,)):
        window = window_of(*rows)
        told[str(rows[:9])] = [window.gone, window.total().rows, sorted(window.buckets), window._begin()]
    same("window-steps", told)
    assert window_of(1).total().rows == 1


def test_rows_of_several_minutes_are_kept_apart() -> None:
    window = Window(("g",), 100)
    columns = {"g": (np.array([0, 1, 0]), ["a", "b"])}
    window.add(columns, np.array([1, 0, 1]), np.array([1, 2, 1]))
    assert {minute: cells.rows for minute, cells in window.buckets.items()} == {1: 2, 2: 1}
    assert window.relabel(Joined(1, ("a",), 1, 0))
    assert not window.relabel(Joined(1, ("a",), 0, 0))
    assert not window.relabel(Joined(7, ("a",), 1, 0))
    assert window.buckets[1].counts["a",].tolist() == [[0, 0, 0], [1, 0, 1]]


def test_corrections_reach_the_scores() -> None:
    window = Window(("g",), None, [("g",)])
    codes = np.zeros(2, np.int64)
    window.add({"g": (codes, ["a"])}, codes == 0, codes, np.array([0.25, 0.75]))
    for joined, learnt in ((Joined(0, ("a",), 1, 1, 0.25, 1.0), 1), (Joined(0, ("a",), 1, 0, nan, 0.0), 1)):
        window.correct(joined)
        scores = window.total().scores
        assert scores is not None
        assert scores.group(("g",), "a").error.n == learnt
    assert window.relabel(Joined(0, ("a",), 1, 1, 0.75, 1.0)) is False, "both were corrected"
    window.correct(Joined(0, ("a",), 1, 1, 0.25, 1.0), back=True)
    scores = window.total().scores
    assert scores is not None
    assert scores.group(("g",), "a").error.n == 0
    assert window.total().counts["a",].tolist() == [[0, 0, 0], [1, 0, 1]]
    assert Window.load(window.dump()).dump() == window.dump()


def test_a_reference_is_chosen_among_two_groups_at_least() -> None:
    bias = rules(SPD, protectedAttributes=[{"name": "g"}])
    assert enrolled(Roster(), bias, decided(m=(30, 60))).references == {}
    assert enrolled(Roster(), bias, decided(f=(2, 5), m=(30, 60))).references == {}
    assert enrolled(Roster(), bias, decided(f=(2, 10), m=(30, 60)), 4.0).references == {"g": ("m", 4.0)}
    assert enrolled(Roster(), rules(SPD), decided(f=(2, 10), m=(30, 60))).references == {}
    for least, chosen in ((70, {"g": ("m", 0.0)}), (71, {})):
        later = rules(SPD, protectedAttributes=[{"name": "g"}], minSamples=least)
        assert enrolled(Roster(), later, decided(f=(2, 10), m=(30, 60))).references == chosen


def test_rates_without_rows_may_be_anything() -> None:
    found = log_evidence([[90.0, 0.0]], [[100.0, 0.0]], [[1.0, -1.0]], [-0.2])[0]
    assert 1 < found < inf
    assert log_evidence([[0.0, 90.0]], [[0.0, 100.0]], [[1.0, -1.0]], [0.2])[0] == -inf


def test_a_single_case_belongs_to_the_table() -> None:
    for table in ([[1, 0], [5, 3]], [[4, 1], [5, 0]], [[1, 0, 2], [0, 1, 0]]):
        expected = scipy.stats.chi2_contingency(table, correction=False)
        found = chi_square(table)
        assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_two_axes_of_two_values_are_told_apart() -> None:
    cells = Cells(("a", "b"))
    columns = {"a": (np.array([0, 1, 1, 0]), ["x", "y"]), "b": (np.array([0, 0, 1, 1]), ["p", "q"])}
    cells.add(columns, np.array([0, 1, 0, 1]), np.array([0, 1, 2, 0]))
    found = {key: np.argwhere(table).tolist() for key, table in cells.counts.items()}
    assert found == {("x", "p"): [[0, 0]], ("y", "p"): [[1, 1]], ("y", "q"): [[0, 2]], ("x", "q"): [[1, 0]]}


def test_scores_that_never_differ_have_no_estimate() -> None:
    cells = Cells(("g",), scored=[("g",)])
    for group, values in (("f", [7.0] * 20), ("m", [5.0] * 30), ("x", [1.0])):
        codes = np.zeros(len(values), np.int64)
        cells.add({"g": (codes, [group])}, codes == 0, None, np.array(values))
    for name in ("scoreMeanDifference", "scoreStandardizedMeanDifference", "meanErrorDifference"):
        for one in findings(name, cells, ["g"], ["m"]):
            assert (tuple(one.sequence(0.95)), one.evidence(0.0, 1.0)) == ((-inf, inf), -inf)
    one_row = Cells(("g",), scored=[("g",)])
    for group, values in (("f", [0.5]), ("m", [0.25, 0.75] * 20)):
        codes = np.zeros(len(values), np.int64)
        one_row.add({"g": (codes, [group])}, codes == 0, None, np.array(values))
    (single,) = findings("scoreStandardizedMeanDifference", one_row, ["g"], ["m"], probabilities=True)
    assert isfinite(single.sequence(0.5).upper)
    told = {
        f"{name} {one.group}": [one.value, one.support, one.samples, one.sequence(0.95), one.evidence(-0.1, 0.1)]
        for name in SCORED
        for one in findings(name, cells, ["g"], ["m"], probabilities=True)
    }
    same("constant-scores", numbers(told))


def test_drift_of_other_columns_is_looked_at_anew() -> None:
    background: dict[str, Any] = {"x": [n * 0.37 % 1 for n in range(60)], "y": [n * 0.61 % 1 for n in range(60)]}
    both, alone = InputDrift(background, [], 20), InputDrift(background, [], 20)
    fresh = {name: np.array(values[:30]) + 0.4 for name, values in background.items()}
    first = both.sums(fresh)
    again = both.sums({"x": fresh["x"]})
    assert again == alone.sums({"x": fresh["x"]})
    assert first.keys() != again.keys()
    assert (both.compared(first), both.compared(again)) == (None, alone.compared(again))

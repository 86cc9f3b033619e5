"""Subgroup discovery: what is found is there, at no look is anything found that isn't, and it decides nothing."""

from itertools import product
from math import log, pi

import numpy as np
import pandas as pd
import pytest

from governed_api.governance import Bias
from governed_api.verdict import BiasVerdict, wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.metrics import slices
from governed_serving.fairness.metrics.corrections import Corrected
from governed_serving.fairness.metrics.roster import Roster, enrolled
from governed_serving.fairness.metrics.sequences import Question, RateContrast, evidences, intervals
from governed_serving.fairness.metrics.verdict import judge

AXES = ("sex", "race", "age")
VALUES = {"sex": ["f", "m"], "race": ["a", "b", "c"], "age": ["old", "young"]}


def rules(axes: tuple[str, ...] = AXES, **bounds: float) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": name} for name in axes],
            "favorableOutcome": {"label": "yes"},
            "metrics": [
                {"name": "statisticalParityDifference", **(bounds or {"thresholdLower": -0.1, "thresholdUpper": 0.1})}
            ],
            "minSamples": 1,
        }
    )


def people(rows: int, seed: int, **worse: str) -> pd.DataFrame:
    """Selected with .5; those who have all of ``worse``: .1."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.choice(values, rows) for name, values in VALUES.items()})
    hit = np.logical_and.reduce([frame[name] == value for name, value in worse.items()]) if worse else False
    frame["selected"] = rng.random(rows) < np.where(hit, 0.1, 0.5)
    return frame


def counted(frame: pd.DataFrame, axes: tuple[str, ...] = AXES) -> Cells:
    cells = Cells(axes)
    for key, part in frame.groupby(list(axes)):
        k = int(part.selected.sum())
        cells.put(key if isinstance(key, tuple) else (key,), np.array([[0, 0, len(part) - k], [0, 0, k]]))
    return cells


def test_a_combination_of_three_that_no_attribute_shows_is_found() -> None:
    frame = people(12_000, 1, sex="f", race="c", age="old")
    found = judge(rules(), counted(frame))
    assert not any(m.verdict == "Fail" for m in found.metrics)
    best = found.slices.found[0]
    assert best.values == {"sex": "f", "race": "c", "age": "old"}
    inside = (frame.sex == "f") & (frame.race == "c") & (frame.age == "old")
    assert (best.rows, best.rate) == (inside.sum(), pytest.approx(frame.selected[inside].mean()))
    assert best.difference == pytest.approx(frame.selected[inside].mean() - frame.selected[~inside].mean())
    assert best.lower < best.difference < best.upper < -0.1  # type: ignore[operator]
    assert best.log_evidence > log(20)  # type: ignore[operator]
    pairs, triples = 2 * 3 + 2 * 2 + 3 * 2, 12
    assert (found.slices.looked_at, found.slices.left_out) == (pairs + triples, 0)


def test_what_is_found_decides_nothing() -> None:
    found = judge(rules(), counted(people(12_000, 1, sex="f", race="c", age="old")))
    assert found.slices.found
    assert not any(m.verdict == "Fail" for m in found.metrics)
    assert found.verdict != "Fail"


def test_at_no_look_is_a_slice_found_that_is_not_there() -> None:
    """Every slice lies inside the bounds; at .5 a wrong one in half of the runs would be allowed."""
    bias = rules().model_copy(update={"confidence_level": 0.51})
    wrong = 0
    for seed in range(25):
        frame = people(2000, seed)
        wrong += any(judge(bias, counted(frame[:rows])).slices.found for rows in (100, 200, 400, 800, 2000))
    assert wrong <= 12


def test_parts_of_alpha_do_not_hang_on_what_comes_later_and_sum_to_less_than_1() -> None:
    bias, cells = rules(), counted(people(3000, 2, sex="f", race="c"))
    roster = enrolled(Roster(), bias, cells, 1.0)
    before = judge(bias, cells, roster).slices.found
    rng = np.random.default_rng(3)
    for n in range(30):
        cells.put(("m", f"later {n:02}", "young"), np.array([[0, 0, 260], [0, 0, int(rng.binomial(260, 0.5))]]))
    roster = enrolled(roster, bias, cells, 2.0)
    coded = slices._coded(cells, roster)
    every = [
        one
        for axes in (AXES, AXES[:2], AXES[1:], ("sex", "age"))
        for one in slices._candidates(coded, slices._Axes(axes, ()), "selectionRate", roster, 0.25)
    ]
    assert sum(one.share for one in every) <= 1
    shares = {one.values: one.share for one in every}
    assert shares["f", "c"] == pytest.approx(0.25 * (6 / pi**2) ** 2 / 9), "first sex, third race"
    assert before[0].values == {"sex": "f", "race": "c"}


def test_bounds_are_the_manifests_else_a_tenth() -> None:
    name = "statisticalParityDifference"
    assert slices._bounds(rules(thresholdLower=-0.3), name) == (-0.3, np.inf)
    assert slices._bounds(rules(thresholdUpper=0.2), name) == (-np.inf, 0.2)
    assert slices._bounds(rules(thresholdUpper=0.2), "accuracyDifference") == (-0.1, 0.1)
    frame = people(12_000, 1, sex="f", race="c")
    assert judge(rules(thresholdLower=-0.1), counted(frame)).slices.found
    assert not judge(rules(thresholdLower=-0.6), counted(frame)).slices.found


def test_slices_are_bounded_and_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_SLICES", 20)
    monkeypatch.setattr(slices, "MOST_SHOWN", 1)
    found = judge(rules(), counted(people(12_000, 1, sex="f", race="c"))).slices
    assert (found.looked_at, found.left_out, len(found.found)) == (20, 8, 1)


def test_slices_that_are_looked_at_are_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = Cells(("sex", "race"))
    for sex, race, rows, rate in (
        ("f", "a", 3000, 0.5),
        ("f", "b", 900, 0.1),
        ("m", "a", 2000, 0.5),
        ("m", "b", 1000, 0.5),
    ):
        k = round(rows * rate)
        cells.put((sex, race), np.array([[0, 0, rows - k], [0, 0, k]]))
    names = ("sex", "race")
    assert judge(rules(names), cells).slices.found[0].values == {"sex": "f", "race": "b"}
    monkeypatch.setattr(slices, "MOST_SLICES", 3)
    few = judge(rules(names), cells).slices
    assert (few.looked_at, few.left_out) == (3, 1)
    assert {"sex": "f", "race": "b"} not in [one.values for one in few.found]


def test_four_attributes_have_slices_of_two_and_three() -> None:
    cells = Cells(("a", "b", "c", "d"))
    for key in product("xy", repeat=4):
        cells.put(key, np.array([[0, 0, 50], [0, 0, 50]]))
    found = judge(rules(("a", "b", "c", "d")), cells).slices
    assert (found.looked_at, found.left_out, found.found) == (6 * 4 + 4 * 8, 0, [])


def test_a_thousand_slices_are_looked_at_and_twenty_told() -> None:
    """33 × 33 pairs; of 30 of these nobody is selected."""
    cells, none = Cells(("a", "b")), 0
    for i, j in product(range(33), repeat=2):
        k = 0 if i == j and i < 30 else 60
        none += k == 0
        cells.put((f"{i:02}", f"{j:02}"), np.array([[0, 0, 120 - k], [0, 0, k]]))
    told = judge(rules(("a", "b")), cells).slices
    assert (none, told.looked_at, told.left_out, len(told.found)) == (30, 1000, 89, 20)
    assert all(one.rate == 0.0 for one in told.found)
    evidence = [one.log_evidence for one in told.found]
    assert evidence == sorted(evidence, reverse=True)  # type: ignore[type-var]


def test_a_slice_is_found_at_its_part_of_the_level() -> None:
    """A quarter (one of four kinds), times its values' places, times how many are found with it; so is its interval."""
    bias, cells = rules(("sex", "race", "age")), counted(people(3000, 7, sex="f", race="c"))
    found = judge(bias, cells).slices.found
    whole = np.array([*cells.counts.values()])
    k, n = int(whole[:, 1].sum()), int(whole.sum())
    for one in found:
        places = [sorted(VALUES[axis]).index(value) + 1 for axis, value in one.values.items()]
        part = len(found) * 0.05 / 4 * np.prod([6 / (pi * place) ** 2 for place in places])
        cases = round(one.rate * one.rows)
        question = Question((RateContrast((cases, k - cases), (one.rows, n - one.rows)),), "difference")
        (evidence,) = evidences([question], [(-0.1, 0.1)])
        assert one.log_evidence == pytest.approx(evidence)
        assert evidence >= -log(part)
        assert (one.lower, one.upper) == pytest.approx(tuple(intervals([question], [part])[0]), abs=1e-6)
    assert {"sex": "f", "race": "c"} in [one.values for one in found]


@pytest.mark.parametrize(
    ("inside", "outside", "there"), [(9, 100, False), (10, 100, True), (100, 9, False), (100, 10, True)]
)
def test_a_slice_needs_ten_rows_inside_and_outside(inside: int, outside: int, there: bool) -> None:
    cells = Cells(("a", "b"))
    cells.put(("x", "y"), np.array([[0, 0, inside], [0, 0, 0]]))
    cells.put(("v", "w"), np.array([[0, 0, outside], [0, 0, 0]]))
    roster = Roster({"a": {"v": 0.0, "x": 0.0}, "b": {"w": 0.0, "y": 0.0}})
    coded = slices._coded(cells, roster)
    axes = slices._Axes(cells.axes, ())
    found = [one.values for one in slices._candidates(coded, axes, "selectionRate", roster, 1.0)]
    assert found == ([("v", "w"), ("x", "y")] if there else [])


def test_values_that_are_not_enrolled_are_in_no_slice() -> None:
    cells = counted(people(3000, 5, sex="f", race="c"))
    before = judge(rules(), cells).slices.found[0]
    cells.put((before.values["sex"], "rare", "old"), np.array([[0, 0, 9], [0, 0, 0]]))
    cells.put(("rare", before.values["race"], "old"), np.array([[0, 0, 9], [0, 0, 0]]))
    after = judge(rules(), cells).slices
    assert (after.found[0].values, after.found[0].rows) == (before.values, before.rows)
    assert after.looked_at == 2 * 3 + 2 * 2 + 3 * 2 + 12


def test_one_attribute_has_no_slices_and_small_ones_are_not_shown() -> None:
    one = judge(rules(("sex",)), counted(people(500, 4), ("sex",)))
    assert "slices" not in wire(one)
    cells = counted(people(3000, 5))
    cells.put(("f", "rare", "old"), np.array([[0, 0, 9], [0, 0, 0]]))
    told = judge(rules(), cells)
    assert all("rare" not in found.values.values() for found in told.slices.found)
    assert wire(BiasVerdict.model_validate(wire(told))) == wire(told)


def graded(axes: tuple[str, ...], cells: dict[tuple[str, ...], tuple[int, int, int, int]]) -> Cells:
    """From false and true negatives, false and true positives by key: all labelled."""
    table = Cells(axes)
    for key, (tn, fn, fp, tp) in cells.items():
        table.put(key, np.array([[tn, fn, 0], [fp, tp, 0]]))
    return table


def labelled_rules(strata: list[str] | None = None) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "sex"}, {"name": "race"}],
            "strata": strata or [],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": "equalOpportunityDifference", "thresholdLower": -0.2, "thresholdUpper": 0.2}],
            "minSamples": 1,
        }
    )


def test_with_labels_slices_are_found_by_what_happens_to_those_who_deserve_it() -> None:
    """All are selected alike; of those who were right for it, f and b are passed over."""
    usual, passed_over = (300, 100, 100, 300), (100, 300, 300, 100)
    keys = {("f", "a"): usual, ("f", "b"): passed_over, ("m", "a"): usual, ("m", "b"): usual}
    told = judge(labelled_rules(), graded(("sex", "race"), keys)).slices
    best = {one.measure: one for one in told.found if one.values == {"sex": "f", "race": "b"}}
    assert set(best) == {"truePositiveRate", "falsePositiveRate", "accuracy"}
    assert told.looked_at == 4 * 4
    tpr = best["truePositiveRate"]
    assert (tpr.rows, tpr.rate, tpr.difference) == (400, 0.25, 0.25 - 0.75)
    assert tpr.upper is not None
    assert tpr.upper < -0.2
    assert best["accuracy"].difference == pytest.approx(200 / 800 - 0.75)


def test_whether_labels_have_come_is_no_choice_of_what_is_looked_at() -> None:
    assert slices._measures(labelled_rules()) == list(slices.MEASURES)
    assert slices._measures(rules()) == ["selectionRate"]
    silent = counted(people(3000, 5), ("sex", "race"))
    told = judge(labelled_rules(), silent).slices
    assert told.looked_at == 6  # without labels there are no rows to look at


def by_department(rates: dict[tuple[str, str], float], rows: int = 1500) -> Cells:
    cells = Cells(("sex", "department"))
    for key, rate in rates.items():
        k = round(rows * rate)
        cells.put(key, np.array([[0, 0, rows - k], [0, 0, k]]))
    return cells


def within_departments() -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "sex"}],
            "strata": ["department"],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
            "minSamples": 1,
        }
    )


def test_a_slice_of_a_stratum_is_compared_with_the_others_there() -> None:
    alike = {("f", "A"): 0.9, ("m", "A"): 0.9, ("f", "B"): 0.1, ("m", "B"): 0.1}
    told = judge(within_departments(), by_department(alike)).slices
    assert (told.looked_at, told.found) == (4, [])
    apart = judge(within_departments(), by_department({**alike, ("f", "A"): 0.5})).slices
    assert [(one.values, one.within) for one in apart.found][:1] in (
        [({"sex": "f"}, {"department": "A"})],
        [({"sex": "m"}, {"department": "A"})],
    )
    assert {one.within["department"] for one in apart.found} == {"A"}
    assert abs(apart.found[0].difference or 0) == pytest.approx(0.4)


def test_every_slice_names_a_protected_attribute_and_two_or_three_in_all() -> None:
    bias = labelled_rules(["department", "year"])
    axes = [one.all for one in slices._combined(bias)]
    assert len(axes) == len(set(axes)) == 1 + 2 * 2 + 1 * 2 + 2 * 1
    assert all(one[0] in ("sex", "race") and 2 <= len(one) <= 3 for one in axes)
    assert slices._combined(rules(("sex",))) == []


def test_strata_are_enrolled_for_good_and_the_parts_of_all_slices_sum_to_less_than_1() -> None:
    bias = within_departments()
    roster = enrolled(Roster(), bias, by_department({("f", "A"): 0.5, ("m", "A"): 0.5}), 1.0)
    later = by_department({(sex, letter): 0.5 for sex in "fm" for letter in "ABCDEFGH"})
    after = enrolled(roster, bias, later, 2.0)
    assert after.order("department")[0] == "A"
    assert "department" not in after.references
    coded = slices._coded(later, after)
    every = [
        one for axes in slices._combined(bias) for one in slices._candidates(coded, axes, "selectionRate", after, 1.0)
    ]
    assert len(every) == 16
    assert sum(one.share for one in every) <= 1


def test_rows_of_a_stratum_that_is_not_enrolled_are_in_no_slice_of_it() -> None:
    cells = by_department({("f", "A"): 0.2, ("m", "A"): 0.8, ("f", "B"): 0.5, ("m", "B"): 0.5})
    cells.put(("f", "rare"), np.array([[0, 0, 9], [0, 0, 0]]))
    told = judge(within_departments(), cells).slices
    assert told.looked_at == 4
    assert all(one.within == {"department": "A"} for one in told.found)


def test_more_are_found_together_than_a_union_bound_would() -> None:
    """Wang and Ramdas: with k found, each needs 1 / k of the evidence."""
    alpha = 0.05
    assert slices._e_bh([3.0, 2.5, 2.4, -9.0], alpha) == [0, 1, 2]  # -log(3 × .05) = 1.9
    assert slices._e_bh([-log(0.05)], alpha) == [0]
    assert slices._e_bh([2.9], alpha) == []
    assert slices._e_bh([], alpha) == []
    rng = np.random.default_rng(0)
    for _ in range(200):
        weighted = rng.normal(1.5, 1.5, 12).tolist()
        found = slices._e_bh(weighted, alpha)
        assert {place for place, one in enumerate(weighted) if one >= -log(alpha)} <= set(found)
        assert all(weighted[place] >= -log(alpha * len(found)) for place in found)


def deserving(**favoured: float) -> Cells:
    """Half of 400 people of each sex and race deserve it and are selected with .8; of those whom ``favoured`` names
    (``f_a``) so many."""
    cells = Cells(("sex", "race"))
    for sex, race in product("fm", "ab"):
        k = round(400 * favoured.get(f"{sex}_{race}", 0.8))
        cells.put((sex, race), np.array([[400, 400 - k, 0], [0, k, 0]]))
    return cells


@pytest.mark.parametrize(
    ("first", "found"),
    [(None, True), ({"f_a": 0.4}, True), ({}, False), ({"f_a": 1.0, "f_b": 0.4, "m_a": 0.4, "m_b": 0.4}, False)],
    ids=["none corrected", "both", "corrected ones alone", "the other way"],
)
def test_corrected_labels_make_no_find(first: dict[str, float] | None, found: bool) -> None:
    bias = Bias.model_validate(
        {
            "protectedAttributes": [{"name": "sex"}, {"name": "race"}],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": "equalOpportunityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
            "minSamples": 1,
        }
    )
    now = deserving(f_a=0.4)
    before = None if first is None else Corrected(deserving(**first), 160, 3200)
    told = judge(bias, now, None, before)
    rates = [one for one in told.slices.found if one.measure == "truePositiveRate"]
    assert ({"sex": "f", "race": "a"} in [one.values for one in rates]) == found
    assert bool(rates) == found

"""Subgroup discovery: what is found is there, at no look is anything found that isn't, and it decides nothing."""

from math import log, pi

import numpy as np
import pandas as pd
import pytest

from governed_api.governance import Bias
from governed_api.verdict import BiasVerdict, wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.metrics import slices
from governed_serving.fairness.metrics.roster import Roster, enrolled, panel_of
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
    panels = {name: panel_of(cells, (name,), [], roster) for name in AXES}
    coded = slices._coded(cells, panels, AXES)
    every = [
        one
        for axes in (AXES, AXES[:2], AXES[1:], ("sex", "age"))
        for one in slices._candidates(coded, axes, panels, 0.25)
    ]
    assert sum(one.share for one in every) <= 1
    shares = {one.values: one.share for one in every}
    assert shares["f", "c"] == pytest.approx(0.25 * (6 / pi**2) ** 2 / 9), "first sex, third race"
    assert before[0].values == {"sex": "f", "race": "c"}


def test_bounds_are_the_manifests_else_a_tenth() -> None:
    assert slices._bounds(rules(thresholdLower=-0.3)) == (-0.3, np.inf)
    accuracy = rules().model_copy(update={"metrics": rules().metrics[:0]})
    assert slices._bounds(accuracy) == (-0.1, 0.1)
    frame = people(12_000, 1, sex="f", race="c")
    assert judge(rules(thresholdLower=-0.1), counted(frame)).slices.found
    assert not judge(rules(thresholdLower=-0.6), counted(frame)).slices.found


def test_slices_are_bounded_and_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_SLICES", 20)
    monkeypatch.setattr(slices, "MOST_SHOWN", 1)
    found = judge(rules(), counted(people(12_000, 1, sex="f", race="c"))).slices
    assert (found.looked_at, found.left_out, len(found.found)) == (20, 8, 1)


def test_one_attribute_has_no_slices_and_small_ones_are_not_shown() -> None:
    one = judge(rules(("sex",)), counted(people(500, 4), ("sex",)))
    assert "slices" not in wire(one)
    cells = counted(people(3000, 5))
    cells.put(("f", "rare", "old"), np.array([[0, 0, 9], [0, 0, 0]]))
    told = judge(rules(), cells)
    assert all("rare" not in found.values.values() for found in told.slices.found)
    assert wire(BiasVerdict.model_validate(wire(told))) == wire(told)

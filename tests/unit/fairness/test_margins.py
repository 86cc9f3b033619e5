"""An equivalence margin: what Pass and Fail promise with it, that it decides on the bound, and where it is refused."""

import copy
from typing import Any

import numpy as np
import pytest

from governed_api.governance import RATIOS, SIZES, MetricBounds
from governed_api.validation import validate
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.measures import MetricValue
from governed_serving.fairness.metrics.verdict import _rows_to_decide, judge
from support.model_manifests import valid
from unit.contract.test_validation import metric_names
from unit.fairness.test_verdicts import SPD, bias, counted, labelled, line


def rules(margin: float | None = 0.03, low: float | None = -0.1, high: float | None = 0.1, name: str = SPD) -> Any:
    bounds = {"thresholdLower": low, "thresholdUpper": high, "margin": margin}
    told = {key: value for key, value in bounds.items() if value is not None}
    return bias(privileged="m", metrics=[{"name": name, **told}])


def at(rate: float, rows: int) -> Any:
    return counted(f=(round(rate * rows), rows), m=(rows // 2, rows))


# ---- what it means ----


def test_on_the_bound_a_margin_decides_and_its_absence_never_does() -> None:
    cells = at(0.4, 200_000)
    assert judge(rules(None), cells).verdict == "Unknown"
    verdict = judge(rules(), cells)
    found = line(verdict, "f")
    assert (verdict.verdict, found.verdict, found.within_margin, found.margin) == ("Pass", "Pass", True, 0.03)
    assert found.lower is not None
    assert -0.13 <= found.lower < -0.1
    assert "within the margin of 0.03" in verdict.summary
    assert "not shown to lie within the bounds alone" in found.message


@pytest.mark.parametrize(
    ("rate", "rows", "verdict", "within"),
    [
        (0.5, 200_000, "Pass", False),  # inside: the margin isn't needed
        (0.42, 4_000, "Pass", True),  # inside, not shown without it
        (0.39, 40_000, "Pass", True),  # beyond the bound by less than the margin, which isn't shown
        (0.385, 10_000_000, "Fail", False),  # that is shown: bounds are bounds
        (0.3, 20_000, "Fail", False),
        (0.37, 4_000, "Unknown", False),
        (0.4, 400, "Unknown", False),
        (0.61, 40_000, "Pass", True),  # the upper end alike
        (0.615, 10_000_000, "Fail", False),
    ],
)
def test_fail_is_shown_outside_the_bounds_and_pass_inside_the_widened_ones(
    rate: float, rows: int, verdict: str, within: bool
) -> None:
    found = line(judge(rules(), at(rate, rows)), "f")
    assert (found.verdict, found.within_margin) == (verdict, within)


def test_an_interval_narrower_than_the_margin_always_decides() -> None:
    """Of true differences all around both bounds; and where it doesn't, the interval is at least as wide."""
    undecided = 0
    for rate in np.linspace(0.3, 0.7, 21):
        for rows in (500, 8_000, 60_000):
            found = line(judge(rules(), at(float(rate), rows)), "f")
            assert found.lower is not None
            assert found.upper is not None
            wide = found.upper - found.lower >= 0.03
            assert wide or found.verdict != "Unknown"
            undecided += found.verdict == "Unknown"
    assert undecided > 10


def test_without_a_margin_nothing_is_said_of_one() -> None:
    found = line(judge(rules(None), at(0.5, 200_000)), "f")
    assert {"margin", "within_margin"}.isdisjoint(found.model_fields_set)
    assert found.message == ""


def test_labels_that_are_missing_of_one_outcome_leave_no_pass_within_a_margin() -> None:
    eod = "equalOpportunityDifference"
    cells = labelled(f=(400, 50, 4_000, 6_000), m=(400, 50, 3_000, 7_000))
    found = line(judge(rules(0.05, name=eod), cells), "f")
    assert (found.verdict, found.within_margin) == ("Pass", True)
    granted = Cells(("g",))
    granted.put(("f",), np.array([[0, 0, 4_450], [50, 6_000, 0]]))
    granted.put(("m",), np.array([[0, 0, 3_450], [50, 7_000, 0]]))
    found = line(judge(rules(0.05, low=-0.01, high=0.01, name="predictiveParityDifference"), granted), "f")
    assert (found.verdict, found.within_margin) == ("Pass", False)
    unseen = line(judge(rules(0.05, name=eod), granted), "f")
    assert (unseen.verdict, unseen.within_margin) == ("Unknown", False)
    unseen = line(judge(rules(0.05, low=0.001, high=0.2, name=eod), granted), "f")
    assert (unseen.verdict, unseen.within_margin) == ("Unknown", False), "it would have passed by the margin"


def test_a_ratio_takes_its_margin_as_a_ratio() -> None:
    cells = at(0.4, 100_000)
    only = rules(0.05, 0.8, None, "disparateImpactRatio")
    assert line(judge(rules(None, 0.8, None, "disparateImpactRatio"), cells), "f").verdict == "Unknown"
    found = line(judge(only, cells), "f")
    assert (found.verdict, found.within_margin) == ("Pass", True)
    assert found.lower is not None
    assert found.lower >= 0.75


def test_the_rows_that_decide_are_those_of_the_nearer_decision() -> None:
    bounds = MetricBounds(name=SPD, threshold_lower=-0.25, threshold_upper=0.25, margin=0.25)
    on = MetricValue("f", "m", 0.25, 100, 200)
    assert _rows_to_decide(on, bounds, Interval(-0.25, 0.75), 100) == 300  # half as wide: four times the rows
    beyond = MetricValue("f", "m", 0.375, 100, 200)
    assert _rows_to_decide(beyond, bounds, Interval(0.125, 0.625), 100) == 300  # to pass or to fail alike
    near_end = MetricValue("f", "m", 0.4375, 100, 200)
    assert _rows_to_decide(near_end, bounds, Interval(0.0625, 0.8125), 100) == 300  # to fail, twice as far off
    assert _rows_to_decide(on, bounds.model_copy(update={"margin": None}), Interval(-0.25, 0.75), 100) is None


@pytest.mark.parametrize("rate", [0.4, 0.365])
def test_false_verdicts_are_rarer_than_the_level(rate: float) -> None:
    """On the bound a Fail is false, beyond the margin a Pass is; looked at after every batch. Seeded; the bench
    has 2,000 runs and compares with the level."""
    rng, wrong, settled, runs = np.random.default_rng(3), 0, 0, 20
    false = "Fail" if rate == 0.4 else "Pass"
    for _ in range(runs):
        n, words = np.zeros(2, int), []
        k = np.zeros(2, int)
        for new in (400, 2000, 8000, 50_000):
            n = n + new
            k = k + rng.binomial(new, [rate, 0.5])
            cells = counted(f=(int(k[0]), int(n[0])), m=(int(k[1]), int(n[1])))
            words.append(judge(rules(), cells).verdict)
        wrong += false in words
        settled += words[-1] != "Unknown"
    assert wrong == 0
    assert settled == runs


# ---- where it is refused ----


def bounded(name: str, **bounds: object) -> list[str]:
    manifest = copy.deepcopy(valid())
    manifest["spec"]["governance"]["bias"] |= {"metrics": [{"name": name} | bounds], "strata": ["region"]}
    return validate(manifest)


@pytest.mark.parametrize("name", metric_names())
def test_every_metric_may_have_a_margin(name: str) -> None:
    parity = 1.0 if name in RATIOS else 0.0
    ends = {"thresholdUpper": 0.2} if name in SIZES else {"thresholdLower": parity - 0.2}
    assert bounded(name, **ends, margin=0.05) == []


@pytest.mark.parametrize(
    ("name", "bounds", "said"),
    [
        (SPD, {"thresholdLower": -0.1, "margin": 0}, "metrics[0].margin in body should be greater than 0"),
        (SPD, {"thresholdLower": -0.1, "margin": -0.02}, "should be greater than 0"),
        (SPD, {"thresholdLower": -0.1, "margin": float("nan")}, "must be a finite number"),
        (SPD, {"thresholdLower": -0.1, "margin": float("inf")}, "must be a finite number"),
        (SPD, {"thresholdLower": -0.1, "margin": "2 %"}, "must be of type number"),
        (SPD, {"thresholdLower": -0.1, "margin": 0.9}, "widened by margin: every model would pass"),
        (SPD, {"thresholdUpper": 0.1, "margin": 1e308}, "widened by margin: every model would pass"),
        ("disparateImpactRatio", {"thresholdLower": 0.8, "margin": 0.8}, "a ratio is never below 0"),
        ("impactRatio", {"thresholdLower": 0.8, "margin": 2}, "a ratio is never below 0"),
        (SPD, {"margin": 0.02}, "thresholdLower or thresholdUpper must be set"),
    ],
)
def test_a_margin_that_lets_all_pass_is_refused(name: str, bounds: dict[str, object], said: str) -> None:
    messages = bounded(name, **bounds)
    assert any(said in message for message in messages), messages

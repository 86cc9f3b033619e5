"""Scores of a regression with a declared range: exact sequences, and what lies outside is cut, counted and said."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import SCORED, Bias
from governed_api.verdict import BiasVerdict, wire
from governed_serving.auditor.service.folding import Fold
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.scores import GroupScores, ScoreTable, _floats, _ordered
from governed_serving.fairness.counts.windows import Joined, Window
from governed_serving.fairness.metrics.measures import findings
from governed_serving.fairness.metrics.verdict import judge

SUBJECT = ("g",)
LIMITS = (20.0, 90.0)
NAMES = [name for name in SCORED if not name.startswith("calibration")]


def rules(name: str, bound: float, **outcome: object) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "g", "privileged": ["m"]}],
            "favorableOutcome": outcome or {"threshold": 50.0, "range": {"min": LIMITS[0], "max": LIMITS[1]}},
            "metrics": [{"name": name, "thresholdLower": -bound, "thresholdUpper": bound}],
            "minSamples": 1,
        }
    )


def counted(scores: dict[str, Any], truths: dict[str, Any] | None = None, limits: Any = LIMITS) -> Cells:
    cells = Cells(SUBJECT, scored=[SUBJECT], limits=limits)
    for group, values in scores.items():
        some = np.asarray(values, np.float32)
        cells.add({"g": (np.zeros(len(some), np.int64), [group])}, some >= 50, None, some)
        for score, truth in zip(some.tolist(), (truths or {}).get(group, ()), strict=False):
            assert cells.scores is not None
            cells.scores.learn({"g": group}, score, truth)
    return cells


def verdict(name: str, cells: Cells, bound: float = 10.0, **outcome: object) -> BiasVerdict:
    return judge(rules(name, bound, **outcome), cells)


def drawn(seed: int, rows: int = 400, low: float = 20.0, high: float = 90.0) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    scores = {g: rng.uniform(low, high, rows).astype(np.float32) for g in "fm"}
    return scores, {g: np.clip(s + rng.normal(0, 8, rows), *LIMITS).astype(np.float32) for g, s in scores.items()}


@pytest.mark.parametrize("name", NAMES)
def test_metrics_about_scores_are_exact_with_a_range_and_asymptotic_without(name: str) -> None:
    scores, truths = drawn(1)
    (ranged,) = verdict(name, counted(scores, truths)).metrics
    (plain,) = verdict(name, counted(scores, truths, None), threshold=50.0).metrics
    assert ranged.asymptotic is False
    assert plain.asymptotic is (name != "scoreDistributionDistance")
    assert ranged.value == pytest.approx(plain.value)
    assert ranged.lower is not None
    assert ranged.upper is not None
    assert ranged.lower <= ranged.value <= ranged.upper  # type: ignore[operator]


@pytest.mark.parametrize("name", ["scoreMeanDifference", "meanErrorDifference", "meanAbsoluteErrorDifference"])
def test_where_the_range_lies_and_how_wide_it_is_changes_units_alone(name: str) -> None:
    """As probabilities, moved and scaled by powers of two."""
    rng = np.random.default_rng(2)
    one = {g: rng.integers(0, 257, 300) / 256 for g in "fm"}
    label = {g: (rng.random(300) < v).astype(float) for g, v in one.items()}
    near = findings(name, counted(one, label, (0.0, 1.0)), SUBJECT, ("m",))[0].sequence(0.95)
    scaled = {g: -64 + 128 * v for g, v in one.items()}, {g: -64 + 128 * v for g, v in label.items()}
    far = findings(name, counted(*scaled, (-64.0, 64.0)), SUBJECT, ("m",))[0].sequence(0.95)
    assert (far.lower / 128, far.upper / 128) == (pytest.approx(near.lower), pytest.approx(near.upper))


@pytest.mark.parametrize("name", ["scoreMeanDifference", "meanErrorDifference", "rootMeanSquaredErrorDifference"])
def test_at_no_look_is_a_fair_model_failed(name: str) -> None:
    """A rare large score, which a normal law doesn't know of: 99 of 100 are 20, one is 90."""
    rng, failed = np.random.default_rng(3), 0
    for _ in range(12):
        rows = {g: np.where(rng.random(640) < 0.01, 90.0, 20.0) for g in "fm"}
        truths = {g: np.full(640, 20.0) for g in "fm"}
        words = [
            verdict(name, counted({g: v[:n] for g, v in rows.items()}, truths), 0.05).verdict for n in (40, 160, 640)
        ]
        failed += "Fail" in words
    assert failed <= 1


def test_what_is_unfair_is_shown() -> None:
    rng = np.random.default_rng(4)
    rows = {"f": rng.uniform(20, 60, 2000), "m": rng.uniform(50, 90, 2000)}
    (found,) = verdict("scoreMeanDifference", counted(rows)).metrics
    assert (found.verdict, found.message) == ("Fail", "the whole interval lies outside the bounds")


def test_what_lies_outside_is_cut_counted_and_said() -> None:
    cells = counted({"f": [10.0, 30.0, 50.0] * 20, "m": [95.0, 30.0, 90.0] * 20}, {"m": [19.0, 91.0, 50.0]})
    found = verdict("scoreMeanDifference", cells)
    (line,) = found.metrics
    assert line.value == pytest.approx((20 + 30 + 50) / 3 - (90 + 30 + 90) / 3)
    assert found.outside_range == {"scores": 40, "labels": 2}
    assert "40 scores and 2 labels outside the declared range [20, 90] count as its ends" in found.summary
    assert wire(found)["outsideRange"] == {"scores": 40, "labels": 2}
    assert cells.scores is not None
    error = cells.scores.of(SUBJECT, ["m"]).error
    assert error.mean == pytest.approx(np.mean([90 - 20, 30 - 90, 90 - 50]))


def test_nothing_is_said_where_all_lies_inside() -> None:
    found = verdict("scoreMeanDifference", counted(*drawn(5)))
    assert (found.outside_range, "outside the declared range" in found.summary) == ({}, False)
    assert "outsideRange" not in wire(found)


def test_what_is_no_number_is_left_out_and_not_outside() -> None:
    cells = counted({"f": [np.nan, np.inf, 30.0], "m": [-np.inf, 50.0]}, {"f": [30.0, 30.0, np.nan]})
    assert cells.scores is not None
    assert (cells.scores.outside, cells.scores.outside_truths) == (0, 0)
    assert cells.scores.of(SUBJECT, ["f"]).score.n == 1


def window(limits: tuple[float, float] | None = LIMITS) -> Window:
    made = Window(SUBJECT, 100, [SUBJECT], limits)
    scores = np.array([10.0, 30.0, 99.0], np.float32)
    columns = {"g": (np.array([0, 1, 0]), ["f", "m"])}
    made.add(columns, scores >= 50, made.bucket_of(np.array([60.0, 60.0, 180.0])), scores)
    return made


def test_counts_of_what_is_outside_survive_restarts_and_add_up() -> None:
    one = window()
    assert one.relabel(Joined(1, ("f",), 0, 0, 10.0, 5.0))
    read = Window.load(one.dump())
    assert read.dump() == one.dump()
    assert (read.limits, read.total().scores.outside, read.total().scores.outside_truths) == (LIMITS, 2, 1)  # type: ignore[union-attr]
    total = read.merge(window()).total().scores
    assert total is not None
    assert (total.outside, total.outside_truths) == (4, 1)
    one.correct(Joined(1, ("f",), 0, 0, 10.0, 5.0), back=True)
    assert one.total().scores.outside_truths == 0  # type: ignore[union-attr]
    assert "limits" not in window(None).dump()


def test_counts_made_with_another_range_are_not_read() -> None:
    fold = Fold(rules("scoreMeanDifference", 1.0), "r")
    assert fold.window.limits == LIMITS
    other = rules("scoreMeanDifference", 1.0, threshold=50.0, range={"min": 0.0, "max": 90.0})
    assert not Fold(other, "r").load(fold.dump())
    assert Fold(rules("scoreMeanDifference", 1.0), "r").load(fold.dump())
    assert Fold(other, "r").rules != fold.rules
    assert Fold(rules("scoreMeanDifference", 1.0, threshold=50.0), "r").rules == fold.rules[:-1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.floats(-1e6, 1e6, width=32),
    st.booleans(),
)
def test_fourth_powers_are_bounded_on_both_sides_of_zero(values: list[float], centre: float, coarse: bool) -> None:
    table = ScoreTable([SUBJECT])
    some = np.array(values, np.float32)
    table.add({"g": (np.zeros(len(some), np.int64), ["f"])}, some)
    own: GroupScores = table.of(SUBJECT, ["f"])
    if coarse:
        own.coarsen()
    mean = float(((some.astype(np.float64) - centre) ** 4).mean())
    bound = own.most_fourth_power(centre)
    assert bound >= mean * (1 - 1e-9)
    assert bound <= (((np.abs(some.astype(np.float64) - centre) + np.abs(some) / 100 + 1e-30) ** 4).mean()) * 1.01
    assert _floats(_ordered(some)).tolist() == (some + np.float32(0)).tolist()

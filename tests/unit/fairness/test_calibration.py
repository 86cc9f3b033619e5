"""Calibration curves of groups with bands that hold together, at all looks."""

from math import pi
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve as sklearn_curve

from governed_api.governance import Bias
from governed_api.verdict import BiasVerdict, wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.scores import GroupScores
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.metrics.calibration import MOST_CURVES, calibration_curve
from governed_serving.fairness.metrics.verdict import judge

SUBJECT = ("g",)


def rules(**changed: object) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "g", "privileged": ["m"]}],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": "calibrationError", "thresholdUpper": 0.2}],
            "minSamples": 1,
        }
        | changed
    )


def counted(groups: dict[str, tuple[Any, Any]]) -> Cells:
    """Group → scores, labels (fewer labels than scores: the others have none)."""
    cells = Cells(SUBJECT, scored=[SUBJECT])
    for group, (scores, labels) in groups.items():
        some = np.asarray(scores, np.float32)
        cells.add({"g": (np.zeros(len(some), np.int64), [group])}, some >= 0.5, None, some)
        assert cells.scores is not None
        for score, label in zip(some.tolist(), labels, strict=False):
            cells.scores.learn({"g": group}, score, float(label))
    return cells


def drawn(seed: int, rows: int = 600) -> dict[str, tuple[Any, Any]]:
    rng, found = np.random.default_rng(seed), {}
    for group, power in (("m", 1.0), ("f", 2.0)):
        score = rng.beta(1.5, 1.5, rows).astype(np.float32)
        found[group] = (score, (rng.random(rows) < score**power).astype(int))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_curves_are_scikit_learns(seed: int) -> None:
    data = drawn(seed)
    curves = judge(rules(), counted(data)).calibration["g"]
    assert [curve.group for curve in curves] == ["f", "m"]
    for curve in curves:
        score, label = data[curve.group]
        rate, mean = sklearn_curve(label, score, n_bins=10)
        rows = np.histogram(score, np.linspace(0, 1, 11))[0]
        kept = rows[rows > 0] >= 10
        assert [b.rows for b in curve.bins] == rows[rows >= 10].tolist()
        assert [b.rate for b in curve.bins] == pytest.approx(rate[kept])
        assert [b.score for b in curve.bins] == pytest.approx(mean[kept], abs=1e-6)
        assert [(b.low, b.high) for b in curve.bins] == [
            (pytest.approx(i / 10), pytest.approx((i + 1) / 10)) for i in np.flatnonzero(rows >= 10)
        ]
        for b in curve.bins:
            assert b.lower <= b.rate <= b.upper  # type: ignore[operator]


def own_scores(scores: Any, labels: Any) -> GroupScores:
    table = counted({"f": (scores, labels)}).scores
    assert table is not None
    return table.of(SUBJECT, ["f"])


def test_a_band_is_at_the_part_of_its_bin() -> None:
    own = own_scores([0.35] * 40, [1] * 10 + [0] * 30)
    (found,) = calibration_curve("f", own, 0.05).bins
    assert (found.lower, found.upper) == binomial_sequence(10, 40, 1 - 0.005)


def test_bands_share_the_level_among_attributes_groups_and_bins() -> None:
    """The first group of two attributes: half of .05, 6/π² of that, a tenth for each bin."""
    cells = Cells(("g", "h"), scored=[("g",), ("h",)])
    score = np.full(40, 0.35, np.float32)
    codes = np.zeros(40, np.int64)
    cells.add({"g": (codes, ["f"]), "h": (codes, ["x"])}, score >= 0.5, None, score)
    assert cells.scores is not None
    for label in [1.0] * 10 + [0.0] * 30:
        cells.scores.learn({"g": "f", "h": "x"}, 0.35, label)
    two = rules(protectedAttributes=[{"name": "g", "privileged": ["f"]}, {"name": "h", "privileged": ["x"]}])
    told = judge(two, cells).calibration
    assert list(told) == ["g", "h"]
    for curves in told.values():
        (band,) = curves[0].bins
        expected = binomial_sequence(10, 40, 1 - 0.05 / 2 * 6 / pi**2 / 10)
        assert (band.lower, band.upper) == pytest.approx(expected)


def test_of_few_labels_nothing_is_shown() -> None:
    own = own_scores([0.05] * 9 + [0.95] * 10, [0] * 9 + [1] * 10)
    (found,) = calibration_curve("f", own, 0.05).bins
    assert (found.low, found.high, found.rows, found.rate, found.upper) == (0.9, 1.0, 10, 1.0, 1.0)


def test_no_bin_at_no_look_misses_more_often_than_the_level() -> None:
    """True rates are what was predicted, in ten bins; a look after each 40 rows."""
    rng, runs, missed, fixed = np.random.default_rng(1), 150, 0, 0
    centres = (np.arange(10) + 0.5) / 10
    for _ in range(runs):
        own, out, once = GroupScores(), False, False
        for _ in range(15):
            rows = rng.multinomial(60, np.full(10, 0.1))
            cases = rng.binomial(rows, centres)
            own.bins += np.stack([rows, cases], 1)
            curve = calibration_curve("f", own, 0.2)
            truth = {b.low: (b.low + b.high) / 2 for b in curve.bins}
            out |= any(not b.lower <= truth[b.low] <= b.upper for b in curve.bins)  # type: ignore[operator]
            error = np.sqrt(centres * (1 - centres) / np.maximum(own.bins[:, 0], 1))
            once |= bool((np.abs(own.bins[:, 1] / np.maximum(own.bins[:, 0], 1) - centres) > 1.2816 * error).any())
        missed, fixed = missed + out, fixed + once
    assert missed / runs <= 0.2
    assert fixed / runs > 0.9, "an interval of one bin and one look"


def test_there_are_no_curves_without_probabilities_or_labels() -> None:
    data = drawn(1)
    unlabelled = {group: (scores, []) for group, (scores, _) in data.items()}
    assert judge(rules(), counted(unlabelled)).calibration == {}
    assert "calibration" not in wire(judge(rules(), counted(unlabelled)))
    regression = rules(
        favorableOutcome={"threshold": 0.5}, metrics=[{"name": "scoreMeanDifference", "thresholdUpper": 1}]
    )
    assert judge(regression, counted(data)).calibration == {}
    rates = rules(metrics=[{"name": "statisticalParityDifference", "thresholdUpper": 0.2}])
    plain = Cells(SUBJECT)
    plain.put(("f",), np.array([[50, 0, 0], [50, 0, 0]]))
    assert judge(rates, plain).calibration == {}


def test_a_verdict_tells_at_most_eight_curves_and_is_read_back() -> None:
    rng = np.random.default_rng(2)
    groups = {f"g{n:02}": (rng.random(200), rng.integers(0, 2, 200)) for n in range(12)}
    told = wire(judge(rules(), counted(groups | {"m": (rng.random(200), rng.integers(0, 2, 200))})))
    assert len(told["calibration"]["g"]) == MOST_CURVES == 8  # type: ignore[index,call-overload]
    again = BiasVerdict.model_validate(told)
    assert wire(again) == told
    assert len(again.calibration["g"][0].bins) == 10

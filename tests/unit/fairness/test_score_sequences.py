"""Exact sequences of means of probabilities, of their errors and calibration, and of the entropy indices."""

from functools import partial
from itertools import product
from math import inf, log

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.verdict import MetricFinding
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.bounded import (
    Sample,
    difference_evidence,
    difference_sequence,
    mean_sequence,
)
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.inference.shares import function_evidence, function_sequence
from governed_serving.fairness.metrics.measures import _index_of_shares, findings
from governed_serving.fairness.metrics.score_sequences import _evidence
from governed_serving.fairness.metrics.verdict import judge


def sample(values: np.ndarray | list[float]) -> Sample:
    x = np.asarray(values, np.float64)
    return Sample(len(x), float(x.mean()), float(x.var()), 0.0, 1.0)


def scored(**groups: np.ndarray) -> Cells:
    """Group → its scores, without labels; half of each group is favoured, for what is no matter here."""
    cells = Cells(("g",), scored=[("g",)])
    for group, scores in groups.items():
        outcome = np.arange(len(scores)) % 2 == 0
        cells.add({"g": (np.zeros(len(scores), np.int64), [group])}, outcome, None, scores.astype(np.float32))
    return cells


def learnt(cells: Cells, group: str, scores: np.ndarray, labels: np.ndarray) -> None:
    assert cells.scores is not None
    for score, label in zip(scores.astype(np.float32).tolist(), labels.tolist(), strict=True):
        cells.scores.learn({"g": group}, score, float(label))


def judged(name: str, cells: Cells, bound: float = 0.1, **outcome: object) -> MetricFinding:
    bias = {
        "protectedAttributes": [{"name": "g", "privileged": ["m"]}],
        "favorableOutcome": outcome or {"label": "1"},
        "metrics": [{"name": name, "thresholdLower": -bound, "thresholdUpper": bound}],
        "minSamples": 1,
    }
    return next(m for m in judge(Bias.model_validate(bias), cells).metrics if m.group in ("f", "(all)"))


# ---- e-values ----


@pytest.mark.parametrize("p", [(0.5, 0.0, 0.5), (0.9, 0.0, 0.1), (0.99, 0.0, 0.01), (0.2, 0.6, 0.2), (0.0, 1.0, 0.0)])
def test_the_mean_evidence_about_a_difference_is_at_most_one(p: tuple[float, float, float]) -> None:
    """Over all that four rows of 0, ½ or 1 on either side can come to; the truth is no difference."""
    values, total = (0.0, 0.5, 1.0), 0.0
    for places in product(range(3), repeat=6):
        weight = float(np.prod([p[i] for i in places]))
        if weight > 0:
            x = [values[i] for i in places]
            total += weight * np.exp(difference_evidence(sample(x[:3]), sample(x[3:]), 0.0, 0.0))
    assert total <= 1


def ever_beyond(high: float, looks: list[int], runs: int) -> tuple[float, float]:
    """Share of runs in which a truth on the bound is ever told to lie beyond it, by ours and by a normal approximation.

    A group of rare high scores beside a steady one, the kind for which an estimated variance is much too small."""
    rng, ours, normal = np.random.default_rng(0), 0, 0
    steady = sample(np.tile([0.29, 0.31], 500))
    for _ in range(runs):
        x = np.where(rng.random(looks[-1]) < high, 1.0, rng.uniform(0, 0.02, looks[-1]))
        bound = high + (1 - high) * 0.01 - 0.3
        found = [sample(x[:look]) for look in looks]
        ours += any(difference_evidence(one, steady, bound, np.inf) >= np.log(20) for one in found)
        normal += any(one.mean + 3 * np.sqrt(one.variance / one.n) < 0.3 + bound for one in found)
    return ours / runs, normal / runs


def test_truths_on_the_bound_are_not_told_beyond_it_at_any_look() -> None:
    ours, normal = ever_beyond(0.1, [10, 15, 20, 30, 50, 100, 200, 400], 120)
    assert ours <= 0.05
    assert normal > 0.2, "three standard errors, estimated, are not enough"


def test_a_mean_is_covered_at_all_looks_together() -> None:
    rng, missed = np.random.default_rng(1), 0
    for _ in range(60):
        x = rng.beta(0.2, 1.8, 1000)
        intervals = [mean_sequence(sample(x[:look]), 0.05) for look in (10, 20, 40, 80, 160, 320, 1000)]
        missed += not all(i.lower <= 0.1 <= i.upper for i in intervals)
    assert missed <= 3


def test_ends_are_where_the_evidence_reaches_its_threshold() -> None:
    rng = np.random.default_rng(2)
    one, other = sample(rng.beta(2, 3, 400)), sample(rng.beta(3, 3, 900))
    found = difference_sequence(one, other, 0.05)
    assert difference_evidence(one, other, -np.inf, found.lower - 1e-9) == pytest.approx(np.log(20), abs=0.05)
    assert difference_evidence(one, other, found.upper + 1e-9, np.inf) == pytest.approx(np.log(20), abs=0.05)


@pytest.mark.parametrize(("one", "other"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("rows", [1, 10, 100_000])
def test_constant_scores_have_intervals_within_what_is_possible(one: float, other: float, rows: int) -> None:
    found = difference_sequence(sample([one] * rows), sample([other] * 50), 0.05)
    assert -1 <= found.lower <= one - other <= found.upper <= 1
    assert found.upper - found.lower > 0.05, "fifty rows of the other never tell more"


# ---- verdicts ----


def test_ten_equal_scores_show_nothing() -> None:
    """An estimated variance of almost nothing made ten rows a Fail."""
    rng = np.random.default_rng(3)
    few = judged("scoreMeanDifference", scored(f=np.full(10, 0.001), m=rng.uniform(0.1, 0.5, 400)))
    assert (few.verdict, few.asymptotic) == ("Unknown", False)
    many = judged("scoreMeanDifference", scored(f=np.full(100, 0.001), m=rng.uniform(0.1, 0.5, 400)))
    assert many.verdict == "Fail"


def test_equal_groups_pass_when_there_are_enough_rows() -> None:
    rng = np.random.default_rng(4)
    assert judged("scoreMeanDifference", scored(f=rng.random(2000), m=rng.random(2000))).verdict == "Pass"


@pytest.mark.parametrize(
    "name",
    ["meanErrorDifference", "meanAbsoluteErrorDifference", "rootMeanSquaredErrorDifference", "calibrationDifference",
     "scoreStandardizedMeanDifference"],
)  # fmt: skip
def test_intervals_of_what_is_made_of_means_cover_it(name: str) -> None:
    """Both groups alike, scores calibrated: the truth is 0."""
    rng, widths = np.random.default_rng(5), []
    for _ in range(6):
        cells, data = scored(), {}
        for group in "fm":
            data[group] = rng.beta(2, 2, 400)
        cells = scored(**data)
        for group in "fm":
            learnt(cells, group, data[group], (rng.random(400) < data[group]).astype(int))
        (found,) = findings(name, cells, ["g"], ["m"], probabilities=True)
        interval = found.sequence(0.95)
        assert not found.asymptotic
        assert interval.lower <= 0 <= interval.upper
        widths.append(interval.upper - interval.lower)
    assert max(widths) < (2.5 if name.startswith("scoreStandardized") else 0.6)


def test_a_group_calibrated_in_no_bin_fails_and_one_in_all_never_does() -> None:
    rng = np.random.default_rng(6)
    scores = rng.uniform(0.05, 0.35, 3000)
    cells = scored(f=scores, m=scores)
    learnt(cells, "f", scores, (rng.random(3000) < 0.9).astype(int))
    learnt(cells, "m", scores, (rng.random(3000) < scores).astype(int))
    found = {f.group: f.sequence(0.95) for f in findings("calibrationError", cells, ["g"], ["m"], probabilities=True)}
    assert found["f"].lower > 0.5
    assert found["m"].lower == 0.0
    assert found["m"].upper < 0.15


def test_scores_without_a_known_range_stay_marked() -> None:
    rng = np.random.default_rng(7)
    salaries = scored(f=rng.normal(40, 1, 300), m=rng.normal(50, 1, 300))
    found = judged("scoreMeanDifference", salaries, threshold=45.0)
    assert (found.verdict, found.asymptotic) == ("Fail", True)
    assert "the interval is asymptotic" in found.message
    outside = judged("scoreMeanDifference", scored(f=rng.normal(40, 1, 300), m=rng.random(300)))
    assert outside.asymptotic, "what is called a probability and is none"


# ---- entropy ----


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("p", [(0.1, 0.8, 0.1), (0.02, 0.96, 0.02), (0.5, 0.25, 0.25)])
def test_an_index_is_covered_at_all_looks_together(alpha: float, p: tuple[float, float, float]) -> None:
    rng, index, missed = np.random.default_rng(8), partial(_index_of_shares, alpha), 0
    truth = float(index(np.array([p]))[0])
    for _ in range(25):
        counts = np.cumsum(rng.multinomial(1, p, 600), 0)
        intervals = [function_sequence(counts[look - 1], index, 0.05) for look in (5, 20, 60, 200, 600)]
        missed += not all(i.lower - 1e-9 <= truth <= i.upper + 1e-9 for i in intervals)
    assert missed <= 2


def test_ends_of_an_index_are_those_of_the_whole_region() -> None:
    """Against a fine grid over the triangle."""
    counts, index = np.array([12.0, 80.0, 8.0]), partial(_index_of_shares, 2.0)
    found = function_sequence(counts, index, 0.05)
    axis = np.linspace(0.0005, 0.9995, 1200)
    p = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    p = p[p.sum(1) < 0.9995]
    p = np.stack([p[:, 0], 1 - p.sum(1), p[:, 1]], 1)
    from scipy.special import gammaln

    marginal = (gammaln(counts + 0.5) - gammaln(0.5)).sum() + gammaln(1.5) - gammaln(counts.sum() + 1.5)
    inside = p[marginal - (counts * np.log(p)).sum(1) < np.log(20)]
    assert found.lower == pytest.approx(index(inside).min(), abs=2e-3)
    assert found.upper == pytest.approx(index(inside).max(), abs=2e-3)
    assert function_evidence(counts, index, 0.0, found.lower - 1e-4) == pytest.approx(np.log(20), abs=0.15)


@pytest.mark.parametrize("counts", [(0, 50, 0), (50, 0, 0), (0, 0, 50), (1, 0, 0), (0, 10**7, 0)])
def test_one_kind_of_benefit_alone_has_an_interval(counts: tuple[int, int, int]) -> None:
    for alpha in (1.0, 2.0):
        found = function_sequence(np.array(counts, float), partial(_index_of_shares, alpha), 0.05)
        assert 0 <= found.lower <= found.upper
        assert found.lower < 1e-6 or counts[0]


BOUNDS = [((0.2, 0.3), False), ((0.0, 0.1), False), ((0.15, 0.15), False), ((0.21, 0.3), True), ((0.0, 0.09), True)]
"""Bounds, and whether an interval of .1 to .2 lies outside of them."""


@pytest.mark.parametrize(("bounds", "outside"), BOUNDS)
def test_an_interval_that_meets_its_bound_is_no_evidence(bounds: tuple[float, float], outside: bool) -> None:
    """Of a sequence that lies outside at every level the evidence is what the search goes up to: ½ p^(−½) at p =
    e^−64, found to 2."""
    found = _evidence(lambda _: Interval(0.1, 0.2), *bounds)
    assert 31 - log(2) <= found <= 32 - log(2) if outside else found == -inf
    ends = np.array([0.1, 0.2])
    of_shares = function_evidence(np.array([5.0, 3.0, 2.0]), lambda p: ends[np.arange(len(p)) % 2], *bounds)
    assert 499.9 <= of_shares <= 500 if outside else of_shares == -inf


@pytest.mark.parametrize("most", [2.0, 10.0, 31.0])
def test_evidence_is_never_more_than_the_level_at_which_an_interval_reaches_its_bound(most: float) -> None:
    """Outside down to alpha = e^−most: ½ p^(−½) of it, or up to 2 of its exponent less; exact from that on."""

    def sequence(alpha: float) -> Interval:
        return Interval(1.0, 1.0) if -log(alpha) <= most + 1e-9 else Interval(0.0, 1.0)

    found = _evidence(sequence, 0.0, 0.5)
    assert most / 2 - 1 - log(2) <= found <= most / 2 - log(2) + 1e-6
    assert _evidence(lambda alpha: Interval(-sequence(alpha).upper, -sequence(alpha).lower), -0.5, 0.0) == found

"""Simpson's paradox and confounding: what is told of them, and with which certainty, however often one looks."""

from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from scipy.optimize import minimize
from scipy.special import betaln, xlog1py, xlogy

from governed_api.governance import Bias
from governed_api.verdict import wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.inference.regions import contrast_region
from governed_serving.fairness.metrics.sequences import Question, RateContrast, intervals
from governed_serving.fairness.metrics.simpson import SimpsonFinding, _finding, simpson
from governed_serving.fairness.metrics.verdict import judge

from .test_metrics import berkeley

Sides = tuple[tuple[int, int], tuple[int, int]]
"""(favoured, rows) of a, and of b."""


def strata(*tables: Sides) -> Cells:
    cells = Cells(("g", "s"))
    for place, sides in enumerate(tables):
        for group, (k, n) in zip("ab", sides, strict=True):
            cells.put((group, f"{place:02}"), np.array([[n - k, 0, 0], [k, 0, 0]]))
    return cells


def finding(*tables: Sides, level: float = 0.95) -> SimpsonFinding:
    (found,) = simpson(strata(*tables), "g", "s", ["b"], level=level)
    return found


def times(cells: Cells, count: int) -> Cells:
    out = Cells(cells.axes)
    for key, table in cells.counts.items():
        out.put(key, table * count)
    return out


def test_berkeley_is_told_with_its_uncertainty() -> None:
    """Bickel, Hammel and O'Connell: within departments women fared no worse; that they fared better isn't shown."""
    (found,) = simpson(berkeley(), "sex", "department", ["M"])
    assert found.strata["A"] == pytest.approx(0.203468, abs=1e-6)
    assert sum(value > 0 for value in found.strata.values()) == 4
    assert (found.difference, found.adjusted) == (pytest.approx(-0.141645, abs=1e-6), pytest.approx(0.018425, abs=1e-6))
    assert (found.reverses, found.confounded, found.shown) == (True, False, False)
    assert found.difference_upper < 0, "in all they fared worse"
    assert found.change_upper < 0, "and that goes with the departments"
    assert found.adjusted_lower < 0 < found.adjusted_upper
    (found,) = simpson(times(berkeley(), 20), "sex", "department", ["M"])
    assert (found.reverses, found.shown) == (True, True), "twenty times the rows"


@pytest.mark.parametrize(
    ("tables", "reverses", "confounded"),
    [
        ([((78, 800), (20, 200)), ((118, 200), (480, 800))], False, True),  # .1/.1 and .59/.6: a tenth stays
        ([((85, 800), (20, 200)), ((125, 200), (480, 800))], True, False),  # better within both
        ([((80, 800), (40, 200)), ((80, 200), (400, 800))], False, True),  # −.1 within, −.28 in all
        ([((50, 100), (400, 800)), ((200, 800), (25, 100))], False, True),  # nothing is left within
        ([((100, 500), (150, 500)), ((100, 500), (150, 500))], False, False),  # nothing to do with the strata
        ([((1, 5), (3, 5)), ((3, 5), (3, 4))], False, False),  # too few rows to show anything
    ],
)
def test_confounding_is_told_from_reversal(tables: list[Sides], reverses: bool, confounded: bool) -> None:
    found = finding(*tables)
    assert (found.reverses, found.confounded) == (reverses, confounded)
    assert found.adjusted_lower <= found.adjusted <= found.adjusted_upper
    assert found.difference_lower <= found.difference <= found.difference_upper
    assert found.change_lower <= found.change <= found.change_upper
    assert found.change == pytest.approx(found.difference - found.adjusted)


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_fairlearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 500
    group, stratum = rng.choice(["a", "b"], rows, p=[0.3, 0.7]), rng.choice(list("xyz"), rows)
    outcome = (rng.random(rows) < np.where(stratum == "x", 0.2, 0.7)).astype(int)
    cells = Cells(("g", "s"))
    for g, s, y in zip(group.tolist(), stratum.tolist(), outcome.tolist(), strict=True):
        cells.put((g, s), np.array([[1 - y, 0, 0], [y, 0, 0]]))
    (found,) = simpson(cells, "g", "s", ["b"])
    frame = MetricFrame(metrics=selection_rate, y_true=outcome, y_pred=outcome, sensitive_features=group)
    assert found.difference == pytest.approx(frame.by_group["a"] - frame.by_group["b"])
    about = {"sensitive_features": group, "control_features": stratum}
    rates = MetricFrame(metrics=selection_rate, y_true=outcome, y_pred=outcome, **about).by_group.unstack()
    assert found.strata == pytest.approx((rates["a"] - rates["b"]).to_dict())
    n = {(g, s): ((group == g) & (stratum == s)).sum() for g in "ab" for s in "xyz"}
    weight = np.array([n["a", s] * n["b", s] / (n["a", s] + n["b", s]) for s in "xyz"])
    assert found.adjusted == pytest.approx((weight * (rates["a"] - rates["b"])).sum() / weight.sum())


def test_groups_that_are_spread_alike_have_no_change() -> None:
    found = finding(((100, 500), (150, 500)), ((20, 50), (25, 50)))
    assert (found.change, found.change_lower, found.change_upper) == (pytest.approx(0, abs=1e-12), 0.0, 0.0)


def test_strata_of_one_side_alone_count_in_all_and_not_within() -> None:
    found = finding(((50, 100), (50, 100)), ((0, 0), (380, 400)), ((5, 200), (0, 0)))
    assert (found.difference, found.adjusted) == (pytest.approx(55 / 300 - 430 / 500), 0.0)
    assert found.change_upper < -0.39
    assert (found.confounded, found.reverses) == (True, False)
    assert [value == value for value in found.strata.values()] == [True, False, False]


def test_without_a_stratum_of_both_nothing_is_adjusted() -> None:
    found = finding(((50, 100), (0, 0)), ((0, 0), (5, 100)))
    assert np.isnan(found.adjusted)
    assert np.isnan(found.change)
    assert (found.reverses, found.confounded, found.shown) == (False, False, False)
    assert (found.adjusted_lower, found.adjusted_upper) == (-1.0, 1.0)
    assert (found.change_lower, found.change_upper) == (-2.0, 2.0)
    assert simpson(strata(((5, 10), (5, 10))), "g", "s", ["z"]) == []


def test_strata_count_by_their_weight_however_many() -> None:
    """Mantel and Haenszel's weights: 6 × 6 / 12 = 3 in each of ten, 100 × 100 / 200 = 50 in each of sixty-four."""
    tables: list[Sides] = [((3, 6), (2, 6))] * 10 + [((40, 100), (50, 100))] * 64
    found = finding(*tables)
    assert found.adjusted == pytest.approx((10 * 3 / 6 - 64 * 50 * 0.1) / (10 * 3 + 64 * 50))
    assert found.difference == pytest.approx((30 + 64 * 40) / 6460 - (20 + 64 * 50) / 6460)
    assert (found.change, found.change_lower, found.change_upper) == (pytest.approx(0, abs=1e-12), 0, 0)  # equal shares


def test_a_stratum_with_few_rows_counts_and_is_not_told() -> None:
    cells = strata(((50, 100), (60, 100)), ((1, 4), (30, 100)))
    (found,) = simpson(cells, "g", "s", ["b"], 10)
    assert np.isnan(found.strata["01"])
    assert found.adjusted == pytest.approx((50 * -0.1 + 400 / 104 * -0.05) / (50 + 400 / 104))


def test_a_stratum_with_just_enough_rows_is_told() -> None:
    cells = strata(((50, 100), (60, 100)), ((1, 10), (5, 10)), ((1, 9), (5, 10)), ((1, 10), (5, 9)))
    (found,) = simpson(cells, "g", "s", ["b"], 10)
    assert found.strata == pytest.approx({"00": -0.1, "01": -0.4, "02": np.nan, "03": np.nan}, nan_ok=True)


def test_the_three_intervals_share_the_level_evenly() -> None:
    """Of linear contrasts written out by hand: in all, within, and the former less the latter."""
    found = finding(((30, 120), (90, 200)), ((70, 80), (100, 150)), ((0, 0), (7, 10)), level=0.91)
    k, n = ((30, 90), (70, 100), (0, 7)), ((120, 200), (80, 150), (0, 10))
    share = np.array(n) / np.sum(n, 0)
    within = np.array([120 * 200 / 320, 80 * 150 / 230, 0]) / (120 * 200 / 320 + 80 * 150 / 230)
    change = (share - within[:, None]) * (1, -1)

    def flat(*pairs: Any) -> tuple[float, ...]:
        return tuple(float(x) for pair in pairs for x in pair)

    contrasts = [
        RateContrast((100.0, 197.0), (200.0, 360.0)),
        RateContrast(flat(*k[:2]), flat(*n[:2]), flat(*((w, -w) for w in within[:2]))),
    ]
    whole, around = intervals([Question((one,), "difference") for one in contrasts], [0.03] * 2)
    less = contrast_region(*(np.array(flat(*rows)) for rows in (k, n, change)), 0.03)
    assert (found.difference_lower, found.difference_upper) == pytest.approx(tuple(whole), abs=1e-5)
    assert (found.adjusted_lower, found.adjusted_upper) == pytest.approx(tuple(around), abs=1e-5)
    assert (found.change_lower, found.change_upper) == pytest.approx(tuple(less), abs=1e-5)
    (named,) = simpson(
        strata(((30, 120), (90, 200)), ((70, 80), (100, 150)), ((0, 0), (7, 10))), "g", "s", ["b"], level={"a": 0.91}
    )
    assert (named.change_lower, named.adjusted_upper) == (found.change_lower, found.adjusted_upper)


def judged(difference: float, adjusted: float, change: Interval = Interval(0.1, 0.2)) -> SimpsonFinding:
    return _finding(("g", "a", "b", "s", difference), adjusted, {}, [Interval(0.1, 0.3), Interval(-0.3, -0.1), change])


@pytest.mark.parametrize(
    ("difference", "adjusted", "reverses", "confounded"),
    [
        (0.25, 0.125, False, True),  # half of it is the strata's doing: that counts as much
        (0.25, 0.126, False, False),
        (-0.25, -0.125, False, True),
        (0.25, 0.0, False, True),
        (0.25, -0.001, True, False),
        (0.01, -0.2, False, False),  # a hundredth is nothing to explain
        (0.01, 0.0, False, False),
        (0.0101, -0.2, True, False),
        (0.011, 0.0, False, True),
    ],
)
def test_what_is_called_a_reversal_and_what_confounding(
    difference: float, adjusted: float, reverses: bool, confounded: bool
) -> None:
    found = judged(difference, adjusted)
    assert (found.reverses, found.confounded, found.shown) == (reverses, confounded, True)


@pytest.mark.parametrize("interval", [Interval(0.0, 0.2), Interval(-0.2, 0.0), Interval(-0.1, 0.1)])
def test_an_interval_that_has_zero_shows_nothing(interval: Interval) -> None:
    assert not judged(0.25, 0.0, interval).confounded
    head = ("g", "a", "b", "s", 0.25)
    for ends in ([interval, Interval(0.1, 0.2)], [Interval(0.1, 0.2), interval]):
        assert not _finding(head, 0.1, {}, [*ends, Interval(0.1, 0.2)]).shown


RATES, SHARES = np.array([[0.7, 0.7], [0.2, 0.2]]), np.array([[0.05, 0.3], [0.45, 0.2]])
"""Favoured alike within strata; (stratum, group): shares of all rows."""


def test_no_look_is_likelier_to_miss_than_the_level() -> None:
    """Truth: nothing within strata, a difference in all. Twelve looks at each of the runs."""
    rng, runs, missed, fixed = np.random.default_rng(4), 40, 0, 0
    for _ in range(runs):
        n = k = np.zeros((2, 2), np.int64)
        any_missed = any_fixed = False
        for _ in range(12):
            more = rng.multinomial(60, SHARES.ravel()).reshape(2, 2)
            n, k = n + more, k + rng.binomial(more, RATES)
            if n.min() < 2:
                continue
            found = finding(*(((k[s, 0], n[s, 0]), (k[s, 1], n[s, 1])) for s in (0, 1)), level=0.8)
            share = n / n.sum(0)
            change = float((share * RATES)[:, 0].sum() - (share * RATES)[:, 1].sum())
            any_missed |= not (
                found.adjusted_lower <= 0 <= found.adjusted_upper and found.change_lower <= change <= found.change_upper
            )
            w = n[:, 0] * n[:, 1] / n.sum(1)
            p = k / n
            error = np.sqrt(((w / w.sum()) ** 2 * (p * (1 - p) / n).sum(1)).sum())
            any_fixed |= abs(found.adjusted) > 1.2816 * error
        missed += any_missed
        fixed += any_fixed
    assert missed / runs <= 0.2
    assert fixed / runs > 0.2, "an interval of one look misses at some look more often than it says"


RULES: dict[str, Any] = {
    "protectedAttributes": [{"name": "g", "privileged": ["b"]}],
    "strata": ["s"],
    "favorableOutcome": {"label": "yes"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    "minSamples": 1,
}


def test_the_verdict_tells_the_change_with_its_interval() -> None:
    cells = strata(((78, 800), (20, 200)), ((118, 200), (480, 800)))
    (told,) = wire(judge(Bias.model_validate(RULES), cells))["strata"]  # type: ignore[misc,attr-defined]
    assert told["changeLower"] < told["change"] < told["changeUpper"] < 0
    assert told["differenceLower"] < told["difference"] < told["differenceUpper"] < 0
    assert told["confounded"] is True


def test_the_level_of_a_groups_intervals_does_not_hang_on_later_groups() -> None:
    """A group that comes later takes nothing from those that are there."""
    cells = strata(((780, 8000), (200, 2000)), ((1180, 2000), (4800, 8000)))
    alone = judge(Bias.model_validate(RULES), cells).strata[0]
    cells.put(("later", "00"), np.array([[400, 0, 0], [400, 0, 0]]))
    both = next(s for s in judge(Bias.model_validate(RULES), cells).strata if s.group == "a")
    assert both == alone


def test_in_more_strata_than_can_be_asked_about_the_paradox_is_not_shown() -> None:
    found = finding(*[((10, 40), (20, 20))] * 1001)
    assert (found.shown, found.confounded, found.difference_upper < 0) == (False, False, True)
    assert (found.adjusted_lower, found.adjusted_upper) == (-1.0, 1.0)
    assert (found.change_lower, found.change_upper) == (0.0, 0.0), "both are spread alike"
    assert found.adjusted == pytest.approx(-0.75), "the value counts them all"


# ---- regions: contrasts of any weights at each look ----


@pytest.mark.parametrize("seed", range(8))
def test_a_region_ends_where_the_likelihood_says(seed: int) -> None:
    """Against a general optimiser over the region's definition."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 60, 4).astype(float)
    k = np.array([rng.integers(0, one + 1) for one in n], float)
    weights = rng.normal(size=4)
    found = contrast_region(k, n, weights, 0.05)

    def log_e(p: np.ndarray) -> float:
        mixture = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5)
        return float((mixture - xlogy(k, p) - xlog1py(n - k, -p)).sum())

    inside = {"type": "ineq", "fun": lambda p: np.log(20) - log_e(p)}
    start = np.clip(k / n, 0.02, 0.98)
    for end, sign in ((found.lower, 1), (found.upper, -1)):
        best = minimize(
            lambda p, sign=sign: sign * (weights @ p), start, bounds=[(1e-9, 1 - 1e-9)] * 4, constraints=[inside],
            method="SLSQP", options={"maxiter": 500, "ftol": 1e-12},
        )  # fmt: skip
        assert sign * best.fun == pytest.approx(end, abs=2e-4)


@pytest.mark.parametrize("k", [0.0, 3.0, 10.0])
def test_a_region_of_one_rate_is_in_the_range_and_of_no_weight_nothing(k: float) -> None:
    one, ten = np.array([1.0]), np.array([10.0])
    found = contrast_region(np.array([k]), ten, one, 0.05)
    assert 0 <= found.lower <= k / 10 <= found.upper <= 1
    assert (found.lower == pytest.approx(0, abs=1e-9), found.upper == pytest.approx(1, abs=1e-9)) == (k == 0, k == 10)
    assert tuple(contrast_region(np.array([k]), ten, one * 0, 0.05)) == (0.0, 0.0)
    assert tuple(contrast_region(np.array([0.0]), ten * 0, one, 0.05)) == (0.0, 1.0)


def test_a_region_ends_within_what_the_weights_allow_whatever_rounding_adds() -> None:
    """Rates of 0 and 1 lie in these regions; the same weights, summed in another order, come out 2e-16 beyond."""
    k, n, weights = (np.array(x) for x in ((3.0, 0, 0, 2), (3.0, 0, 3, 2), (-0.5, -0.9, 0.8, -0.4)))
    lower, least = contrast_region(k, n, weights, 0.05).lower, np.minimum(weights, 0).sum()
    assert (lower, lower >= least) == (pytest.approx(least, abs=1e-9), True)
    k, n, weights = (np.array(x) for x in ((0.0, 3, 0, 0, 3), (0.0, 3, 1, 0, 3), (0.1, 0.3, -0.4, 0.3, 0.2)))
    upper, most = contrast_region(k, n, weights, 0.05).upper, np.maximum(weights, 0).sum()
    assert (upper, upper <= most) == (pytest.approx(most, abs=1e-9), True)


def test_no_choice_of_weights_after_looking_makes_a_region_miss_oftener() -> None:
    """At each look the weights are those that make the truth look worst: signs and sizes by what was counted."""
    rng, rates, missed = np.random.default_rng(3), np.array([0.2, 0.5, 0.7, 0.9]), 0
    for _ in range(100):
        n = k = np.zeros(4)
        out = False
        for look in range(20):
            more = rng.multinomial(int(10 * 1.25**look), [0.4, 0.3, 0.2, 0.1])
            n, k = n + more, k + rng.binomial(more, rates)
            weights = (k / np.maximum(n, 1) - rates) * n  # towards where the counts err
            found = contrast_region(k, n, weights, 0.1)
            out |= not found.lower <= weights @ rates <= found.upper
        missed += out
    assert missed <= 10

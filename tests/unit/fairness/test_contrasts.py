"""Evidence about rates is exact: by enumeration of everything that can happen, by brute force, and on the cases that
broke its forerunner."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom

from governed_serving.fairness.inference.contrasts import _marginals, _Paired, log_evidence, lower_end
from governed_serving.fairness.inference.intervals import Interval, rate_ratio
from governed_serving.fairness.metrics.sequences import (
    Form,
    Question,
    RateContrast,
    evidences,
    intervals,
)
from unit.fairness.asking import metric_evidence, metric_sequence

SPD, DIR = "statisticalParityDifference", "disparateImpactRatio"


def table(k: int, n: int) -> np.ndarray:
    return np.array([[0, 0, n - k], [0, 0, k]])


def test_25_rejections_are_not_worth_more_than_their_likelihood() -> None:
    """Of f 0 of 25, of m 368 of 1,225, ±.1: no rate of f below .2 can be told from .2 by a ratio above .8⁻²⁵ = 265;
    e-value 47,529 once."""
    f, m = table(0, 25), table(368, 1225)
    evidence = metric_evidence(SPD, f, m, -0.1, 0.1)
    assert evidence < -25 * np.log(0.8)
    assert evidence < np.log(20)
    interval = metric_sequence(SPD, f, m, 0.95)
    assert interval.lower < -0.3 < -0.1 < interval.upper


def test_5_of_10_against_95_of_190_says_next_to_nothing() -> None:
    interval = metric_sequence(SPD, table(5, 10), table(95, 190), 0.95)
    assert interval.lower < -0.4
    assert interval.upper > 0.4


ORDERS = {
    "in turn": lambda step: step % 2,
    "sorted": lambda step: int(step >= 20),
    "reference first": lambda step: int(step < 20),
    "a small group": lambda step: int(step % 5 > 0),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("question", "bounds", "truth"),
    [
        ("difference", (-0.1, 0.1), (0.2, 0.3)),
        ("difference", (-0.1, 0.1), (0.02, 0.12)),
        ("difference", (-0.1, 0.1), (0.95, 0.85)),
        ("difference", (0.0, 0.0), (0.5, 0.5)),
        ("ratio", (0.8, 1.25), (0.4, 0.5)),
        ("ratio", (0.8, 1.25), (0.04, 0.05)),
    ],
)
def test_no_false_alarm_is_likelier_than_promised(
    order: str, question: str, bounds: tuple[float, float], truth: tuple[float, float]
) -> None:
    """All that can happen in 40 rows, a look after each, with its probability: the truth lies on the bound."""
    weights = (1.0, -1.0) if question == "difference" else None
    chance = np.zeros((41, 41))
    chance[0, 0] = 1.0
    levels = (0.5, 0.2, 0.05)
    alive = {alpha: chance.copy() for alpha in levels}
    n = [0, 0]
    for step in range(40):
        side = ORDERS[order](step)
        n[side] += 1
        chance = _one_row(chance, side, truth[side])
        alive = {alpha: _one_row(left, side, truth[side]) for alpha, left in alive.items()}
        states = [(i, j) for i, j in product(range(n[0] + 1), range(n[1] + 1)) if chance[i, j] > 0]
        asked = [Question((RateContrast((i, j), (n[0], n[1]), weights),), question) for i, j in states]  # type: ignore[arg-type]
        values = np.array(evidences(asked, [bounds] * len(asked)))
        mean = sum(chance[s] * np.exp(v) for s, v in zip(states, values, strict=True))
        assert mean <= 1.0 + 1e-9, f"the mean of the e-value is {mean} after {n}"
        for alpha, left in alive.items():
            for state, value in zip(states, values, strict=True):
                if value >= -np.log(alpha):
                    left[state] = 0.0
    for alpha, left in alive.items():
        assert 1 - left.sum() <= alpha


def _one_row(chance: np.ndarray, side: int, rate: float) -> np.ndarray:
    return (1 - rate) * chance + rate * np.roll(chance, 1, axis=side)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 4000), st.floats(0, 1), st.floats(0, 1),
    st.floats(-0.6, 0.6), st.sampled_from([1.0, -1.0]),
)  # fmt: skip
def test_the_infimum_is_over_the_whole_hypothesis(
    n1: int, n0: int, x: float, y: float, bound: float, sign: float
) -> None:
    """Against a grid over all rates of the hypothesis, its inside too: none gives less evidence than what is told."""
    from governed_serving.fairness.inference.contrasts import _marginals, _Problem

    k, n = np.array([[round(x * n1), round(y * n0)]], float), np.array([[n1, n0]], float)
    a = sign * np.array([[1.0, -1.0]])
    found = float(log_evidence(k, n, a, [bound])[0])
    ticks = np.concatenate([[1e-9, 1e-6, 1e-4, 1e-3], np.linspace(0.01, 0.99, 50), [0.999, 0.9999, 1 - 1e-6]])
    points = np.array(list(product(ticks, ticks)))
    points = points[points @ a[0] <= bound]
    if not len(points):
        return
    many = (np.repeat(x, len(points), 0) for x in (k, n, np.sign(a), _marginals(k, n)))
    values = _Problem(*many).value(points)
    assert found <= values.min() + 1e-9


def test_the_infimum_is_found_where_it_is() -> None:
    from governed_serving.fairness.inference.contrasts import _marginals, _Problem

    rng = np.random.default_rng(0)
    for _ in range(6):
        n = np.array([[rng.integers(5, 300), rng.integers(100, 5000)]], float)
        k = np.array([[rng.binomial(int(n[0, 0]), 0.1), rng.binomial(int(n[0, 1]), 0.5)]], float)
        border = np.linspace(1e-7, 0.9 - 1e-7, 8_001)
        points = np.stack([border, border + 0.1], -1)
        many = (np.repeat(x, len(points), 0) for x in (k, n, np.array([[-1.0, 1.0]]), _marginals(k, n)))
        least = _Problem(*many).value(points).min()
        assert log_evidence(k, n, [[-1, 1]], [0.1])[0] == pytest.approx(least, abs=3e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(300, 900), st.integers(0, 40), st.integers(40, 900), st.floats(0.01, 0.4))
def test_groups_and_reference_may_be_exchanged(k1: int, n1: int, k0: int, n0: int, alpha: float) -> None:
    here, there = (
        intervals([Question((RateContrast((k1, k0), (n1, n0), w),), "difference")], [alpha])[0]  # type: ignore[arg-type]
        for w in ((1.0, -1.0), (-1.0, 1.0))
    )
    assert (here.lower, here.upper) == pytest.approx((-there.upper, -there.lower), abs=1e-3)


@pytest.mark.parametrize("scale", [1, 100, 10_000, 1_000_000])
def test_intervals_close_in_on_the_truth_at_any_size(scale: int) -> None:
    """And stay exact to the last digit that counts: 10⁹ rows."""
    u, p = table(300 * scale, 1000 * scale), table(400 * scale, 1000 * scale)
    interval = metric_sequence(SPD, u, p, 0.95)
    assert interval.lower < -0.1 < interval.upper
    standard = np.sqrt((0.3 * 0.7 + 0.4 * 0.6) / (1000 * scale))
    assert 2.5 * standard < interval.upper - -0.1 < 8 * standard
    ratio = metric_sequence(DIR, u, p, 0.95)
    assert ratio.lower < 0.75 < ratio.upper


def test_undefined_rates_bound_nothing_and_prove_nothing() -> None:
    assert metric_sequence(SPD, table(0, 0), table(5, 9), 0.95) == (-1.0, 1.0)
    assert metric_sequence(DIR, table(0, 40), table(0, 400), 0.95) == (0.0, np.inf)
    assert metric_evidence(SPD, table(0, 0), table(5, 9), -0.1, 0.1) == -np.inf
    assert metric_evidence(DIR, table(0, 40), table(0, 400), 0.8, 1.25) == -np.inf


def test_one_looks_ratio_has_a_width_when_everyone_is_favoured() -> None:
    interval = rate_ratio(20, 20, 30, 30)
    assert 0.8 < interval.lower < 0.95
    assert 1.05 < interval.upper < 1.2


@pytest.mark.parametrize(
    ("rates", "share", "least"),
    [((0.35, 0.5), 0.5, 4.2), ((0.3, 0.5), 0.5, 4.2), ((0.2, 0.5), 0.5, 4.1),
     ((0.35, 0.5), 0.05, 2.8), ((0.3, 0.5), 0.05, 2.9), ((0.2, 0.5), 0.05, 2.8)],
)  # fmt: skip
def test_evidence_grows_about_as_fast_as_it_can(rates: tuple[float, float], share: float, least: float) -> None:
    """Counts as expected, at 1.5 times the rows of a score test against ±.1 with one look, 5 % and 80 % power: a
    mixture that knew the truth would have 5.2 to 5.8."""
    (u, p), shares = rates, np.array([share, 1 - share])
    variances = np.array([u * (1 - u), p * (1 - p)]) / shares
    null = u + (p - u - 0.1) * variances[0] / variances.sum() + np.array([0.0, 0.1])
    rows = (1.96 * np.sqrt((null * (1 - null) / shares).sum()) + 0.8416 * np.sqrt(variances.sum())) ** 2
    n = 1.5 * rows / (p - u - 0.1) ** 2 * shares
    for turn in (1, -1):  # the group may be either side
        found = log_evidence([(n * rates)[::turn]], [n[::turn]], [[-turn, turn]], [0.1])[0]
        assert found > least


def test_an_end_is_excluded_and_what_lies_inside_is_not() -> None:
    k, n = np.array([[30.0, 90.0]]), np.array([[200.0, 300.0]])
    weights = np.array([[-1.0, 1.0]])
    threshold = np.log([200.0])
    end = lower_end(lambda t, rows: log_evidence(k[rows], n[rows], weights[rows], t), [-1.0], [0.15], [0.04], threshold)
    assert log_evidence(k, n, weights, end) >= threshold
    assert log_evidence(k, n, weights, end + 2e-4) < threshold


def test_ten_small_groups_on_the_bound_do_not_fail() -> None:
    """Ten groups of 2 % at SPD .2/.3, looks from 200 to 10,000 rows, each at .05: 29.5 % of runs failed with plugged-in
    variances."""
    rng = np.random.default_rng(0)
    runs, groups, failed = 60, 10, 0
    looks = np.unique(np.geomspace(200, 10_000, 20).astype(int))
    for _ in range(runs):
        n = np.zeros(groups + 1, int)
        k = np.zeros(groups + 1, int)
        worst, seen = -np.inf, 0
        for look in looks:
            new = rng.multinomial(look - seen, [0.02] * groups + [0.8])
            n, k, seen = n + new, k + rng.binomial(new, [0.2] * groups + [0.3]), look
            asked = [Question((RateContrast((k[g], k[-1]), (n[g], n[-1])),), "difference") for g in range(groups)]
            worst = max(worst, *evidences(asked, [(-0.1, 0.1)] * groups))
        failed += worst >= np.log(groups / 0.05)
    assert failed <= binom.ppf(0.999, runs, 0.05)
    assert failed <= 4


# ---- several pairs ----

WITHIN = np.array([0.6, -0.6, 0.4, -0.4])


@pytest.mark.parametrize("weights", [WITHIN, np.array([0.5, -0.2, 0.5, -0.8]), np.array([0.6, -0.6, 0.4, -0.7, 0.3])])
@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_no_false_alarm_is_likelier_than_promised_within_strata(weights: np.ndarray, order: str) -> None:
    """Everything that can happen in three rows of each kind, a look after each row, the truth on the bound of .1."""
    size, rows, places = len(weights), 3, range(len(weights))
    truth = np.where(weights > 0, 0.55, 0.4)
    truth[0] += (0.1 - truth @ weights) / weights[0]
    assert ((truth > 0) & (truth < 1)).all()
    steps = list(places) * rows if order == "in turn" else sorted(list(places) * rows)
    counts = {tuple([0] * size): 1.0}
    alive = {alpha: dict(counts) for alpha in (0.5, 0.2)}
    n = np.zeros(size)
    for kind in steps:
        n[kind] += 1
        for alpha, paths in alive.items():
            new: dict[tuple[int, ...], float] = {}
            for k, chance in paths.items():
                for case in (0, 1):
                    after = tuple(v + case * (i == kind) for i, v in enumerate(k))
                    new[after] = new.get(after, 0.0) + chance * (truth[kind] if case else 1 - truth[kind])
            k_all = np.array(list(new))
            found = log_evidence(
                k_all,
                np.repeat(n[None], len(k_all), 0),
                np.repeat(weights[None], len(k_all), 0),
                np.full(len(k_all), 0.1),
            )
            alive[alpha] = {k: chance for (k, chance), e in zip(new.items(), found, strict=True) if e < -np.log(alpha)}
    for alpha, paths in alive.items():
        assert 1 - sum(paths.values()) <= alpha + 1e-12


@pytest.mark.parametrize("size", [4, 5, 6])
def test_the_infimum_over_strata_is_found_where_it_is(size: int) -> None:
    """The bound that is returned is below what a solver of its own finds on the border, and close to it."""
    rng = np.random.default_rng(size)
    a = np.where(np.arange(size) % 2 == 0, 1.0, -1.0) * rng.uniform(0.2, 0.6, size)
    n = rng.integers(20, 400, size).astype(float)
    k = np.floor(n * np.where(a > 0, 0.7, 0.3))
    problem = _Paired(k[None], n[None], np.sign(a)[None], _marginals(k[None], n[None]))
    bound = 0.3 * np.maximum(a, 0).sum() + 0.4 * np.minimum(a, 0).sum()
    found = log_evidence(k[None], n[None], a[None], [bound])[0]
    border = {"type": "eq", "fun": lambda p: p @ a - bound, "jac": lambda _: a}
    best = min(
        minimize(
            lambda p: problem.value(p[None])[0],
            start,
            jac=lambda p: problem.derivatives(p[None])[1][0],
            method="SLSQP",
            constraints=[border],
            bounds=[(1e-6, 1 - 1e-6)] * size,
        ).fun
        for start in (np.where(a > 0, 0.4, 0.5), np.full(size, 0.45))
    )
    assert found <= best + 1e-6
    assert found == pytest.approx(best, abs=2e-2)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 90, 91])  # few are solved as a whole, many by their parts
def test_slopes_of_the_mixture_are_those_of_its_value(size: int) -> None:
    rng = np.random.default_rng(size)
    n = rng.integers(5, 400, (3, size)).astype(float)
    k = rng.binomial(n.astype(int), 0.4).astype(float)
    problem = _Paired(k, n, np.sign(rng.normal(size=(3, size))), _marginals(k, n))
    p, step = rng.uniform(0.2, 0.7, (3, size)), 1e-5 * np.eye(size)
    f, g, curvature = problem.derivatives(p)
    assert f == pytest.approx(problem.value(p))
    sides = [(problem.derivatives(p + s), problem.derivatives(p - s)) for s in step]
    slopes = np.stack([(up[0] - down[0]) / 2e-5 for up, down in sides], 1)
    bends = np.stack([(up[1] - down[1]) / 2e-5 for up, down in sides], 1)
    assert g == pytest.approx(slopes, rel=1e-5, abs=1e-5)
    hessian = np.matmul(curvature.parts.swapaxes(1, 2), curvature.parts)
    places, pairs = np.arange(size), np.arange(size // 2)
    hessian[:, places, places] += curvature.diagonal
    hessian[:, 2 * pairs, 2 * pairs + 1] += curvature.beside
    hessian[:, 2 * pairs + 1, 2 * pairs] += curvature.beside
    assert hessian == pytest.approx(bends, rel=1e-5, abs=1e-5 * float(np.abs(hessian).max()))
    assert np.linalg.eigvalsh(hessian).min() > -1e-6, "convex"
    right = rng.normal(size=(3, 2, size))
    solved = curvature._replace(diagonal=curvature.diagonal + 1e-3).solve(right)
    assert np.matmul(solved, hessian + 1e-3 * np.eye(size)) == pytest.approx(right, rel=1e-6, abs=1e-6)


def test_groups_of_other_shares_in_each_stratum_are_served() -> None:
    """Berkeley's departments: the interval of the adjusted difference is at most 2.6 times one look's."""
    women = np.array([(89, 108), (17, 25), (202, 593), (131, 375), (94, 393), (24, 341)]) * 10
    men = np.array([(512, 825), (353, 560), (120, 325), (138, 417), (53, 191), (22, 373)]) * 10
    weight = women[:, 1] * men[:, 1] / (women[:, 1] + men[:, 1])
    weight = weight / weight.sum()
    k, n, w = (
        np.stack(pair, 1).ravel() for pair in ((women[:, 0], men[:, 0]), (women[:, 1], men[:, 1]), (weight, -weight))
    )
    question = Question((RateContrast(tuple(k.tolist()), tuple(n.tolist()), tuple(w.tolist())),), "difference")
    (found,) = intervals([question], [0.05])
    error = np.sqrt((w**2 * (k / n) * (1 - k / n) / n).sum())
    assert found.upper - found.lower < 2.6 * 2 * 1.96 * error


@pytest.mark.parametrize("form", ["largestDifference", "leastRatio"])
def test_of_nothing_compared_anything_may_hold(form: Form) -> None:
    assert intervals([Question((), form, ())], [0.05]) == [Interval(0.0, 1.0)]

"""Intervals and tests against scipy and statsmodels."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import (
    binomial_sequence,
    clopper_pearson,
    rate_difference,
    rate_ratio,
)
from governed_serving.fairness.inference.special import beta_quantile, chi_square_tail, incomplete_beta

counts = st.integers(0, 400)


@settings(deadline=None)
@given(st.floats(0.001, 500), st.integers(1, 200))
def test_chi_square_tail(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(scipy.stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-14)


@settings(deadline=None)
@given(st.floats(0.1, 3000), st.floats(0.1, 3000), st.floats(0.0, 1.0))
def test_incomplete_beta(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(scipy.special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 500), st.integers(1, 500))
def test_beta_quantile(p: float, a: int, b: int) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(scipy.stats.beta.ppf(p, a, b), abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 300), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_of_a_rate(k: int, n: int, level: float) -> None:
    k = min(k, n)
    expected = proportion_confint(k, n, 1 - level, "beta")
    assert tuple(clopper_pearson(k, n, level)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("n", [10, 11, 27, 60, 300])
def test_the_interval_of_a_rate_covers(n: int) -> None:
    """Wilson's holds .898 of 11 rows at .05 and of 27 at .02."""
    ends = [clopper_pearson(k, n) for k in range(n + 1)]
    for p in RATES:
        chances = scipy.stats.binom.pmf(np.arange(n + 1), n, p)
        assert sum(c for c, (low, high) in zip(chances, ends, strict=True) if low <= p <= high) >= 0.95


RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
SIZES = [(10, 10), (10, 20), (20, 20), (30, 10), (10, 300), (300, 10), (60, 60)]


@pytest.mark.parametrize("sizes", SIZES)
def test_intervals_of_a_difference_and_a_ratio_cover(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all outcomes, without simulation. Newcombe's holds .880 of 20 and 20 rows at .02 and .98; Katz's .304 of
    10 and 300 at .98 and .98."""
    monkeypatch.setattr("governed_serving.fairness.inference.intervals.clopper_pearson", cache(clopper_pearson))
    n1, n0 = sizes
    every = [(k1, k0) for k1 in range(n1 + 1) for k0 in range(n0 + 1)]
    around = np.array([(*rate_difference(k1, n1, k0, n0), *rate_ratio(k1, n1, k0, n0)) for k1, k0 in every])
    least, slack = [1.0, 1.0], 1e-12
    for p1, p0 in itertools.product(RATES, RATES):
        chance = np.outer(*(scipy.stats.binom.pmf(np.arange(n + 1), n, p) for n, p in ((n1, p1), (n0, p0)))).ravel()
        for place, truth in enumerate((p1 - p0, p1 / p0)):
            low, high = around[:, 2 * place], around[:, 2 * place + 1]
            held = (low <= truth + slack) & (truth - slack <= high)
            least[place] = min(least[place], float(chance[held].sum()))
    assert least[0] >= 0.935
    assert least[1] >= 0.95


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(80, 200), st.integers(0, 80), st.integers(80, 200))
def test_a_difference_from_exact_limits(k1: int, n1: int, k0: int, n0: int) -> None:
    """By Zou & Donner's (2008) formula, from statsmodels' limits."""
    (l1, u1), (l0, u0) = (proportion_confint(k, n, 0.05, "beta") for k, n in ((k1, n1), (k0, n0)))
    p1, p0 = k1 / n1, k0 / n0
    below, above = math.hypot(p1 - l1, u0 - p0), math.hypot(u1 - p1, p0 - l0)
    assert tuple(rate_difference(k1, n1, k0, n0)) == pytest.approx((p1 - p0 - below, p1 - p0 + above), abs=1e-7)


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(81, 200), st.integers(1, 80), st.integers(81, 200))
def test_a_ratio_from_exact_limits(k1: int, n1: int, k0: int, n0: int) -> None:
    ends = [proportion_confint(k, n, 0.05, "beta") for k, n in ((k1, n1), (k0, n0))]
    (l1, u1), (l0, u0) = np.log(ends)
    p1, p0 = math.log(k1 / n1), math.log(k0 / n0)
    below, above = math.hypot(p1 - l1, u0 - p0), math.hypot(u1 - p1, p0 - l0)
    expected = math.exp(p1 - p0 - below), math.exp(p1 - p0 + above)
    assert tuple(rate_ratio(k1, n1, k0, n0)) == pytest.approx(expected, rel=1e-5)
    assert tuple(rate_ratio(k0, n0, k1, n1)) == pytest.approx((1 / expected[1], 1 / expected[0]), rel=1e-5)


def test_a_ratio_with_a_rate_of_nothing_has_the_ends_that_remain() -> None:
    one, other = clopper_pearson(3, 12), clopper_pearson(0, 40)
    assert tuple(rate_ratio(3, 12, 0, 40)) == (one.lower / other.upper, math.inf)
    assert tuple(rate_ratio(0, 40, 3, 12)) == (0.0, other.upper / one.lower)
    assert tuple(rate_ratio(0, 12, 0, 40)) == (0.0, math.inf)
    assert tuple(rate_ratio(3, 12, 0, 0)) == (0.0, math.inf)
    assert tuple(rate_difference(0, 0, 3, 12)) == (-1.0, 1.0)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 500), min_size=3, max_size=3), min_size=2, max_size=6))
def test_chi_square(table: list[list[int]]) -> None:
    expected = scipy.stats.chi2_contingency(table, correction=False)
    found = chi_square(table)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-13)


def test_confidence_sequence_of_a_rate_covers_at_all_times() -> None:
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(60):
        k = np.cumsum(rng.random(800) < 0.3)
        missed += any(
            not (low <= 0.3 <= high) for low, high in (binomial_sequence(int(k[n - 1]), n) for n in range(10, 801, 79))
        )
    assert missed <= 6

"""Intervals and tests against scipy and statsmodels."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.inference.intervals import binomial_sequence, clopper_pearson, katz, newcombe, wilson
from governed_serving.fairness.inference.special import beta_quantile, chi_square_tail, incomplete_beta, normal_quantile

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


def test_normal_quantile() -> None:
    assert normal_quantile(0.975) == pytest.approx(scipy.stats.norm.ppf(0.975), abs=1e-12)
    assert (normal_quantile(0), normal_quantile(1)) == (-math.inf, math.inf)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 300), st.sampled_from([0.9, 0.95, 0.99]))
def test_intervals_of_a_rate(k: int, n: int, level: float) -> None:
    k = min(k, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "beta")):
        assert tuple(ours(k, n, level)) == pytest.approx(proportion_confint(k, n, 1 - level, method), abs=1e-8)


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(80, 200), st.integers(0, 80), st.integers(80, 200))
def test_newcombe(k1: int, n1: int, k0: int, n0: int) -> None:
    expected = confint_proportions_2indep(k1, n1, k0, n0, compare="diff", method="newcomb")
    assert tuple(newcombe(k1, n1, k0, n0)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(81, 200), st.integers(1, 80), st.integers(81, 200))
def test_katz(k1: int, n1: int, k0: int, n0: int) -> None:
    expected = confint_proportions_2indep(k1, n1, k0, n0, compare="ratio", method="log")
    assert tuple(katz(k1, n1, k0, n0)) == pytest.approx(expected, rel=1e-9)


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

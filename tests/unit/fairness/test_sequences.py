"""What is valid at all times: coverage by simulation, agreement of interval and evidence."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.fairness.metrics.metrics import METRICS
from governed_serving.fairness.metrics.sequences import (
    DIFFERENCES,
    Mixture,
    e_benjamini_hochberg,
    mixture_evidence,
    mixture_radius,
)
from unit.fairness.asking import metric_evidence, metric_sequence

ALPHA = 0.05


def table(k: int, n: int) -> np.ndarray:
    return np.array([[0, 0, n - k], [0, 0, k]])


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(300, 900), st.integers(0, 300), st.integers(300, 900), st.floats(0.0, 0.3))
def test_evidence_and_interval_say_the_same(k1: int, n1: int, k0: int, n0: int, bound: float) -> None:
    """The interval leaves out the bounds exactly when the e-value against them reaches 1/alpha."""
    u, p = table(k1, n1), table(k0, n0)
    name = "statisticalParityDifference"
    interval = metric_sequence(name, u, p, 1 - ALPHA)
    evidence = metric_evidence(name, u, p, -bound, bound)
    outside = max(interval.lower - bound, -bound - interval.upper)
    # An end is an excluded value, by evidence a little (.004) above its threshold.
    if abs(outside) > 1e-3 and abs(interval.lower) < 1 and abs(interval.upper) < 1:
        assert (outside > 0) == (evidence > -np.log(ALPHA))


@settings(deadline=None)
@given(st.floats(1e-9, 0.2), st.floats(1e-4, 0.3))
def test_the_radius_is_where_the_evidence_reaches_its_bound(variance: float, alpha: float) -> None:
    for mixture in (DIFFERENCES, Mixture(0.2, 0.08)):
        radius = mixture_radius(variance, alpha, mixture)
        assert mixture_evidence(radius, variance, mixture) == pytest.approx(-np.log(alpha), abs=1e-6)
        assert mixture_evidence(radius * 1.01, variance, mixture) > -np.log(alpha)


def test_evidence_is_the_likelihood_averaged_over_the_mixture() -> None:
    """Against scipy's quadrature."""
    law = scipy.stats.norm
    for distance, variance in ((0.0, 0.01), (0.12, 0.001), (0.4, 0.004)):

        def bet(effect: float, d: float = distance, v: float = variance) -> float:
            chance = sum(law.pdf(effect, side * DIFFERENCES.centre, DIFFERENCES.deviation) for side in (-1, 1)) / 2
            return float(chance * law.pdf(d, effect, v**0.5) / law.pdf(d, 0, v**0.5))

        averaged, _ = scipy.integrate.quad(bet, -1, 1, points=[-0.1, 0.1, distance], limit=200)
        assert mixture_evidence(distance, variance, DIFFERENCES) == pytest.approx(np.log(averaged), rel=1e-6)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_has_an_interval_around_its_value(name: str) -> None:
    u, p = np.array([[300, 200, 5], [100, 600, 5]]), np.array([[500, 200, 9], [300, 900, 9]])
    interval = metric_sequence(name, u, p, 0.95)
    assert interval.lower <= float(METRICS[name](u, p)) <= interval.upper
    wide = metric_sequence(name, u, p, 0.999)
    assert wide.lower <= interval.lower <= interval.upper <= wide.upper


def test_composite_null_is_not_rejected_inside_its_bounds() -> None:
    """True difference .08 against |SPD| ≤ .1, looked at after every batch."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(100):
        k1, k0 = rng.binomial(10, 0.42, 300).cumsum(), rng.binomial(10, 0.5, 300).cumsum()
        looks = (
            metric_evidence(
                "statisticalParityDifference",
                table(int(k1[i]), 10 * (i + 1)),
                table(int(k0[i]), 10 * (i + 1)),
                -0.1,
                0.1,
            )
            for i in range(5, 300, 12)
        )
        false += max(looks) > -np.log(ALPHA)
    assert false <= 5


def test_one_group_without_a_case_bounds_the_ratio_from_one_side() -> None:
    interval = metric_sequence("disparateImpactRatio", table(0, 400), table(200, 400), 0.95)
    assert interval.lower == 0.0
    assert 0 < interval.upper < 0.2


def test_e_bh_needs_more_evidence_for_fewer_discoveries() -> None:
    evidence = {"a": np.log(50), "b": np.log(45), "c": 0.0, "d": -1.0}
    assert set(e_benjamini_hochberg(evidence, 0.95)) == {"a", "b"}
    assert e_benjamini_hochberg({"a": np.log(50), "c": 0.0, "d": -1.0, "e": 0.0}, 0.95) == []
    assert e_benjamini_hochberg([], 0.95) == []

"""Alarms of drift over all their looks: none without drift, whatever sample of training they share; drift is found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats

from governed_api.governance import Bias
from governed_serving.auditor.service.checks import ALL_INPUTS, Checks, MonitoringFinding
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.live import Live
from governed_serving.fairness.monitoring.drift import (
    ALARM_CHANCE,
    PROMISED_LOOKS,
    alarm_threshold,
    log_dirichlet_multinomial,
    log_evidence,
)
from governed_serving.fairness.monitoring.inputs import SCALE_ROWS, InputDrift, MeanEmbedding
from governed_serving.fairness.monitoring.monitors import DriftMonitor, Hysteresis
from governed_serving.fairness.monitoring.reference import Distribution

BIAS = Bias.model_validate(
    {
        "protectedAttributes": [{"name": "sex"}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
)
Draw = Callable[[np.random.Generator, int], dict[str, np.ndarray]]


def skewed(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {f"x{i}": np.exp(2 * rng.normal(size=rows)).astype(np.float32) for i in range(3)}


def rare(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"job": np.where(rng.random(rows) < 0.01, "diver", "clerk").astype(object)}


def looks(seed: int, draw: Draw, count: int, rows: int = 200, change: Draw | None = None) -> list[MonitoringFinding]:
    """What the auditor finds of all inputs together, look after look, against one background of 250 rows."""
    rng = np.random.default_rng(seed)
    background = {name: values.tolist() for name, values in draw(rng, 250).items()}
    checks = Checks(Live(Fold(BIAS, "r1"), None, {}), {}, None, background, None)
    found = []
    for _ in range(count):
        checks.rows((change or draw)(rng, rows), lambda _: None, ())
        found += [one for one in checks.publish() if one.subject == ALL_INPUTS]
    return found


def raised(found: list[MonitoringFinding]) -> bool:
    alarms = Hysteresis()
    return "raised" in [alarms.observe(o.subject, breach=o.breach, calm=o.calm, now=0.0) for o in found]


@pytest.mark.parametrize(("seed", "draw", "count"), [(7, skewed, 60), (8, rare, 60), (15, rare, 60)])
def test_an_unlucky_sample_of_training_raises_no_alarm(seed: int, draw: Draw, count: int) -> None:
    found = looks(seed, draw, count)
    assert not raised(found)
    assert not any(one.breach for one in found), "one look is not enough either"


def test_an_alarm_is_raised_by_a_change_of_dependence_and_ends_with_it() -> None:
    def independent(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        return {f"x{i}": rng.normal(size=rows).astype(np.float32) for i in range(8)}

    def tied(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        found = independent(rng, rows)
        return {**found, "x1": (0.8 * found["x0"] + 0.6 * found["x1"]).astype(np.float32)}

    assert raised(looks(0, independent, 3, change=tied))
    assert all(one.calm for one in looks(0, independent, 5))


# ---- the e-values ----


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.01, 0.99), (0.2, 0.3, 0.5), (1.0, 0.0)])
def test_the_mean_of_the_evidence_of_two_histograms_is_at_most_one(p: tuple[float, ...]) -> None:
    """Summed over all that may come of 6 and 5 rows."""

    def sequences(n: int) -> list[tuple[np.ndarray, float]]:
        tables = [t for t in np.ndindex(*[n + 1] * len(p)) if sum(t) == n]
        return [(np.array(t), scipy.stats.multinomial.pmf(t, n, p)) for t in tables]

    mean = sum(a * b * np.exp(log_evidence(c, d)) for c, a in sequences(6) for d, b in sequences(5))
    assert 0 < mean <= 1


def test_the_law_of_fresh_counts_between_order_statistics_is_dirichlet_multinomial() -> None:
    """Nine rows of training, borders at the third and the sixth: simulated, and against scipy's beta-binomial."""
    rng = np.random.default_rng(0)
    training, fresh = np.sort(rng.exponential(size=(40_000, 9)), 1), rng.exponential(size=(40_000, 5))
    below = (fresh < training[:, [2]]).sum(1)
    for k in range(6):
        sequences = np.exp(log_dirichlet_multinomial(np.array([3.0, 7.0]), np.array([k, 5 - k])))
        expected = scipy.special.comb(5, k) * sequences
        assert expected == pytest.approx(scipy.stats.betabinom.pmf(k, 5, 3, 7), rel=1e-9)
        assert (below == k).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 40_000))


def test_the_mean_evidence_of_all_inputs_is_at_most_one_over_samples_of_training() -> None:
    rng, found = np.random.default_rng(1), []
    for seed in range(60):
        embedding = MeanEmbedding(rng.normal(size=(64, 3)), frequencies=4, seed=seed)
        found += [embedding.compare(embedding.sums(rng.normal(size=(60, 3)))).log_evidence for _ in range(4)]
    assert np.exp(found).mean() <= 1 + 3 * np.exp(found).std() / np.sqrt(60)
    assert max(found) < np.log(1 / 0.001)


# ---- single columns ----


def test_a_column_that_few_rows_carry_raises_no_alarm() -> None:
    """A histogram of 30 values scatters by more than the common bound, look after look."""
    rng = np.random.default_rng(3)
    monitor = DriftMonitor({"x": Distribution.of_numbers(rng.normal(size=5000))}, window=100)
    large = shown = 0
    for _ in range(300):
        values = np.where(np.arange(100) < 30, rng.normal(size=100), np.nan)
        monitor.add({"x": (values, None)}, 100)
        (one,) = monitor.compared()
        large, shown = large + (one.psi >= 0.25), shown + one.shown
    assert large > 100
    assert shown == 0


def test_a_column_of_a_small_training_sample_is_not_taken_for_drift() -> None:
    rng = np.random.default_rng(4)
    shown = 0
    for _ in range(40):
        monitor = DriftMonitor({"x": Distribution.of_numbers(rng.normal(size=110))}, window=100)
        for _ in range(10):
            monitor.add({"x": (rng.normal(size=100), None)}, 100)
            shown += monitor.compared()[0].shown
    assert shown == 0


def test_a_column_that_moves_is_shown() -> None:
    rng = np.random.default_rng(5)
    monitor = DriftMonitor({"x": Distribution.of_numbers(rng.normal(size=5000))}, window=500)
    monitor.add({"x": (rng.normal(0.7, 1, 500), None)}, 500)
    (one,) = monitor.compared()
    assert one.shown
    assert one.psi > 0.25


def test_the_level_is_shared_among_looks_and_columns() -> None:
    assert np.exp(alarm_threshold()) == pytest.approx(PROMISED_LOOKS / ALARM_CHANCE)
    assert np.exp(alarm_threshold(12)) == pytest.approx(12 * PROMISED_LOOKS / ALARM_CHANCE)


# ---- a sample, not a head ----


def test_the_kernel_width_is_that_of_a_sample_when_training_is_sorted() -> None:
    rng = np.random.default_rng(6)
    rows = rng.permutation(np.linspace(-3, 3, 4 * SCALE_ROWS))[:, None]
    mixed, ordered = (MeanEmbedding(r, frequencies=8) for r in (rows, np.sort(rows, 0)))
    widths = [np.abs(e._frequencies).mean() for e in (mixed, ordered)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1), "the head of sorted rows lies three times as close"


def test_replicas_add_the_cells_up() -> None:
    rng = np.random.default_rng(8)
    background: dict[str, list[Any]] = {n: v.tolist() for n, v in skewed(rng, 300).items()}
    fresh = skewed(rng, 600)
    parts = [{n: v[:350] for n, v in fresh.items()}, {n: v[350:] for n, v in fresh.items()}]
    one, other, whole = (InputDrift(background, [], 200) for _ in range(3))
    told = other.sums(parts[1])
    together = one.compared(one.sums(parts[0]), [told])
    alone = whole.compared(whole.sums(fresh))
    assert together is not None
    assert alone is not None
    assert together[0].log_evidence == pytest.approx(alone[0].log_evidence, abs=1e-9)

"""Drift of all inputs together: random features against the exact discrepancy, its permutation test and scipy's
distances."""

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from governed_serving.fairness.monitoring.inputs import InputDrift, MeanEmbedding, median_square


def drawn(seed: int, rows: int, columns: int = 6, *, tied: float = 0.0, moved: float = 0.0) -> np.ndarray:
    """Standard normal columns; the first two correlated by ``tied``, the third ``moved``: the others' distributions
    stay."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, columns))
    found[:, 1] = tied * found[:, 0] + np.sqrt(1 - tied**2) * found[:, 1]
    found[:, 2] += moved
    return found


def exact(one: np.ndarray, two: np.ndarray, scale: float, times: int = 200) -> tuple[float, float]:
    """Unbiased MMD² (Gretton et al. 2012, equation 3), and the p-value that shuffling gives."""
    rows, rng = np.concatenate([one, two]), np.random.default_rng(0)
    kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(2) / scale)
    m, n = len(one), len(two)

    def statistic(order: np.ndarray) -> float:
        a, b = order[:m], order[m:]
        within = [(kernel[np.ix_(x, x)].sum() - k) / (k * (k - 1)) for x, k in ((a, m), (b, n))]
        return float(sum(within) - 2 * kernel[np.ix_(a, b)].mean())

    found = statistic(np.arange(m + n))
    return found, (1 + sum(statistic(rng.permutation(m + n)) >= found for _ in range(times))) / (1 + times)


def test_the_width_is_the_median_squared_distance() -> None:
    rows = drawn(0, 200)
    assert median_square(rows) == pytest.approx(np.median(pdist(rows) ** 2), rel=1e-9)
    assert median_square(np.ones((5, 2))) == 1.0


@pytest.mark.parametrize("change", [{}, {"moved": 1.0}, {"tied": 0.95}])
def test_the_statistic_is_the_exact_one_within_what_random_features_leave(change: dict[str, float]) -> None:
    training, fresh = drawn(1, 400), drawn(2, 400, **change)
    embedding = MeanEmbedding(training, frequencies=800)
    found = embedding.compare(embedding.sums(fresh))
    statistic, p_value = exact(training, fresh, median_square(training))
    assert found.statistic == pytest.approx(statistic, rel=0.15, abs=2e-3)
    assert found.p_value == pytest.approx(p_value, abs=0.08)


def test_without_drift_p_values_are_uniform() -> None:
    found = []
    for seed in range(200):
        embedding = MeanEmbedding(drawn(1000 + seed, 300), frequencies=32, seed=seed)
        found.append(embedding.compare(embedding.sums(drawn(5000 + seed, 250))).p_value)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 200))


def test_what_no_single_column_shows_is_found() -> None:
    embedding = MeanEmbedding(drawn(3, 500, 4))
    assert embedding.compare(embedding.sums(drawn(4, 500, 4, tied=0.9))).p_value < 0.001


def test_one_bump_and_two_of_the_same_mean_and_variance_differ() -> None:
    rng = np.random.default_rng(2)
    two = np.where(rng.random((300, 1)) < 0.5, -0.95, 0.95) + rng.normal(0, 0.3, (300, 1))
    embedding = MeanEmbedding(rng.normal(size=(300, 1)))
    assert embedding.compare(embedding.sums(two)).p_value < 0.01
    assert embedding.compare(embedding.sums(rng.normal(size=(300, 1)))).p_value > 0.05


BACKGROUND: dict[str, list[Any]] = {
    "income": [*np.random.default_rng(7).normal(40, 8, 299).tolist(), None],
    "job": ["cook", "nurse", "pilot"] * 100,
    "note": ["words"] * 300,
    "rare": [1.0] * 20,
}


def rows(seed: int, count: int, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "income": (rng.normal(40 + shift, 8, count)).astype(np.float32),
        "job": rng.choice(np.array(["cook", "nurse", "pilot"], object), count),
        "note": np.array(["other"] * count, object),
        "rare": np.full(count, 99.0, np.float32),
    }


def test_sums_of_replicas_are_the_sums_of_all_rows_in_any_order() -> None:
    everything = rows(0, 600)
    parts = [
        {name: values[part] for name, values in everything.items()} for part in np.split(np.arange(600), [100, 350])
    ]
    told = [InputDrift(BACKGROUND, ["note"], 200).sums(part) for part in parts]  # each replica has its own
    (whole,) = InputDrift(BACKGROUND, ["note"], 200).sums(everything).values()
    answers = []
    for place in range(3):
        mine = InputDrift(BACKGROUND, ["note"], 200)
        own = mine.sums(parts[place])
        answers.append(mine.compared(own, [told[i] for i in (2, 1, 0) if i != place]))
    assert answers[0] == answers[1] == answers[2], "to the bit, whoever adds"
    assert answers[0] is not None
    assert answers[0][1] == 600
    assert np.sum([next(iter(one.values())) for one in told], axis=0) == pytest.approx(whole)


def test_only_columns_that_training_knows_well_are_looked_at() -> None:
    inputs = InputDrift(BACKGROUND, ["note"], 200)
    same, moved = (inputs.compared(inputs.sums(rows(1, 300, shift))) for shift in (0.0, 6.0))
    assert same is not None
    assert moved is not None
    assert same[0].p_value > 0.05, "texts and a column with few training rows have no part in it"
    assert moved[0].p_value < 0.01
    assert inputs.sums({"note": rows(1, 300)["note"], "unknown": np.zeros(300)}) == {}
    assert inputs.compared({}) is None


def test_sums_over_other_columns_are_not_added() -> None:
    inputs = InputDrift(BACKGROUND, ["note"], 200)
    other = inputs.sums({"income": rows(3, 300, 20.0)["income"]})
    own = inputs.sums(rows(2, 300))
    assert inputs.compared(other) is None, "of other columns than those of the last look"
    assert own.keys().isdisjoint(other)
    assert inputs.compared(own, [other, {}, {next(iter(own)): [300.0]}]) == inputs.compared(own)

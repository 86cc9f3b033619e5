"""Randomised thresholds by group: against fairlearn's ThresholdOptimizer, and what groups, ties and rounding may do."""

from typing import Any, get_args

import numpy as np
import pytest

from governed_serving.fairness.metrics.thresholds import (
    EVERYBODY,
    NOBODY,
    Constraint,
    Objective,
    RandomisedThreshold,
    fit,
)
from unit.fairness.threshold_oracle import fairlearns

CONSTRAINTS: tuple[Constraint, ...] = get_args(Constraint)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def people(rows: int, seed: int, digits: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether the label is favourable, and a group of three; ``digits``: scores are rounded, so that many
    tie."""
    rng = np.random.default_rng(seed)
    group = np.array(["a", "b", "c"])[rng.choice(3, rows, p=[0.5, 0.3, 0.2])]
    score = 1 / (1 + np.exp(-(rng.normal(size=rows) + 0.8 * (group == "a") - 0.4)))
    score = np.round(score, digits) if digits else score.astype(np.float32).astype(np.float64)
    return score, rng.random(rows) < np.clip(score + 0.1 * (group == "b") - 0.05, 0, 1), group


def ours(score: np.ndarray, label: np.ndarray, group: np.ndarray, constraint: Any, objective: Any) -> np.ndarray:
    found = fit(score, label, {name: group == name for name in np.unique(group).tolist()}, constraint, objective)
    chances = np.zeros(len(score))
    for name, rule in found.items():
        chances[group == name] = rule.chances(score[group == name])
    return chances


@pytest.mark.filterwarnings("ignore")  # pandas' and scikit-learn's about fairlearn's own lines
@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_rates_and_error_are_those_of_fairlearn(constraint: str, objective: str, digits: int | None) -> None:
    for seed in range(3):
        score, label, group = people(1500, seed, digits)
        theirs = fairlearns(score, label, group, constraint, objective)
        found = ours(score, label, group, constraint, objective)
        for name in "abc":
            for rows in (group == name, (group == name) & label, (group == name) & ~label):
                assert found[rows].mean() == pytest.approx(theirs[rows].mean(), abs=1e-9)
        error = np.where(label, 1 - found, found).mean()
        assert error == pytest.approx(np.where(label, 1 - theirs, theirs).mean(), abs=1e-9)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_constraint_holds_exactly_on_the_rows_it_was_fitted_on(constraint: Constraint) -> None:
    score, label, group = people(2000, 9, digits=1)
    chances = ours(score, label, group, constraint, "accuracy")
    among = {"demographicParity": [label | True], "equalOpportunity": [label], "equalizedOdds": [label, ~label]}
    for rows in among[constraint]:
        rates = [chances[rows & (group == name)].mean() for name in "abc"]
        assert np.ptp(rates) < 1e-9
    assert ((chances > 0) & (chances < 1)).any()


def test_scores_that_are_all_alike_are_drawn() -> None:
    """Nothing tells rows apart, so that only a draw reaches the common rate."""
    label = np.arange(400) % 4 == 0
    label[200:] = np.arange(200) % 2 == 0
    groups = {"a": np.arange(400) < 200, "b": np.arange(400) >= 200}
    found = fit(np.full(400, 0.3), label, groups, "equalOpportunity", "balancedAccuracy")
    rates = [float(rule.chances(np.array([0.3]))[0]) for rule in found.values()]
    assert rates[0] == pytest.approx(rates[1], abs=1e-9)
    assert all(rule.upper in (NOBODY, EVERYBODY) or rule.upper_share in (0, 1) for rule in found.values())


def test_no_threshold_is_where_rounding_could_decide() -> None:
    """Rows of a category whose scores differ in the last digit alone are one cluster, and many."""
    rng = np.random.default_rng(3)
    score = np.repeat([0.2, 0.5, 0.8], 200) + rng.uniform(-1e-7, 1e-7, 600)
    label = rng.random(600) < score
    groups = {"a": np.arange(600) % 2 == 0, "b": np.arange(600) % 2 == 1}
    plain = fit(score, label, groups, "demographicParity")
    safe = fit(score, label, groups, "demographicParity", apart=2e-6)
    cuts = [cut for rule in safe.values() for cut in (rule.upper, rule.lower) if EVERYBODY < cut < NOBODY]
    assert cuts
    assert all(abs(cut - value) > 0.1 for cut in cuts for value in (0.2, 0.5, 0.8))
    assert plain.keys() == safe.keys()


def test_dense_scores_are_still_told_apart() -> None:
    """A chain of scores, each near the next, isn't one cluster from 0 to 1."""
    score = np.linspace(0, 1, 20_000)
    label = score > 0.5
    found = fit(score, label, {"a": score < 2}, "demographicParity", apart=1e-4)
    assert found["a"].chances(np.array([0.4, 0.6])).tolist() == [0, 1]


def test_a_group_of_one_label_is_fitted_where_nothing_is_undefined_without() -> None:
    score, label, group = people(600, 4)
    label = label | (group == "c")
    assert np.isfinite(ours(score, label, group, "demographicParity", "accuracy")).all()


def test_a_score_that_is_no_number_is_above_nothing() -> None:
    rule = RandomisedThreshold(0.7, 0.4, EVERYBODY, 0.6)
    assert rule.chances(np.array([np.nan, 0.1, 0.9])).tolist() == [0.0, 0.6, 1.0]

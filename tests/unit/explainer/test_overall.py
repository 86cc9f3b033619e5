"""The model as a whole: importances, effects, surrogate, drift."""

import numpy as np
import pytest

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.overall.drift import ImportanceMonitor
from governed_serving.explainer.overall.effects import accumulated_local_effects, partial_dependence
from governed_serving.explainer.overall.importance import permutation_importance
from governed_serving.explainer.overall.surrogate import surrogate_tree
from governed_serving.explainer.players import Players
from unit.explainer import models


def numbers(rows=600, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    return {"a": a, "b": 0.9 * a + 0.1 * rng.normal(size=rows), "c": rng.normal(size=rows)}


def square(c):
    return c["a"] ** 2 + 0 * c["b"] + 0.5 * c["c"]


def test_permutation_importance_ranks_and_is_zero_for_what_is_ignored():
    rows = models.table(300, 1)
    labels = (models.probabilities(rows)[:, 1] > 0.5).astype(int)
    rows["noise"] = np.random.default_rng(0).normal(size=300)
    found = permutation_importance(
        BlackBox(models.probabilities),
        rows,
        Players.of_groups(list(rows), {}),
        lambda out: -np.log(np.clip(out[np.arange(len(labels)), labels], 1e-12, 1.0)),
        seed=np.random.SeedSequence(0),
    )
    value = dict(zip(found.names, found.values, strict=True))
    assert value["noise"] == 0
    assert min(value["age"], value["job"]) > value["income"] > 0
    assert (found.lower <= found.values).all()


def test_permutation_importance_agrees_with_scikit_learn():
    from sklearn.inspection import permutation_importance as oracle
    from sklearn.linear_model import LinearRegression

    rows = numbers()
    table, y = np.stack(list(rows.values()), axis=1), rows["a"] * 2 + rows["c"]
    model = LinearRegression().fit(table, y)
    theirs = oracle(model, table, y, scoring="neg_mean_squared_error", n_repeats=20, random_state=0).importances_mean
    box = BlackBox(lambda c: model.predict(np.stack([c[k] for k in "abc"], axis=1)))
    found = permutation_importance(
        box,
        rows,
        Players.of_groups(list("abc"), {}),
        lambda out: (out[:, 0] - y) ** 2,
        repeats=20,
        seed=np.random.SeedSequence(1),
    )
    np.testing.assert_allclose(found.values, theirs, rtol=0.1, atol=1e-6)


def test_partial_dependence_equals_scikit_learn():
    from sklearn.inspection import partial_dependence as oracle
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    table = np.stack([rng.integers(0, 4, 150), rng.normal(size=150)], axis=1).astype(float)
    model = LogisticRegression().fit(table, table[:, 0] + table[:, 1] > 2)
    theirs = oracle(model, table, [0], response_method="predict_proba", kind="average")
    found = partial_dependence(
        BlackBox(lambda c: model.predict_proba(np.stack([c["x"], c["y"]], axis=1))),
        {"x": table[:, 0], "y": table[:, 1]},
        "x",
    )
    np.testing.assert_array_equal(found.grid, theirs["grid_values"][0])
    np.testing.assert_allclose(found.values[:, 1], theirs["average"][0], atol=1e-12)
    assert found.curves.shape == (150, 4, 2)


def test_ale_recovers_an_additive_effect_despite_correlation():
    rows = numbers(4000)
    found = accumulated_local_effects(BlackBox(square), rows, "a", points=40)
    truth = found.grid**2
    inner = slice(3, -3)
    shift = (found.values[:, 0] - truth)[inner].mean()
    np.testing.assert_allclose(found.values[inner, 0], truth[inner] + shift, atol=0.1)
    np.testing.assert_allclose(accumulated_local_effects(BlackBox(square), rows, "b").values, 0, atol=1e-12)
    with pytest.raises(NotExplainable, match="ordered feature"):
        accumulated_local_effects(BlackBox(models.probabilities), models.table(9, 0), "job")


def test_surrogate_finds_a_rule_and_measures_its_fidelity():
    rows = models.table(500, 2)
    outputs = np.where((rows["job"] == "smith") & (rows["age"] > 40), 1.0, 0.0)
    tree = surrogate_tree(rows, outputs, depth=2, seed=np.random.SeedSequence(0))
    assert tree.fidelity > 0.99
    text = " | ".join(rule for rule, _, _ in tree.root.rules())
    assert "job" in text
    assert "age" in text
    noise = surrogate_tree(rows, np.random.default_rng(0).normal(size=500), depth=2, seed=np.random.SeedSequence(0))
    assert noise.fidelity < 0.1


def test_surrogate_equals_scikit_learns_tree_on_numbers():
    from sklearn.tree import DecisionTreeRegressor

    rows = numbers(300)
    y = square(rows)
    tree = surrogate_tree(rows, y, depth=3, least=5, seed=np.random.SeedSequence(3))
    fitted = np.random.default_rng(np.random.SeedSequence(3)).permutation(300)[100:]
    table = np.stack(list(rows.values()), axis=1)
    oracle = DecisionTreeRegressor(max_depth=3, min_samples_leaf=5, random_state=0).fit(table[fitted], y[fitted])
    theirs = ((oracle.predict(table[fitted]) - y[fitted]) ** 2).mean()
    ours = ((tree.predict({k: v[fitted] for k, v in rows.items()}) - y[fitted]) ** 2).mean()
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_missing_numbers_are_on_no_grid_and_in_no_split():
    rng = np.random.default_rng(2)
    rows = {
        "a": np.round(rng.normal(size=400), 2),
        "b": rng.integers(0, 3, 400).astype(float),
        "c": np.full(400, np.nan),
    }
    rows["a"][rng.random(400) < 0.3], rows["b"][rng.random(400) < 0.3] = np.nan, np.nan

    def answer(columns):
        return np.where(np.isnan(columns["a"]), 5.0, np.nan_to_num(columns["a"])) + 0 * np.nan_to_num(columns["c"])

    box = BlackBox(answer)
    for points in (10, 1000):
        found = accumulated_local_effects(box, rows, "a", points)
        assert np.isfinite(found.grid).all()
        assert np.isfinite(found.values).all()
        assert found.counts.sum() == np.isfinite(rows["a"]).sum()
    for feature, points in (("a", 20), ("b", 20)):
        shown = partial_dependence(box, rows, feature, points)
        assert np.isfinite(shown.grid).all()
        assert shown.counts.sum() == np.isfinite(rows[feature]).sum()
    for effect in (accumulated_local_effects, partial_dependence):
        with pytest.raises(NotExplainable, match="c: expected"):
            effect(box, rows, "c")
    tree = surrogate_tree(rows, answer(rows), depth=3, seed=np.random.SeedSequence(0))
    rules = [rule for rule, _, _ in tree.root.rules()]
    assert any("or missing" in rule for rule in rules)
    assert not any("nan" in rule for rule in rules)
    assert np.isfinite(tree.predict(rows)).all()


def monitor():
    return ImportanceMonitor(("a", "b", "c"), reference=100, window=100)


def test_drift_alarm_comes_when_importances_move_and_names_the_player():
    rng = np.random.default_rng(0)
    one = monitor()
    assert all(one.observe(rng.normal(size=3) * [3, 1, 1]) is None for _ in range(600))
    alarms = [one.observe(rng.normal(size=3) * [1, 3, 1]) for _ in range(100)]
    assert alarms[-1] is not None
    assert alarms[-1].player in ("a", "b")
    assert alarms[-1].distance > 0.1


def test_drift_false_alarms_stay_rare():
    alarms = 0
    for seed in range(100):
        rng, one = (
            np.random.default_rng(seed),
            ImportanceMonitor(("a", "b", "c"), reference=60, window=40, least=0.0, alpha=0.05),
        )
        alarms += any(one.observe(rng.normal(size=3)) is not None for _ in range(700))
    assert alarms <= 12


def test_drift_state_survives_a_restart():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(350, 3))
    whole, first, second = monitor(), monitor(), monitor()
    for row in values:
        whole.observe(row)
    for row in values[:170]:
        first.observe(row)
    assert second.restore(first.dump())
    for row in values[170:]:
        second.observe(row)
    assert second.report() == whole.report()
    assert not ImportanceMonitor(("x",)).restore(first.dump())

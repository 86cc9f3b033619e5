"""Exact Shapley values against shap's exact explainer and against the axioms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.game import InterventionalGame, RowGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.exact import exact_shapley, exact_table, planned_rows
from unit.explainer import models
from unit.explainer.oracles import shap


def numbers(table):
    return {f"f{i}": table[:, i] for i in range(table.shape[1])}


def smooth(table):
    weights = np.linspace(-1, 1, table.shape[1])
    return 1 / (1 + np.exp(-(table @ weights + table[:, 0] * table[:, 1] * table[:, -1])))


def column_model(function, width):
    return lambda columns: function(np.stack([columns[f"f{i}"] for i in range(width)], axis=1))


def game(function, rows, background, **options):
    width = rows.shape[1]
    box = BlackBox(column_model(function, width), **options)
    return InterventionalGame(box, numbers(rows), numbers(background), Players.of_groups(list(numbers(rows)), {}))


@pytest.mark.parametrize("kind", ["continuous", "mixed", "binary"])
@pytest.mark.parametrize("costly", [False, True])
def test_equals_shap_exact(kind, costly):
    rng = np.random.default_rng(1)
    rows, background = rng.normal(size=(3, 7)), rng.normal(size=(12, 7))
    if kind != "continuous":
        count = 7 if kind == "binary" else 3
        rows[:, :count], background[:, :count] = rng.integers(0, 2, (3, count)), rng.integers(0, 2, (12, count))
    found = exact_shapley(game(smooth, rows, background, costly=costly))
    oracle = shap.explainers.Exact(smooth, shap.maskers.Independent(background, max_samples=100))(rows)
    np.testing.assert_allclose([one.values[:, 0] for one in found], oracle.values, rtol=0, atol=1e-9)
    np.testing.assert_allclose([one.base[0] for one in found], oracle.base_values, rtol=0, atol=1e-9)


def test_groups_equal_shap_partition_of_the_same_game():
    rng = np.random.default_rng(2)
    rows, background = rng.normal(size=(2, 6)), rng.normal(size=(10, 6))
    players = Players.of_groups([f"f{i}" for i in range(6)], {"a": ["f0", "f3"], "b": ["f1", "f2", "f5"]})
    box = BlackBox(column_model(smooth, 6))
    found = exact_shapley(InterventionalGame(box, numbers(rows), numbers(background), players))

    def v(row, members):
        hybrid = background.copy()
        hybrid[:, members] = row[members]
        return smooth(hybrid).mean()

    sets = {"a": [0, 3], "b": [1, 2, 5], "f4": [4]}
    for row, one in zip(rows, found, strict=True):
        for name in sets:
            others = [n for n in sets if n != name]
            expected = 0.0
            for size, weight in ((0, 1 / 3), (1, 1 / 6), (2, 1 / 3)):
                for chosen in ([()], [(others[0],), (others[1],)], [tuple(others)])[size]:
                    base = [i for n in chosen for i in sets[n]]
                    expected += weight * (v(row, [*base, *sets[name]]) - v(row, base))
            assert one.values[one.names.index(name), 0] == pytest.approx(expected, abs=1e-12)


def test_text_columns_and_the_table_of_known_answers():
    rows, background = models.table(4, 3), models.table(30, 4)
    for columns in (rows, background):
        columns["age"] = np.round(columns["age"] / 20).astype(np.float32)
        columns["income"] = np.round(columns["income"] / 20).astype(np.float32)
    players = Players.of_groups(list(rows), {})
    table = InterventionalGame(BlackBox(models.probabilities), rows, background, players)
    plain = InterventionalGame(BlackBox(models.probabilities), rows, background, players)
    plain._dedupe = "none"
    left, right = exact_shapley(table), exact_shapley(plain)
    np.testing.assert_allclose([a.values for a in left], [b.values for b in right], atol=1e-12)
    assert table.box.rows < plain.box.rows / 3
    assert table.box.rows <= table.space + table.rows + table.backgrounds


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?", "O"])
def test_whole_tables_of_pairs_hold_every_hybrid_whatever_the_dtype(dtype):
    """Nine players, the last of two features: short and long runs of equal neighbours, in memory used twice."""
    seen = []

    def remember(columns):
        seen.append(np.stack([columns[f"f{i}"].copy() for i in range(10)], axis=1))
        return np.zeros(len(seen[-1]))

    def column(values):
        return np.array([f"word {v}" for v in values], object) if dtype == "O" else np.asarray(values).astype(dtype)

    rows = {f"f{i}": column([1, 3 + i]) for i in range(10)}
    background = {f"f{i}": column([0, 0]) for i in range(10)}
    players = Players.of_groups(list(rows), {"both": ["f8", "f9"]})
    played = InterventionalGame(BlackBox(remember), rows, background, players)
    order = np.array([2, 0, 1, 5, 4, 3, 6, 7, 8])
    for _ in range(2):
        played.cube(np.array([0, 1]), np.array([0, 0]), order)
    for pair in range(2):
        for code in range(512):
            inside = {players.names[g] for j, g in enumerate(order) if code >> j & 1}
            owner = {f: name for name, members in zip(players.names, players.members, strict=True) for f in members}
            want = [(rows if owner[f] in inside else background)[f][pair if owner[f] in inside else 0] for f in rows]
            assert (seen[-1].reshape(2, 512, 10)[pair, code] == want).all()


def test_workers_and_chunks_change_nothing():
    rng = np.random.default_rng(3)
    rows, background = rng.normal(size=(3, 6)), rng.normal(size=(9, 6))
    whole = exact_shapley(game(smooth, rows, background))
    split = exact_shapley(game(smooth, rows, background, max_rows=50, workers=3))
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 5))
def test_axioms(seed, width, backgrounds):
    """Efficiency, null player, symmetry, linearity."""
    rng = np.random.default_rng(seed)
    rows, background = (
        rng.integers(0, 3, (2, width)).astype(float),
        rng.integers(0, 3, (backgrounds, width)).astype(float),
    )
    rows[:, 1], background[:, 1] = rows[:, 0], background[:, 0]

    def f(table):
        return (
            np.sin(table[:, 0] + table[:, 1]) * (1 + table[:, 2:].sum(axis=1))
            if width > 2
            else np.sin(table.sum(axis=1))
        )

    found = exact_shapley(game(f, rows, background))
    doubled = exact_shapley(game(lambda t: 2 * f(t) + 3, rows, background))
    for one, two in zip(found, doubled, strict=True):
        assert abs(one.residual[0]) < 1e-12
        assert one.values[0, 0] == pytest.approx(one.values[1, 0], abs=1e-12)
        np.testing.assert_allclose(two.values, 2 * one.values, atol=1e-12)
    ignored = exact_shapley(game(lambda t: t[:, 0], rows, background))
    for one in ignored:
        np.testing.assert_allclose(one.values[1:], 0, atol=1e-12)


def test_planned_rows_bounds_what_is_asked():
    rng = np.random.default_rng(4)
    one = game(smooth, rng.integers(0, 2, (4, 6)).astype(float), rng.integers(0, 2, (20, 6)).astype(float))
    planned = planned_rows(one)
    exact_shapley(one)
    assert one.box.rows <= planned


def test_generic_table_agrees_with_pairs():
    rng = np.random.default_rng(5)
    one = game(smooth, rng.normal(size=(1, 5)), rng.normal(size=(6, 5)))
    values, _ = exact_table(RowGame(one, 0))
    np.testing.assert_allclose(values, exact_shapley(one)[0].values, atol=1e-12)


def test_too_many_players_is_refused_with_a_way_out():
    rng = np.random.default_rng(6)
    with pytest.raises(NotExplainable, match="at most 14 players that differ, found 15"):
        exact_shapley(game(smooth, rng.normal(size=(1, 15)), rng.normal(size=(2, 15))))


def test_background_error_covers_the_error_of_a_small_background():
    rng = np.random.default_rng(7)
    rows, population = rng.normal(size=(1, 4)), rng.normal(size=(4000, 4))
    truth = exact_shapley(game(smooth, rows, population))[0].values[:, 0]
    z = []
    for seed in range(60):
        drawn = np.random.default_rng(seed).integers(0, 4000, 60)
        one = exact_shapley(game(smooth, rows, population[drawn]))[0]
        z.append((one.values[:, 0] - truth) / one.background_error[:, 0])
    assert 0.8 < np.std(z) < 1.25

"""SHAP interaction values: exact and sampled, against the definition over all coalitions and against shap."""

import itertools
import math

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.service.engine import MAX_CELLS
from governed_serving.explainer.service.overview import overview
from governed_serving.explainer.shapley.cells import Cells, interaction_matrix, shapley_matrix, subsets
from governed_serving.explainer.shapley.exact import exact_shapley
from governed_serving.explainer.shapley.interactions import (
    MAX_INTERACTING,
    ROUNDS,
    _orders,
    interaction_rows,
    round_cost,
    sampled_interactions,
)
from governed_serving.explainer.shapley.trees import TreeExplainer
from unit.explainer import models
from unit.explainer.beds import Bed
from unit.explainer.games import GAMES, KnownGame
from unit.explainer.oracles import shap
from unit.explainer.test_shapley_exact import column_model, game, numbers, smooth
from unit.explainer.test_trees_and_linear import BACKGROUND, NAMES, ROWS, WIDTH, columns, explained

PATH = "/v2/models/loans/explain"


def by_definition(value, players):
    """Φ of shape (players, players): pairs as defined over all coalitions, main effects as what is left of the Shapley
    values, which are summed over all coalitions too."""
    matrix, everyone = np.zeros((players, players)), range(players)
    for i in everyone:
        rest = [k for k in everyone if k != i]
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for chosen in itertools.combinations(rest, size):
                matrix[i, i] += weight * (value({*chosen, i}) - value(set(chosen)))
    for i, j in itertools.combinations(everyone, 2):
        rest = [k for k in everyone if k not in (i, j)]
        for size in range(players - 1):
            weight = math.factorial(size) * math.factorial(players - size - 2) / math.factorial(players - 1) / 2
            for chosen in itertools.combinations(rest, size):
                together, one, other = value({*chosen, i, j}), value({*chosen, i}), value({*chosen, j})
                matrix[i, j] += weight * (together - one - other + value(set(chosen)))
        matrix[j, i] = matrix[i, j]
    return matrix - np.diag(matrix.sum(axis=1) - matrix.diagonal())


def interventional(predict, row, background):
    """v of a set of columns: the mean answer with those columns of the row."""

    def value(members):
        hybrid = background.copy()
        hybrid[:, sorted(members)] = row[sorted(members)]
        return predict(hybrid).mean()

    return value


def matrix_of(attribution, output=0):
    """The symmetric matrix of an attribution's interactions."""
    players = len(attribution.names)
    whole = np.zeros((players, players))
    whole[np.triu_indices(players, 1)] = attribution.interactions.pairs[:, output]
    return whole + whole.T + np.diag(attribution.interactions.main[:, output])


class TableGame(KnownGame):
    """A game of which all values are given, in the order of ``subsets``."""

    def __init__(self, values):
        size = int(np.log2(len(values)))
        super().__init__(size, lambda masks: values[masks @ (1 << np.arange(size))], np.zeros(size))


@pytest.mark.parametrize("players", [2, 3, 5, 7])
def test_the_matrix_over_all_coalitions_is_the_definition(players):
    values = np.random.default_rng(players).normal(size=1 << players)
    expected = by_definition(lambda members: values[sum(1 << m for m in members)], players)
    pairs = values @ interaction_matrix(players)
    np.testing.assert_allclose(pairs, expected[np.triu_indices(players, 1)], atol=1e-12)
    np.testing.assert_allclose(values @ shapley_matrix(players), expected.sum(axis=1), atol=1e-12)


@pytest.mark.parametrize("kind", ["continuous", "mixed", "binary"])
@pytest.mark.parametrize("costly", [False, True])
def test_enumeration_gives_the_definition(kind, costly):
    rng = np.random.default_rng(1)
    rows, background = rng.normal(size=(3, 5)), rng.normal(size=(9, 5))
    if kind != "continuous":
        count = 5 if kind == "binary" else 2
        rows[:, :count], background[:, :count] = rng.integers(0, 2, (3, count)), rng.integers(0, 2, (9, count))
    plain = exact_shapley(game(smooth, rows, background, costly=costly))
    for row, found in enumerate(exact_shapley(game(smooth, rows, background, costly=costly), interactions=True)):
        expected = by_definition(interventional(smooth, rows[row], background), 5)
        np.testing.assert_allclose(matrix_of(found), expected, atol=1e-10)
        np.testing.assert_allclose(matrix_of(found).sum(axis=1), found.values[:, 0], atol=1e-12)
        np.testing.assert_allclose(found.values, plain[row].values, atol=1e-14)
        assert (found.evaluations, found.coalitions) == (plain[row].evaluations, plain[row].coalitions)


def test_equals_shap_where_its_trees_see_independent_features():
    """shap reads interactions along paths alone, which is the interventional game where the rows that a tree has seen
    are all combinations. (Its Exact explainer gives another index, Shapley-Taylor's.)"""
    table = subsets(5).astype(float)
    tree = DecisionTreeRegressor(random_state=0).fit(table, np.random.default_rng(2).normal(size=32))
    theirs = shap.TreeExplainer(tree).shap_interaction_values(table[[3, 17]])
    ours = exact_shapley(game(tree.predict, table[[3, 17]], table), interactions=True)
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(matrix_of(found), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["forest", "regressor", "boosted"])
def test_trees_give_what_enumeration_of_their_graph_gives(kind):
    read, explainer, values = explained(kind)
    box = BlackBox(lambda c: read.trees.predict(np.stack([c[n] for n in NAMES], axis=1)))
    table = InterventionalGame(box, columns(ROWS), columns(BACKGROUND), Players.of_groups(list(NAMES), {}))
    pairs = explainer.interactions(read.columns(columns(ROWS)))
    assert pairs.shape == (len(ROWS), math.comb(WIDTH, 2), values.shape[2])
    for mine, found in zip(pairs, exact_shapley(table, interactions=True), strict=True):
        np.testing.assert_allclose(mine, found.interactions.pairs, atol=1e-9)


def test_groups_of_columns_of_a_forest_interact_as_players():
    read, _, _ = explained("forest")
    players = Players.of_groups(NAMES, {"pair": ["f0", "f1"], "rest": ["f4", "f6"]})
    owners, z = read.owners(columns(BACKGROUND), players), read.columns(columns(BACKGROUND))
    explainer = TreeExplainer(read.trees, z, np.full(40, 1 / 40), owners, len(players))
    box = BlackBox(lambda c: read.trees.predict(np.stack([c[n] for n in NAMES], axis=1)))
    table = InterventionalGame(box, columns(ROWS), columns(BACKGROUND), players)
    expected = [found.interactions.pairs for found in exact_shapley(table, interactions=True)]
    np.testing.assert_allclose(explainer.interactions(read.columns(columns(ROWS))), expected, atol=1e-9)


@pytest.mark.parametrize("players", [2, 3, 6, 7, 60, 64])
def test_a_round_shows_every_pair_side_by_side_once(players):
    orders = _orders(players, np.random.default_rng(3))
    pairs = np.sort(np.stack([orders[:, :-1], orders[:, 1:]], axis=2).reshape(-1, 2), axis=1)
    even = players + players % 2
    assert sorted(map(tuple, pairs.tolist())) == list(itertools.combinations(range(even), 2))
    assert orders.size == even * even // 2


@pytest.mark.parametrize("players", [3, 6, 7, 60])
def test_a_round_asks_for_no_more_coalitions_than_it_counts(players):
    known = GAMES["conjunction"](players, np.random.default_rng(0))
    sampled_interactions(known, known.ends(), round_cost(players), np.random.SeedSequence(0))
    assert known.asked <= round_cost(players)
    assert players % 2 or known.asked == round_cost(players) or known.asked == 1 << players


@pytest.mark.parametrize("players", [7, 8])
def test_rounds_are_unbiased(players):
    values = np.random.default_rng(4).normal(size=1 << players)
    table = TableGame(values)
    truth = np.concatenate([values @ shapley_matrix(players), values @ interaction_matrix(players)])
    found = []
    for seed in range(200):
        one = sampled_interactions(table, table.ends(), round_cost(players), np.random.SeedSequence(seed))
        found.append(np.concatenate([one.values, one.pairs])[:, 0])
    off = np.abs(np.mean(found, axis=0) - truth) / (np.std(found, axis=0, ddof=1) / np.sqrt(len(found)))
    assert off.max() < 4


@pytest.mark.parametrize("kind", sorted(GAMES))
@pytest.mark.parametrize("players", [8, 11])
def test_intervals_of_pairs_hold_the_truth(kind, players):
    pairs, mains = [], []
    for seed in range(6):
        known = GAMES[kind](players, np.random.default_rng([players, seed]))
        table = known.values(subsets(players))[:, 0]
        truth = table @ interaction_matrix(players)
        main = table @ shapley_matrix(players)
        first, second = np.triu_indices(players, 1)
        np.subtract.at(main, first, truth)
        np.subtract.at(main, second, truth)
        found = sampled_interactions(
            known, known.ends(), min(ROUNDS * round_cost(players), (1 << players) - 1), np.random.SeedSequence(seed)
        )
        if found.exact or not np.isfinite(found.pairs_half).all():
            pytest.skip("too few players for two rounds")
        pairs.append(np.abs(found.pairs[:, 0] - truth) <= found.pairs_half[:, 0] + 1e-12)
        drawn = found.values[:, 0].copy()
        np.subtract.at(drawn, first, found.pairs[:, 0])
        np.subtract.at(drawn, second, found.pairs[:, 0])
        mains.append(np.abs(drawn - main) <= found.main_half[:, 0] + 1e-12)
    assert np.mean(pairs) >= 0.93
    assert np.mean(mains) >= 0.85  # 48 or 66 of them, those of a game not independent


def test_sixty_players_are_sampled_and_sum_to_their_attributions():
    rng = np.random.default_rng(5)
    rows, background = rng.normal(size=(1, 60)), rng.normal(size=(2, 60))
    weights = rng.normal(size=(60, 60)) / 60

    def pairwise(table):
        return np.einsum("ni,ij,nj->n", table, weights, table)

    found = interaction_rows(game(pairwise, rows, background), 2 * round_cost(60), np.random.SeedSequence(1))[0]
    assert found.method == "permutation"
    assert not found.exact
    assert found.coalitions == 2 * round_cost(60)
    assert abs(found.residual[0]) < 1e-9
    np.testing.assert_allclose(matrix_of(found).sum(axis=1), found.values[:, 0], atol=1e-9)
    both = weights + weights.T
    delta = rows[0] - background
    expected = np.mean([both * np.outer(d, d) / 2 for d in delta], axis=0)[np.triu_indices(60, 1)]
    np.testing.assert_allclose(
        found.interactions.pairs[:, 0], expected, atol=1e-9
    )  # a pair's gain is the same anywhere


def test_too_few_coalitions_or_too_many_players_are_refused_with_a_way_out():
    rows, background = np.ones((1, 20)), np.zeros((1, 20))
    with pytest.raises(NotExplainable, match=r"expected at least 209 for the interactions of 20 players"):
        interaction_rows(game(lambda t: t.sum(axis=1), rows, background), 208, np.random.SeedSequence(0))
    one = interaction_rows(game(lambda t: t.sum(axis=1), rows, background), 209, np.random.SeedSequence(0))[0]
    assert np.isinf(one.interactions.upper).all()
    wide = MAX_INTERACTING + 1
    with pytest.raises(NotExplainable, match=f"at most {MAX_INTERACTING} players that differ, found {wide}"):
        interaction_rows(
            game(lambda t: t.sum(axis=1), np.ones((1, wide)), np.zeros((1, wide))), 10**6, np.random.SeedSequence(0)
        )


def test_duplicated_columns_share_their_interaction_and_constants_have_none():
    rows = np.array([[1.0, 1.0, 2.0, 5.0]])
    background = np.array([[0.0, 0.0, 0.0, 5.0], [-1.0, -1.0, 1.0, 5.0]])

    def product(table):
        return (table[:, 0] + table[:, 1]) * table[:, 2]

    whole = matrix_of(exact_shapley(game(product, rows, background), interactions=True)[0])
    np.testing.assert_allclose(whole[0], whole[1][[1, 0, 2, 3]], atol=1e-12)
    assert (whole[3] == 0).all()
    flat = matrix_of(exact_shapley(game(lambda t: np.full(len(t), 0.3), rows, background), interactions=True)[0])
    np.testing.assert_allclose(flat, 0, atol=1e-15)


def test_one_player_has_a_main_effect_alone():
    found = exact_shapley(game(lambda t: t[:, 0], np.ones((1, 1)), np.zeros((1, 1))), interactions=True)[0]
    assert found.interactions.pairs.shape == (0, 1)
    np.testing.assert_array_equal(found.interactions.main, [[1.0]])
    sampled = interaction_rows(game(lambda t: t[:, 0], np.ones((1, 1)), np.zeros((1, 1))), 4, np.random.SeedSequence(0))
    np.testing.assert_array_equal(sampled[0].interactions.main, [[1.0]])


def test_cells_of_a_part_lie_where_those_of_the_whole_do():
    cells = Cells(5, True)
    assert len(cells) == 15
    assert cells.of(np.array([[1, 2, 4]]))[0].tolist() == [1, 2, 4, 5 + 4, 5 + 6, 5 + 8]
    assert Cells(5, False).of(np.array([[1, 2, 4]]))[0].tolist() == [1, 2, 4]


async def test_an_answer_shows_pairs_and_main_effects_that_make_the_attributions(tmp_path):
    bed = Bed(tmp_path)
    rows = models.table(2, 9)
    answer = await bed.client.post(PATH, content=models.request(rows, "i-1", interactions=True))
    assert answer.status_code == 200, answer.text
    plain = (await Bed(tmp_path / "p").client.post(PATH, content=models.request(rows, "i-1"))).json()
    assert answer.json()["parameters"]["interactions"] is True
    assert "interactions" not in plain["parameters"]
    for found, without in zip(answer.json()["explanations"], plain["explanations"], strict=True):
        assert (found["method"], found["exact"], found["interactions_left_out"]) == ("exact", True, 0)
        assert len(found["interactions"]) == 6
        sizes = [abs(pair["interaction"]) for pair in found["interactions"]]
        assert sizes == sorted(sizes, reverse=True)
        for entry, other in zip(found["attributions"], without["attributions"], strict=True):
            mine = [p["interaction"] for p in found["interactions"] if entry["feature"] in p["between"]]
            assert entry["attribution"] == pytest.approx(other["attribution"], abs=1e-14)
            assert entry["main_effect"] + sum(mine) == pytest.approx(entry["attribution"], abs=1e-12)
        named = {tuple(pair["between"]): pair for pair in found["interactions"]}
        assert named["age", "income"]["interval"] == [named["age", "income"]["interaction"]] * 2
        assert named["age", "job"]["background_error"] >= 0
    assert bed.journal.records[0].body == answer.content


@pytest.mark.parametrize("method", ["shap", "exact", "sampled", "permutation"])
async def test_the_same_id_replays_interactions_to_the_same_bits(tmp_path, method):
    body = models.request(models.table(1, 9), "i-2", method=method, interactions=2)
    first = await Bed(tmp_path / "a").client.post(PATH, content=body)
    second = await Bed(tmp_path / "b").client.post(PATH, content=body)
    assert first.status_code == 200, first.text
    assert first.content == second.content
    (found,) = first.json()["explanations"]
    assert (len(found["interactions"]), found["interactions_left_out"]) == (2, 4)


@pytest.mark.parametrize("method", ["lime", "anchors", "counterfactual", "text"])
async def test_methods_without_interactions_say_who_has_them(tmp_path, method):
    body = models.request(models.table(1, 9), "i-3", method=method, interactions=True)
    answer = await Bed(tmp_path).client.post(PATH, content=body)
    assert answer.status_code == 400
    assert f"{method} gives none here; of a table, shap, exact," in answer.json()["error"]


@pytest.mark.parametrize(("asked", "word"), [(-1, "expected true"), (2017, "up to 2016"), ("many", "interactions")])
async def test_a_strange_number_of_interactions_is_refused(tmp_path, asked, word):
    answer = await Bed(tmp_path).client.post(PATH, content=models.request(models.table(1, 9), interactions=asked))
    assert answer.status_code == 400
    assert word in answer.json()["error"]


async def test_a_request_for_more_cells_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("governed_serving.explainer.service.engine.MAX_CELLS", 6 * 2 * 3 - 1)
    bed = Bed(tmp_path)
    refused = await bed.client.post(PATH, content=models.request(models.table(3, 9), interactions=True))
    assert "ask for fewer rows at a time" in refused.json()["error"]
    assert (await bed.client.post(PATH, content=models.request(models.table(2, 9), interactions=True))).is_success
    assert MAX_CELLS >= 6 * 2 * 1024


async def test_where_an_answer_depends_on_its_batch_nothing_is_said_of_pairs(tmp_path):
    def centred(table):
        found = models.probabilities(table)
        shift = found.mean(axis=0) * 0.05
        return found - shift

    answer = await Bed(tmp_path, centred).client.post(
        PATH, content=models.request(models.table(1, 9), interactions=True)
    )
    (found,) = answer.json()["explanations"]
    assert not found["exact"]
    assert found["batch_dependence"] > 0
    assert {tuple(pair["interval"]) for pair in found["interactions"]} == {(None, None)}
    assert {tuple(entry["main_interval"]) for entry in found["attributions"]} == {(None, None)}


async def test_a_budget_of_nothing_leaves_pairs_without_intervals(tmp_path):
    ticks = iter(np.arange(0, 1e4, 1.0))
    bed = Bed(tmp_path)
    bed.engine._clock = lambda: float(next(ticks))
    answer = await bed.client.post(
        PATH, content=models.request(models.table(1, 9), budget_ms=1, interactions=True, method="sampled")
    )
    (found,) = answer.json()["explanations"]
    assert found["stopped"] == "budget"
    assert {(pair["interaction"], *pair["interval"]) for pair in found["interactions"]} == {(0.0, None, None)}


async def test_a_budget_that_suffices_ends_exact(tmp_path):
    answer = await Bed(tmp_path).client.post(
        PATH, content=models.request(models.table(1, 9), budget_ms=60_000, interactions=True)
    )
    (found,) = answer.json()["explanations"]
    assert (found["exact"], found["stopped"], found["coalitions"]) == (True, "complete", 16)


def test_against_a_clock_rounds_come_before_the_whole_table():
    clock = [0.0]
    rng = np.random.default_rng(6)
    rows, background = rng.normal(size=(1, 11)), rng.normal(size=(4, 11))

    def slow(table):
        clock[0] += len(table) / 1000
        return np.tanh(table @ np.linspace(-1, 1, 11) + table[:, 0] * table[:, 1])

    deadlines = {}
    for deadline in (1.0, 1e6):
        clock[0] = 0.0
        one = game(slow, rows, background, clock=lambda: clock[0], deadline=deadline, max_rows=256)
        deadlines[deadline] = interaction_rows(one, 1 << 11, np.random.SeedSequence(7))[0]
    early, whole = deadlines[1.0], deadlines[1e6]
    assert (early.exact, whole.exact) == (False, True)
    assert early.details["stopped"] == "budget"
    again = interaction_rows(game(slow, rows, background), early.coalitions, np.random.SeedSequence(7))[0]
    np.testing.assert_array_equal(again.interactions.pairs, early.interactions.pairs)
    expected = by_definition_of_table(slow, rows, background)
    np.testing.assert_allclose(whole.interactions.pairs[:, 0], expected, atol=1e-9)


def by_definition_of_table(predict, rows, background):
    value = interventional(predict, rows[0], background)
    table = np.array([value(set(np.flatnonzero(mask).tolist())) for mask in subsets(rows.shape[1])])
    return table @ interaction_matrix(rows.shape[1])


async def test_the_overview_ranks_pairs_over_the_background(tmp_path):
    engine = Bed(tmp_path).engine
    shown = overview(engine)
    pairs = shown["mean_absolute_interaction"]
    assert pairs[0]["between"] == ["age", "job"]  # job × (1 + age): the one that the margin itself has
    assert len(pairs) == 6
    assert shown["interactions_left_out"] == 0
    assert [pair["value"] for pair in pairs] == sorted((pair["value"] for pair in pairs), reverse=True)
    assert overview(Bed(tmp_path / "b", type="lime").engine).get("mean_absolute_interaction") is None


def test_a_model_of_columns_is_what_the_games_ask():
    table = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(column_model(lambda t: t.sum(axis=1), 3)(numbers(table)), [3.0, 12.0])

"""Owen values: against their definition over all orders, the quotient game, and shap's PartitionExplainer."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.hierarchy import MAX_DEPTH, hierarchy_of
from governed_serving.explainer.shapley.cells import shapley_matrix, subsets
from governed_serving.explainer.shapley.exact import exact_shapley
from governed_serving.explainer.shapley.owen import coalitions_of, owen_rows, owen_values
from governed_serving.explainer.text.spans import nested
from unit.explainer import models
from unit.explainer.beds import Bed
from unit.explainer.oracles import shap
from unit.explainer.test_interactions import TableGame
from unit.explainer.test_shapley_exact import game, smooth

PATH = "/v2/models/loans/explain"
NAMES = "abcdef"

DECLARED = {
    "two levels": {"left": ["a", "b"], "right": ["c", "d", "e"]},
    "three levels": {"inner": ["b", "c"], "outer": ["a", "inner", "d"]},
    "a group of one": {"lone": ["a"], "pair": ["e", "f"]},
    "all in one": {"everything": list(NAMES)},
    "none": {},
    "binary": {"ab": ["a", "b"], "abc": ["ab", "c"], "de": ["d", "e"], "def": ["de", "f"]},
}


def over_all_orders(value, root):
    """Mean gains over all orders that keep groups together, by player: Owen's definition."""

    def orders(node):
        if node.player is not None:
            return [[node.player]]
        parts = [orders(child) for child in node.children]
        return [
            [player for part in chosen for player in part]
            for places in itertools.permutations(range(len(parts)))
            for chosen in itertools.product(*(parts[place] for place in places))
        ]

    every = orders(root)
    gains = np.zeros(len(root.players()))
    for order in every:
        before = 0
        for player in order:
            gains[player] += value[before | 1 << player] - value[before]
            before |= 1 << player
    return gains / len(every)


def values_of(table, declared, coalitions=1 << 14, seed=0):
    players = int(np.log2(len(table)))
    root = hierarchy_of(NAMES[:players], declared)
    played = TableGame(table)
    return root, owen_values(played, played.ends(), root, coalitions, np.random.SeedSequence(seed))


@pytest.mark.parametrize("kind", sorted(DECLARED))
def test_equal_the_mean_over_all_orders_that_keep_groups_together(kind):
    table = np.random.default_rng(1).normal(size=64)
    root, found = values_of(table, DECLARED[kind])
    assert found.exact
    assert found.coalitions <= coalitions_of(root)
    np.testing.assert_allclose(found.values[:, 0], over_all_orders(table, root), atol=1e-12)
    for place, (group, _) in enumerate(root.groups()):
        assert found.groups[place, 0] == pytest.approx(found.values[list(group.players()), 0].sum(), abs=1e-12)
    assert found.values.sum() == pytest.approx(table[-1] - table[0])


def test_groups_have_the_shapley_values_of_the_game_among_them():
    table = np.random.default_rng(2).normal(size=64)
    root, found = values_of(table, DECLARED["two levels"])  # left, right, f
    blocks = [0b000011, 0b011100, 0b100000]
    quotient = np.array(
        [table[sum(b for b, inside in zip(blocks, mask, strict=True) if inside)] for mask in subsets(3)]
    )
    expected = quotient @ shapley_matrix(3)
    np.testing.assert_allclose([*found.groups[:, 0], found.values[5, 0]], expected, atol=1e-12)
    assert [group.name for group, _ in root.groups()] == ["left", "right"]


def test_without_groups_they_are_shapley_values():
    table = np.random.default_rng(3).normal(size=64)
    for kind in ("none", "all in one"):
        np.testing.assert_allclose(values_of(table, DECLARED[kind])[1].values[:, 0], table @ shapley_matrix(6))


def test_equal_shap_where_it_splits_in_two():
    rng = np.random.default_rng(4)
    rows, background = rng.normal(size=(2, 4)), rng.normal(size=(6, 4))
    linkage = np.array([[0.0, 1.0, 0.1, 2.0], [2.0, 3.0, 0.2, 2.0], [4.0, 5.0, 1.0, 4.0]])
    masker = shap.maskers.Partition(background, clustering=linkage)
    theirs = shap.explainers.Partition(smooth, masker)(rows, max_evals=2000, silent=True).values
    root = hierarchy_of(["f0", "f1", "f2", "f3"], {"left": ["f0", "f1"], "right": ["f2", "f3"]})
    found = owen_rows(game(smooth, rows, background), root, 1 << 12, np.random.SeedSequence(0))
    np.testing.assert_allclose([one.values[:, 0] for one in found], theirs, atol=1e-9)


def test_players_that_change_nothing_leave_the_others_values_alone():
    rng = np.random.default_rng(5)
    rows, background = rng.normal(size=(1, 5)), rng.normal(size=(7, 5))
    background[:, 1] = rows[0, 1]
    root = hierarchy_of([f"f{i}" for i in range(5)], {"pair": ["f0", "f1"], "rest": ["f2", "f4"], "dull": ["f3"]})
    background[:, 3] = rows[0, 3]
    found = owen_rows(game(smooth, rows, background), root, 1 << 12, np.random.SeedSequence(0))[0]

    def v(mask):
        hybrid = background.copy()
        hybrid[:, mask] = rows[0, mask]
        return smooth(hybrid).mean()

    expected = over_all_orders([v(mask) for mask in subsets(5)], root)
    np.testing.assert_allclose(found.values[:, 0], expected, atol=1e-12)
    assert found.values[1, 0] == found.values[3, 0] == 0
    assert found.groups.values[2, 0] == 0


@pytest.mark.parametrize("kind", ["two levels", "three levels", "binary"])
def test_sampled_values_are_unbiased_and_their_intervals_hold(kind):
    table = np.random.default_rng(6).normal(size=64)
    root, exact = values_of(table, DECLARED[kind])
    truth = np.concatenate([exact.values, exact.groups])[:, 0]
    found, inside = [], []
    for seed in range(200):
        one = values_of(table, DECLARED[kind], 5 * 20, seed)[1] if coalitions_of(root) > 100 else None
        if one is None:  # so few coalitions that all would be asked for: against a clock, not
            played = TableGame(table)
            played.box.deadline = 1e18
            one = owen_values(played, played.ends(), root, coalitions_of(root) - 1, np.random.SeedSequence(seed))
        assert not one.exact
        estimate, half = (
            np.concatenate([one.values, one.groups])[:, 0],
            np.concatenate([one.half_width, one.groups_half]),
        )
        found.append(estimate)
        inside.append(np.abs(estimate - truth) <= half[:, 0] + 1e-9)
        for place, (group, _) in enumerate(root.groups()):
            assert one.groups[place, 0] == pytest.approx(one.values[list(group.players()), 0].sum(), abs=1e-12)
    spread = np.maximum(np.std(found, axis=0, ddof=1), 1e-9)  # of two groups at the top all orders say the same
    assert (np.abs(np.mean(found, axis=0) - truth) / (spread / np.sqrt(len(found)))).max() < 4
    assert np.mean(inside) >= 0.93


def test_a_deeper_hierarchy_of_sixty_players_is_sampled_and_sums_up():
    rng = np.random.default_rng(7)
    rows, background = rng.normal(size=(1, 60)), rng.normal(size=(2, 60))
    names = [f"f{i}" for i in range(60)]
    declared = {f"g{i}": names[10 * i : 10 * i + 10] for i in range(6)} | {"half": ["g0", "g1", "g2"]}
    root = hierarchy_of(names, declared)
    one = game(lambda t: np.tanh(t.sum(axis=1) / 9) + t[:, 0] * t[:, 11], rows, background)
    found = owen_rows(one, root, 2048, np.random.SeedSequence(1))[0]
    assert not found.exact
    assert found.coalitions <= 2048
    assert abs(found.residual[0]) < 1e-9
    shown = dict(zip([group.name for group, _ in root.groups()], found.groups.values[:, 0], strict=True))
    assert shown["half"] == pytest.approx(shown["g0"] + shown["g1"] + shown["g2"])
    again = owen_rows(
        game(lambda t: np.tanh(t.sum(axis=1) / 9) + t[:, 0] * t[:, 11], rows, background),
        root,
        found.coalitions,
        np.random.SeedSequence(1),
    )[0]
    np.testing.assert_array_equal(again.values, found.values)


WRONG = {
    "empty": ({"g": []}, "group 'g': expected at least one feature"),
    "unknown": ({"g": ["a", "hat"]}, "no feature or group 'hat'; there are a, b,"),
    "twice in one": ({"g": ["a", "a"]}, "'a' is in group 'g' twice; name it once"),
    "in two": ({"g": ["a"], "h": ["a", "b"]}, "'a' is in 'g' and 'h'; name it once"),
    "a cycle": ({"g": ["h", "a"], "h": ["g", "b"]}, "'g' is within itself"),
    "itself": ({"g": ["g"]}, "'g' is within itself"),
    "a feature's name": ({"a": ["b"]}, "group 'a' has the name of a feature"),
    "no name": ({"": ["b"]}, "expected a name for each group"),
    "too deep": (
        {f"g{i}": [f"g{i + 1}"] for i in range(MAX_DEPTH)} | {f"g{MAX_DEPTH}": ["a"]},
        f"at most {MAX_DEPTH} levels",
    ),
    "too many": ({f"g{i}": ["a"] for i in range(257)}, "at most 256 groups, found 257"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_no_hierarchy_is_refused_by_name(case):
    declared, message = WRONG[case]
    with pytest.raises(NotExplainable) as raised:
        hierarchy_of(NAMES, declared)
    assert message in str(raised.value)


async def test_an_answer_gives_groups_and_members_that_sum_to_them(tmp_path):
    declared = {"person": ["age", "sex"], "work": ["income", "job"], "all of it": ["person", "work"]}
    body = models.request(models.table(2, 9), "o-1", hierarchy=declared)
    answer = await Bed(tmp_path).client.post(PATH, content=body)
    assert answer.status_code == 200, answer.text
    assert (await Bed(tmp_path / "b").client.post(PATH, content=body)).content == answer.content
    assert answer.json()["parameters"]["hierarchy"] == declared
    for found in answer.json()["explanations"]:
        assert (found["method"], found["exact"]) == ("owen", True)
        values = {entry["feature"]: entry for entry in found["attributions"]}
        groups = {group["group"]: group for group in found["groups"]}
        assert values["age"]["within"] == "person"
        assert groups["person"]["within"] == "all of it"
        assert groups["person"]["members"] == ["age", "sex"]
        together = values["age"]["attribution"] + values["sex"]["attribution"]
        assert groups["person"]["attribution"] == pytest.approx(together, abs=1e-12)
        whole = found["prediction"] - found["base_value"]
        assert groups["all of it"]["attribution"] == pytest.approx(whole, abs=1e-12)


async def test_groups_of_a_request_are_the_players_of_its_hierarchy(tmp_path):
    body = models.request(
        models.table(1, 9), groups={"who": ["age", "sex"]}, hierarchy={"both": ["who", "job"]}, method="owen"
    )
    (found,) = (await Bed(tmp_path).client.post(PATH, content=body)).json()["explanations"]
    assert [entry.get("within") for entry in found["attributions"]] == ["both", None, "both"]


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"method": "exact", "hierarchy": {"g": ["age"]}}, "expected none beside exact"),
        ({"method": "anchors", "hierarchy": {"g": ["age"]}}, "expected none beside anchors"),
        ({"interactions": True, "hierarchy": {"g": ["age"]}}, "expected none beside interactions"),
        ({"method": "owen"}, "expected groups by name for Owen values, found none"),
        ({"hierarchy": {"g": ["shoe"]}}, "no feature or group 'shoe'"),
        ({"hierarchy": {"g": ["h"], "h": ["g"]}}, "within itself"),
        ({"hierarchy": {"g": "age"}}, "parameters"),
        ({"hierarchy": {"g": ["age"]}, "max_evaluations": 4}, "expected at least 6 for orders of 4 players, found 4"),
    ],
)
async def test_a_strange_hierarchy_is_400_and_leaves_no_record(tmp_path, parameters, word):
    bed = Bed(tmp_path)
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9), **parameters))
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["error"]
    assert bed.journal.records == []


async def test_against_a_clock_they_end_exact_or_with_what_there_was(tmp_path):
    declared = {"person": ["age", "sex"]}
    body = models.request(models.table(1, 9), hierarchy=declared, budget_ms=60_000)
    (found,) = (await Bed(tmp_path).client.post(PATH, content=body)).json()["explanations"]
    assert (found["exact"], found["stopped"]) == (True, "complete")
    bed = Bed(tmp_path / "late")
    ticks = iter(np.arange(0, 1e4, 1.0))
    bed.engine._clock = lambda: float(next(ticks))
    (late,) = (
        await bed.client.post(PATH, content=models.request(models.table(1, 9), hierarchy=declared, budget_ms=1))
    ).json()["explanations"]
    assert (late["exact"], late["stopped"], late["groups"][0]["interval"]) == (False, "budget", [None, None])


def test_words_stand_in_phrases_and_sentences():
    spans, root = nested("Good food, slow service. Never again!")
    assert spans.words() == ["Good", "food", ",", "slow", "service", ".", "Never", "again", "!"]
    first, second = root.children
    assert [child.name for child in first.children] == ["phrase 1", "phrase 2"]
    assert [child.name for child in first.children[0].children] == ["Good", "food", ","]
    assert [child.name for child in second.children] == ["Never", "again", "!"]
    assert second.name == "phrase 3"  # a sentence of one phrase is that phrase
    assert nested("word")[1].groups() == ()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_a_tree_over_all_of_its_tokens(text):
    spans, root = nested(text)
    assert sorted(root.players()) == list(range(len(spans)))
    assert len({group.name for group, _ in root.groups()}) == len(root.groups())


def test_owen_values_of_one_group_sum_to_its_shapley_value_as_a_player():
    rng = np.random.default_rng(8)
    rows, background = rng.normal(size=(1, 6)), rng.normal(size=(5, 6))
    root = hierarchy_of([f"f{i}" for i in range(6)], {"g": ["f0", "f3", "f5"]})
    found = owen_rows(game(smooth, rows, background), root, 1 << 12, np.random.SeedSequence(0))[0]
    plain = exact_shapley(game(smooth, rows, background))[0]
    assert found.groups.values[0, 0] != pytest.approx(plain.values[[0, 3, 5], 0].sum(), abs=1e-6)
    assert abs(found.residual[0]) < 1e-12


async def test_tokens_of_a_text_sum_to_their_phrases_and_sentences(tmp_path):
    """Of the text of a job, of which the model knows whole words alone."""
    rows = models.table(1, 9)
    rows["job"] = models.strings(["smith, nurse. clerk!"])

    def predict(columns):
        known = np.array([sum(word in text for word in ("smith", "nurse", "clerk")) for text in columns["job"]]) / 4
        return np.stack([1 - known, known], axis=1)

    body = models.request(rows, "o-2", method="text", field="job", level="nested")
    answer = await Bed(tmp_path, predict).client.post(PATH, content=body)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["explanations"]
    assert (found["level"], found["exact"]) == ("nested", True)
    values = {entry["value"]: entry for entry in found["attributions"]}
    assert values["smith"]["attribution"] == pytest.approx(0.25)
    assert values["smith"]["within"] == "phrase 1"
    groups = {group["group"]: group for group in found["groups"]}
    assert groups["sentence 1"]["members"] == ["phrase 1", "phrase 2"]
    assert groups["sentence 1"]["attribution"] == pytest.approx(0.5)
    assert groups["phrase 3"]["attribution"] == pytest.approx(0.25)
    again = models.request(rows, "o-3", method="text", field="job", level="nest")
    assert "sentence, nested" in (await Bed(tmp_path / "b", predict).client.post(PATH, content=again)).json()["error"]

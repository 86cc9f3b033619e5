"""LIME against the lime library, anchors, counterfactuals, and attributions of text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.local.anchors import Outcome, bernoulli_bounds, find_anchor
from governed_serving.explainer.local.counterfactual import Feasible, Goal, find_counterfactuals
from governed_serving.explainer.local.lime_tabular import bins, lime_tabular
from governed_serving.explainer.local.ridge import weighted_ridge
from governed_serving.explainer.players import Players
from governed_serving.explainer.quality import complexity, fidelity, rank_correlation
from governed_serving.explainer.shapley.sampled import Stopping
from governed_serving.explainer.text.masking import RowText, TextGame, lime_text, text_shapley
from governed_serving.explainer.text.spans import cut, render
from unit.explainer import models, oracles

WIDTH = 5
NAMES = [f"f{i}" for i in range(WIDTH)]


def columns(table):
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(NAMES)}


def logistic(table):
    p = 1 / (1 + np.exp(-(table @ np.array([1.5, -1.0, 0.5, 0.0, 0.2]))))
    return np.stack([1 - p, p], axis=1)


def box():
    return BlackBox(lambda c: logistic(np.stack([c[name] for name in NAMES], axis=1)))


def test_ridge_equals_scikit_learn():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(80, 4)), rng.normal(size=(80, 2)), rng.random(80)
    oracle = Ridge(alpha=1.0).fit(x, y, sample_weight=w)
    found = weighted_ridge(x, y, w, 1.0)
    np.testing.assert_allclose(found.coefficients.T, oracle.coef_, atol=1e-10)
    np.testing.assert_allclose(found.intercept, oracle.intercept_, atol=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_lime_for_tables_is_the_lime_librarys_within_its_noise():
    rng = np.random.default_rng(1)
    background, row = rng.normal(size=(1500, WIDTH)), np.array([0.9, -0.3, 0.1, 0.5, -1.2])
    library = oracles.lime_tabular.LimeTabularExplainer(background, discretize_continuous=True, random_state=0)
    theirs = []
    for _ in range(3):
        found = library.explain_instance(row, logistic, num_features=WIDTH, num_samples=6000, labels=(1,))
        theirs.append([weight for _, weight in sorted(found.local_exp[1])])
    ours = lime_tabular(
        box(),
        columns(row[None]),
        columns(background),
        Players.of_groups(list(NAMES), {}),
        samples=20_000,
        seed=np.random.SeedSequence(0),
    )[0]
    mean, noise = np.mean(theirs, axis=0), np.ptp(theirs, axis=0).max()
    np.testing.assert_allclose(ours.values[:, 1], mean, atol=0.02 + noise)
    assert ours.details["score"][1] == pytest.approx(found.score, abs=0.08)


def test_lime_intervals_cover_its_own_limit():
    rng = np.random.default_rng(2)
    background, row = columns(rng.normal(size=(200, WIDTH))), columns(rng.normal(size=(1, WIDTH)))
    players = Players.of_groups(list(NAMES), {})
    limit = lime_tabular(box(), row, background, players, samples=200_000, seed=np.random.SeedSequence(99))[0].values[
        :, 1
    ]
    covered = []
    for seed in range(30):
        one = lime_tabular(box(), row, background, players, samples=800, seed=np.random.SeedSequence(seed))[0]
        covered.append((one.lower[:, 1] <= limit) & (limit <= one.upper[:, 1]))
    assert np.mean(covered) >= 0.88


@pytest.mark.parametrize(("hits", "pulls"), [(0, 10), (10, 10), (7, 10), (900, 1000)])
def test_bernoulli_bounds_solve_the_divergence(hits, pulls):
    level, mean = 3.0, hits / pulls
    lower, upper = bernoulli_bounds(hits, pulls, level)

    def divergence(q):
        return sum(p * np.log(p / r) for p, r in ((mean, q), (1 - mean, 1 - q)) if p > 0) * pulls

    assert lower <= mean <= upper
    for edge in (lower, upper):
        assert edge in (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-9)) or divergence(edge) == pytest.approx(
            level, rel=1e-3
        )


def test_anchor_finds_the_rule_that_decides():
    def rule(c):
        p = np.where((c["job"] == "smith") & (c["sex"] == "male"), 0.99, 0.01)
        return np.stack([1 - p, p], axis=1)

    background = models.table(300, 1)
    row = {k: v[:1] for k, v in models.table(300, 2).items()}
    row["job"], row["sex"] = models.strings(["smith"]), models.strings(["male"])
    found = find_anchor(
        BlackBox(rule),
        row,
        background,
        Players.of_groups(list(row), {}),
        samples=20_000,
        seed=np.random.SeedSequence(0),
    )
    assert set(found.predicates) == {"job", "sex"}
    assert found.certified
    assert found.interval[0] >= 0.95
    assert found.predicates["job"] == {"job": {"equals": "smith"}}
    inside = (background["job"] == "smith") & (background["sex"] == "male")
    assert found.coverage == pytest.approx(inside.mean())


def test_anchor_that_cannot_be_certified_says_so():
    rng = np.random.default_rng(0)

    def coin(c):
        p = rng.random(len(c["age"]))
        return np.stack([1 - p, p], axis=1)

    row = {k: v[:1] for k, v in models.table(3, 2).items()}
    found = find_anchor(
        BlackBox(coin),
        row,
        models.table(100, 1),
        Players.of_groups(list(row), {}),
        samples=1500,
        seed=np.random.SeedSequence(0),
    )
    assert not found.certified
    assert found.interval[0] < 0.95


def test_counterfactual_is_near_the_boundary_and_valid():
    row = columns(np.array([[-1.0, 0.0, 0.0, 0.0, 0.0]]))
    background = columns(np.random.default_rng(3).normal(size=(200, WIDTH)))
    found = find_counterfactuals(box(), row, background, Goal(1), Feasible(["f1"]))
    assert found.found
    nearest = found.found[0]
    assert "f1" not in {feature for one in found.found for feature in one.changes}
    assert nearest.changes.keys() == {"f0"}
    assert nearest.changes["f0"][1] == pytest.approx(0.0, abs=1e-3)
    assert 0.5 <= nearest.output < 0.51
    assert [one.distance for one in found.found] == sorted(one.distance for one in found.found)


def test_counterfactual_combines_when_no_single_change_is_enough():
    def both(c):
        p = np.where((c["job"] == "nurse") & (c["age"] > 50), 0.9, 0.1)
        return np.stack([1 - p, p], axis=1)

    row = {
        "age": np.float32([30]),
        "income": np.float32([10]),
        "job": models.strings(["clerk"]),
        "sex": models.strings(["male"]),
    }
    found = find_counterfactuals(
        BlackBox(both),
        row,
        models.table(60, 1),
        Goal(1),
        Feasible(["sex"], {"age": (18, 80)}, {"job": models.JOBS}),
    )
    assert found.found[0].changes.keys() == {"age", "job"}
    assert found.found[0].changes["age"][1] == 51
    assert found.found[0].changes["job"] == ("clerk", "nurse")


def test_counterfactual_of_a_row_that_has_the_outcome_says_so():
    found = find_counterfactuals(box(), columns(np.full((1, WIDTH), 2.0)), columns(np.eye(WIDTH)), Goal(1), Feasible())
    assert found.reached
    with pytest.raises(NotExplainable, match="no feature may change"):
        find_counterfactuals(box(), columns(np.ones((1, WIDTH))), columns(np.eye(WIDTH)), Goal(0), Feasible(NAMES))


def test_spans_of_chinese_english_and_masks():
    assert cut("Don't pay, 张伟 <EMAIL>!").words() == ["Don't", "pay", ",", "张", "伟", "<EMAIL>", "!"]
    assert cut("很好。不贵，快! Very nice.", "sentence").words() == ["很好。", "不贵，快!", "Very nice."]
    assert cut("很好。不贵，快! Very nice.", "phrase").words() == ["很好。", "不贵，", "快!", "Very nice."]
    assert len(cut("a b c d e f g", most=3)) == 3
    with pytest.raises(NotExplainable, match="token, phrase, sentence"):
        cut("a", "page")


@given(st.text(max_size=60), st.sampled_from(["token", "phrase", "sentence"]))
def test_spans_partition_a_text_and_render_it_back(text, level):
    spans = cut(text, level)
    assert all(0 <= a < b <= len(text) for a, b in spans.edges)
    assert all(first[1] <= second[0] for first, second in zip(spans.edges, spans.edges[1:], strict=False))
    covered = {i for a, b in spans.edges for i in range(a, b)}
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    if len(spans):
        assert render(spans, np.ones((1, len(spans)), bool))[0] == text


def words(c):
    """Additive in words but for one interaction."""
    score = np.array(
        [0.3 * (" good" in f" {t}") - 0.4 * (" bad" in f" {t}") + 0.2 * ("not" in t and "bad" in t) for t in c["text"]]
    )
    return np.stack([0.5 - score, 0.5 + score], axis=1)


def text_row(text):
    return {"text": models.strings([text])}


def test_text_shapley_values_are_exact_for_short_texts_and_count_texts_once():
    one = BlackBox(words)
    found, game = text_shapley(
        one,
        RowText(text_row("not bad but good"), "text"),
        seed=np.random.SeedSequence(0),
        stopping=Stopping(1000),
    )
    assert found.exact
    np.testing.assert_allclose(found.values[:, 1], [0.1, -0.3, 0.0, 0.3], atol=1e-12)
    assert one.rows <= 16
    score = fidelity(game, found.values[:, 1], 1)
    assert score.insertion > score.deletion


def test_long_texts_are_sampled_and_cover_the_truth():
    text = " ".join(["plain"] * 12 + ["not", "bad", "good"])
    found, _ = text_shapley(
        BlackBox(words), RowText(text_row(text), "text"), seed=np.random.SeedSequence(1), stopping=Stopping(400)
    )
    truth = np.array([0.0] * 12 + [0.1, -0.3, 0.3])
    assert not found.exact
    assert abs(found.residual[1]) < 1e-12
    assert np.mean((found.lower[:, 1] - 1e-9 <= truth) & (truth <= found.upper[:, 1] + 1e-9)) >= 0.8
    np.testing.assert_allclose(found.values[:, 1], truth, atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_lime_for_text_is_the_lime_librarys_within_its_noise():
    text = "it was not bad but really good for a price like this"
    library = oracles.lime_text.LimeTextExplainer(random_state=0, bow=False, mask_string="")
    found = library.explain_instance(
        text, lambda batch: words({"text": batch}), num_features=20, num_samples=4000, labels=(1,)
    )
    theirs = np.array([weight for _, weight in sorted(found.local_exp[1])])
    ours, _ = lime_text(BlackBox(words), RowText(text_row(text), "text"), seed=np.random.SeedSequence(0), samples=4000)
    np.testing.assert_allclose(ours.values[:, 1], theirs, atol=0.03)


def test_empty_text_is_refused():
    with pytest.raises(NotExplainable, match="expected text to explain"):
        TextGame(BlackBox(words), RowText(text_row(" "), "text"), cut(" "))


def test_quality_figures():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30).astype(float), rng.normal(size=30)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert rank_correlation(np.ones(4), b[:4]) is None
    assert complexity(np.array([1.0, -1.0, 0, 0])) == pytest.approx(2)
    assert complexity(np.zeros(3)) == 0


def number(c):
    """A regression: 3 for smiths over forty, else 1, and a little of the income."""
    return np.where((c["job"] == "smith") & (c["age"] > 40), 3.0, 1.0) + 1e-3 * c["income"]


def smith():
    return {
        "age": np.float32([60]),
        "income": np.float32([20]),
        "job": models.strings(["smith"]),
        "sex": models.strings(["male"]),
    }


def anchor_of(predict, row, samples=20_000, **more):
    return find_anchor(
        BlackBox(predict),
        row,
        models.table(300, 1),
        Players.of_groups(list(row), {}),
        samples=samples,
        seed=np.random.SeedSequence(0),
        **more,
    )


def test_an_anchor_of_a_regression_keeps_its_side_of_the_threshold():
    found = anchor_of(number, smith(), outcome=Outcome(2.0))
    assert "job" in found.predicates
    assert found.certified
    with pytest.raises(NotExplainable, match="a class, or a threshold"):
        anchor_of(number, smith())
    below = anchor_of(number, {**smith(), "job": models.strings(["clerk"])}, outcome=Outcome(2.0))
    assert set(below.predicates) <= {"job", "age"}
    assert below.certified


def test_the_interval_of_an_anchor_holds_its_precision():
    """Over rules tried and looks taken: of 60 searches on a noisy outcome, at most a few may miss."""
    weights = np.random.default_rng(5).normal(size=WIDTH)

    def steep(c):
        p = 1 / (1 + np.exp(-4 * np.stack([c[name] for name in NAMES], axis=1) @ weights))
        return np.stack([1 - p, p], axis=1)

    rng = np.random.default_rng(3)
    background = columns(rng.normal(size=(120, WIDTH)))
    missed = 0
    for seed in range(60):
        row = columns(rng.normal(size=(1, WIDTH)))
        found = find_anchor(
            BlackBox(steep),
            row,
            background,
            Players.of_groups(NAMES, {}),
            samples=1500,
            seed=np.random.SeedSequence(seed),
        )
        precision = _precision(steep, row, background, [NAMES.index(name) for name in found.predicates], rng)
        missed += not found.interval[0] - 0.005 <= precision <= found.interval[1] + 0.005
    assert missed <= 3


def _precision(predict, row, background, kept, rng, draws=20_000):
    drawn = {}
    for place, name in enumerate(NAMES):
        inside = bins(background[name], background[name]) == bins(row[name], background[name])[0]
        pool = np.flatnonzero(inside) if place in kept else np.arange(len(inside))
        drawn[name] = background[name][rng.choice(pool, draws)] if len(pool) else np.repeat(row[name], draws)
    return float((predict(drawn).argmax(axis=1) == predict(row)[0].argmax()).mean())


@pytest.mark.parametrize("samples", [4, 7, 65, 66, 100, 333, 2000])
def test_single_row_methods_never_ask_for_more_than_they_may(samples):
    asked = [0]

    def counted(c):
        asked[0] += len(c["age"])
        return models.probabilities(c)

    found = anchor_of(counted, smith(), samples)
    assert asked[0] == found.evaluations <= samples
    asked[0] = 0
    near = find_counterfactuals(
        BlackBox(counted),
        smith(),
        models.table(300, 1),
        Goal(0),
        Feasible(["sex"]),
        samples=samples,
    )
    assert asked[0] == near.evaluations <= samples
    asked[0] = 0
    row, players = smith(), Players.of_groups(list(smith()), {})
    one = lime_tabular(
        BlackBox(counted), row, models.table(300, 1), players, samples=samples, seed=np.random.SeedSequence(0)
    )[0]
    assert asked[0] == one.evaluations <= samples
    assert np.isinf(one.upper).all() == (samples <= len(players) + 1)


def test_no_advice_to_have_no_value_and_no_distance_from_none():
    def wants_age(c):
        known = np.nan_to_num(np.asarray(c["age"], float), nan=0.0)
        p = np.where((known > 30) | (c["job"] == "") | (c["job"] == " "), 0.9, 0.1)
        return np.stack([1 - p, p], axis=1)

    row = {**smith(), "age": np.float32([np.nan]), "job": models.strings(["clerk"])}
    background = models.table(60, 1)
    background["job"][:7], background["age"][:5] = "", np.nan
    found = find_counterfactuals(
        BlackBox(wants_age),
        row,
        background,
        Goal(1),
        Feasible(["sex"], {"age": (None, None)}, {"job": [*models.JOBS, "", " "]}),
    )
    assert found.found
    for one in found.found:
        assert "job" not in one.changes
        assert np.isfinite(one.distance)
        assert np.isfinite(one.output)
        assert one.changes["age"][0] is None
    assert found.found[0].distance == 1.0

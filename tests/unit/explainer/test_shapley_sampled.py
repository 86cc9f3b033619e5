"""Sampled Shapley values: error beside shap's KernelExplainer, coverage of intervals, nesting, stopping, replay."""

import numpy as np
import pytest

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.intervals import level_of_look, student_quantile
from governed_serving.explainer.shapley.cells import shapley_matrix, subsets
from governed_serving.explainer.shapley.coalitions import PairedSampler
from governed_serving.explainer.shapley.exact import exact_shapley
from governed_serving.explainer.shapley.gaussian import _prior_variance, _section_shapley
from governed_serving.explainer.shapley.permutation import permutation_rows, permutation_shapley
from governed_serving.explainer.shapley.regression import fit_pairs
from governed_serving.explainer.shapley.sampled import Stopping, sampled_rows, sampled_shapley
from unit.explainer.games import GAMES
from unit.explainer.oracles import shap
from unit.explainer.test_shapley_exact import game

RNG = np.random.default_rng(0)
MIX, HIDDEN = RNG.normal(size=(11, 8)), RNG.normal(size=8)


def network(table):
    return np.tanh(np.maximum(table @ MIX * 0.6, 0) @ HIDDEN * 0.3)


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(1)
    rows, background = rng.normal(size=(4, 11)), rng.normal(size=(12, 11))
    return rows, background, np.array([one.values[:, 0] for one in exact_shapley(game(network, rows, background))])


@pytest.mark.parametrize(("players", "most"), [(2, 4), (3, 9), (8, 60), (13, 400), (40, 500), (60, 800), (80, 300)])
def test_pairs_are_distinct_nested_and_balanced(players, most):
    sampler = PairedSampler(players, most, np.random.SeedSequence(3))
    small, large = sampler.sample(most // 2), sampler.sample(most)
    both = np.concatenate([large.masks, ~large.masks])
    assert len(np.unique(both, axis=0)) == len(both)
    assert {m.tobytes() for m in small.masks} <= {m.tobytes() for m in large.masks}
    assert len(large.masks) == min(most, 2 ** (players - 1) - 1)
    assert (large.masks.sum(axis=1) <= players / 2).all()
    assert (large.drawn <= large.population).all()


def test_all_coalitions_give_the_exact_values(truth):
    rows, background, exact = truth
    found = sampled_rows(game(network, rows, background), np.random.SeedSequence(0), Stopping(2048))
    assert all(one.exact for one in found)
    np.testing.assert_allclose([one.values[:, 0] for one in found], exact, atol=1e-10)


@pytest.mark.parametrize("estimator", [fit_pairs, None])
def test_intervals_cover_and_error_shrinks(truth, estimator):
    rows, background, exact = truth
    more = {} if estimator is None else {"estimator": estimator}
    covered, errors, widths = [], {}, []
    for count in (200, 500):
        squares = []
        for seed in range(3):
            found = sampled_rows(game(network, rows, background), np.random.SeedSequence(seed), Stopping(count), **more)
            values = np.array([one.values[:, 0] for one in found])
            lower, upper = np.array([one.lower[:, 0] for one in found]), np.array([one.upper[:, 0] for one in found])
            covered.append((lower <= exact) & (exact <= upper))
            squares.append(((values - exact) ** 2).sum(axis=1))
            assert max(abs(one.residual[0]) for one in found) < 1e-10
            widths.append((((upper - lower) / 2) ** 2).sum(axis=1).mean() / np.mean(squares[-1]))
        errors[count] = np.mean(squares)
    assert np.mean(covered) >= 0.93
    assert np.sqrt(np.mean(widths)) <= 4  # in root mean squared errors, of which 1.96 would do if their size were known
    assert errors[500] < errors[200] / 1.5


def test_half_the_squared_error_of_kernel_explainer_at_equal_evaluations(truth):
    rows, background, exact = truth
    count = 400
    kernel = shap.KernelExplainer(network, background)
    np.random.seed(0)
    theirs = np.array(kernel.shap_values(rows, nsamples=count, l1_reg=False, silent=True))
    ours = np.array(
        [
            [
                one.values[:, 0]
                for one in sampled_rows(game(network, rows, background), np.random.SeedSequence(s), Stopping(count))
            ]
            for s in range(1)
        ]
    )
    assert ((ours - exact) ** 2).sum(axis=2).mean() < 0.5 * ((theirs - exact) ** 2).sum(axis=1).mean()


def test_interactions_of_two_players_are_exact_at_once():
    rng = np.random.default_rng(4)
    w = rng.normal(size=(20, 20))

    def pairwise(table):
        return np.einsum("ni,ij,nj->n", table, w, table)

    rows, background = rng.normal(size=(1, 20)), rng.normal(size=(5, 20))
    one = sampled_rows(game(pairwise, rows, background), np.random.SeedSequence(1), Stopping(200))[0]
    delta = rows[0] - background
    expected = np.mean([(w + w.T) @ (rows[0] + b) / 2 * d for b, d in zip(background, delta, strict=True)], axis=0)
    np.testing.assert_allclose(one.values[:, 0], expected, atol=1e-8)


def test_closed_forms_of_the_process():
    rng = np.random.default_rng(5)
    eta, z = rng.random(6) * 0.6, rng.choice([-1.0, 1.0], (4, 6))
    corners, matrix = np.where(subsets(6), 1.0, -1.0), shapley_matrix(6)
    np.testing.assert_allclose(_section_shapley(z, eta).T, matrix.T @ np.sinh((corners * eta) @ z.T) / 2, atol=1e-12)
    covariance = matrix.T @ (np.sinh((corners * eta) @ corners.T) / 4) @ matrix
    np.testing.assert_allclose(_prior_variance(eta), np.diag(covariance), atol=1e-12)


def test_precision_stops_early_and_replay_gives_the_same_bits(truth):
    rows, background, _ = truth
    early = sampled_rows(game(network, rows, background), np.random.SeedSequence(9), Stopping(2000, precision=0.2))
    assert all(one.coalitions < 1000 for one in early)
    widest = max(np.max(one.upper - one.lower) / 2 / np.ptp(one.values) for one in early)
    assert widest <= 0.2
    again = sampled_rows(game(network, rows, background), np.random.SeedSequence(9), Stopping(2000, precision=0.2))
    assert all((a.values == b.values).all() for a, b in zip(early, again, strict=True))


def test_budget_returns_what_was_reached(truth):
    rows, background, exact = truth
    clock = [0.0]

    def slow(table):
        clock[0] += len(table) / 1000
        return network(table)

    one = game(slow, rows[:1], background, clock=lambda: clock[0], deadline=4.0)
    found = sampled_rows(one, np.random.SeedSequence(2), Stopping(1000))[0]
    assert found.details["stopped"] == "budget"
    assert 0 < found.coalitions < 1000
    replay = sampled_rows(game(network, rows[:1], background), np.random.SeedSequence(2), Stopping(found.coalitions))[0]
    assert np.abs(replay.values[:, 0] - exact[0]).max() < 0.1
    late = sampled_rows(
        game(slow, rows[:1], background, clock=lambda: clock[0], deadline=clock[0] - 1),
        np.random.SeedSequence(2),
        Stopping(64),
    )[0]
    assert (late.details["stopped"], late.coalitions, late.evaluations) == ("budget", 0, 0)
    assert abs(late.residual[0]) < 1e-12
    assert not late.exact
    assert np.isinf(late.upper - late.lower).all()


def test_permutation_is_additive_and_covers(truth):
    rows, background, exact = truth
    covered = []
    for seed in range(8):
        found = permutation_rows(game(network, rows, background), 440, np.random.SeedSequence(seed))
        for one, expected in zip(found, exact, strict=True):
            assert abs(one.residual[0]) < 1e-12
            covered.append((one.lower[:, 0] <= expected) & (expected <= one.upper[:, 0]))
    assert 0.93 <= np.mean(covered) <= 0.995


def test_players_that_never_differ_get_zero_and_cost_nothing():
    rng = np.random.default_rng(6)
    rows, background = rng.normal(size=(1, 30)), rng.normal(size=(4, 30))
    background[:, 3:] = rows[0, 3:]
    one = sampled_rows(game(lambda t: t.sum(axis=1), rows, background), np.random.SeedSequence(0), Stopping(500))[0]
    assert one.exact
    assert one.coalitions <= 8
    assert (one.values[3:] == 0).all()


@pytest.mark.parametrize("freedom", [0.5, 1, 1.7, 2, 3, 5, 12, 40, 400, 1e5, float("inf")])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99, 0.99999])
def test_student_quantile_is_scipys(freedom, confidence):
    from scipy.stats import t

    assert student_quantile(confidence, freedom) == pytest.approx(t.ppf(0.5 + confidence / 2, freedom), rel=1e-8)


def coverage(kind, players, count, seeds, explain):
    """Mean share of the values that lie in their intervals, over games and seeds."""
    shares = []
    for seed in range(seeds):
        known = GAMES[kind](players, np.random.default_rng([seed // 2, players]))
        found = explain(known, count, np.random.SeedSequence([7, seed]))
        assert known.asked == found.coalitions <= count
        shares.append((np.abs(found.values[:, 0] - known.truth) <= found.half_width[:, 0] + 1e-9).mean())
    return float(np.mean(shares))


def by_permutations(known, count, seed):
    return permutation_shapley(known, known.ends(), count, seed)


@pytest.mark.parametrize(
    ("kind", "players", "count"),
    [
        ("threshold", 8, 28),
        ("threshold", 8, 64),
        ("threshold", 20, 512),
        ("conjunction", 8, 28),
        ("conjunction", 20, 512),
        ("parity", 9, 48),
        ("additive and noise", 8, 28),
        ("sparse", 8, 28),
        ("smooth", 8, 28),
    ],
)
def test_intervals_of_few_permutations_cover(kind, players, count):
    assert coverage(kind, players, count, 60, by_permutations) >= 0.93


@pytest.mark.parametrize(
    ("kind", "players", "count"),
    [
        ("threshold", 8, 64),
        ("threshold", 11, 200),
        ("threshold", 20, 128),
        ("conjunction", 11, 200),
        ("parity", 9, 128),
        ("additive and noise", 11, 500),
        ("sparse", 8, 64),
        ("smooth", 8, 128),
    ],
)
def test_sampled_intervals_cover_on_games_that_are_not_smooth(kind, players, count):
    def by_coalitions(known, count, seed):
        return sampled_shapley(known, known.total(), seed, Stopping(count))

    assert coverage(kind, players, count, 30, by_coalitions) >= 0.93


@pytest.mark.parametrize(("kind", "players"), [("threshold", 11), ("additive and noise", 12), ("sparse", 12)])
def test_intervals_that_decided_when_to_stop_still_cover(kind, players):
    used = []

    def until_precise(known, count, seed):
        found = sampled_shapley(known, known.total(), seed, Stopping(count, precision=0.3))
        used.append(found.coalitions)
        return found

    assert coverage(kind, players, 1000, 24, until_precise) >= 0.94
    assert min(used) < 1000  # some were stopped by their width


def test_the_looks_of_a_stopping_rule_spend_no_more_than_their_level():
    spent = [1 - level_of_look(0.95, look) for look in range(1, 200)]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) == pytest.approx(0.05, rel=0.01)
    assert sum(spent) < 0.05


@pytest.mark.parametrize("players", [2, 3, 8, 21])
@pytest.mark.parametrize("count", [4, 16, 17, 64, 333])
def test_permutations_never_ask_for_more_than_they_may(players, count):
    known = GAMES["parity"](players, np.random.default_rng(0))
    if count < players - 1:
        with pytest.raises(NotExplainable, match=f"expected at least {players - 1}"):
            by_permutations(known, count, np.random.SeedSequence(1))
        assert known.asked == 0
        return
    found = by_permutations(known, count, np.random.SeedSequence(1))
    assert known.asked == found.coalitions <= count
    assert found.values.sum() == pytest.approx(players % 2)
    assert np.isinf(found.half_width).all() == (count < 4 * (players - 1))


def test_game_of_one_box_is_shared_by_several_calls(truth):
    rows, background, _ = truth
    box_game = game(network, rows, background)
    before = box_game.box.rows
    from governed_serving.explainer.game import RowGame

    found = sampled_shapley(
        RowGame(box_game, 0), box_game.row_outputs[0] - box_game.base, np.random.SeedSequence(0), Stopping(64)
    )
    assert isinstance(box_game.box, BlackBox)
    assert box_game.box.rows - before <= 64 * 12 + 4 + 12
    assert found.coalitions == 64

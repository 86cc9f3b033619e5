"""What share of 95 % intervals holds the truth: every interval that the explainer prints, on models and on games whose
truth is known. Forests and networks have enough repetitions that the table errs by less than a point."""

import sys
from pathlib import Path

import numpy as np
import shap
from sampling import classifier
from shapes import columns_of
from sklearn.ensemble import RandomForestClassifier
from table import show

sys.path[:0] = [str(Path(__file__).parents[2])]

from governed_serving.blackbox.box import BlackBox  # noqa: E402
from governed_serving.explainer.local.anchors import find_anchor  # noqa: E402
from governed_serving.explainer.local.lime_tabular import bins, lime_tabular  # noqa: E402
from governed_serving.explainer.overall.importance import permutation_importance  # noqa: E402
from governed_serving.explainer.players import Players  # noqa: E402
from governed_serving.explainer.shapley.cells import (  # noqa: E402
    interaction_matrix,
    shapley_matrix,
    subsets,
    with_main,
)
from governed_serving.explainer.shapley.interactions import (  # noqa: E402
    ROUNDS,
    round_cost,
    sampled_interactions,
)
from governed_serving.explainer.shapley.permutation import permutation_shapley  # noqa: E402
from governed_serving.explainer.shapley.sampled import Stopping, sampled_shapley  # noqa: E402
from unit.explainer.games import GAMES, KnownGame  # noqa: E402

BACKGROUND, ROWS = 20, 12
CASES = (
    ("forest", 13, (256, 512, 1024, 2074), 12),
    ("network", 13, (256, 512, 1024, 2074), 12),
    ("forest", 30, (512, 2108), 12),
    ("forest", 60, (512, 2168), 12),
)
"""Model, features, coalitions, seeds of each row."""

PLAYERS, COALITIONS, REPEATS = (8, 13, 20, 40, 60), 512, 12
"""Of the games: sizes, coalitions of a sample (of 8 players 64, of 13 128: fewer than there are), games of each."""

LOCAL_SEEDS = 60
"""Searches and fits of the methods of single rows, and shuffles."""


class Table:
    """A game whose values are all known: shape (2^size, 1)."""

    def __init__(self, values: np.ndarray) -> None:
        self.known, self.size, self.box = values, int(np.log2(len(values))), BlackBox(lambda columns: columns["x"])
        self.bits = 1 << np.arange(self.size)

    def values(self, masks: np.ndarray) -> np.ndarray:
        return self.known[masks @ self.bits]


class Asked:
    """The interventional game of one row, asked of the model."""

    def __init__(self, predict, row: np.ndarray, background: np.ndarray) -> None:
        self.predict, self.row, self.background = predict, row, background
        self.size, self.box = len(row), BlackBox(lambda columns: columns["x"])

    def values(self, masks: np.ndarray) -> np.ndarray:
        hybrids = np.where(masks[:, None, :], self.row, self.background[None])
        return self.predict(hybrids.reshape(-1, self.size)).reshape(len(masks), -1).mean(axis=1, keepdims=True)


def measure(alibi_python: str) -> None:  # noqa: ARG001  alibi gives no intervals
    table = []
    for kind, width, counts, seeds in CASES:
        x, model = classifier(kind, width)
        background, rows = x[:BACKGROUND], x[100 : 100 + ROWS]

        def predict(z: np.ndarray, model=model) -> np.ndarray:
            return model.predict_proba(np.asarray(z, np.float32))[:, 1]

        games, truths = _games(predict, model, width, rows, background)
        for count in counts:
            table.append([f"{kind}, {width} features", count, *_covered(games, truths, count, seeds)])
    _models(table)
    _known_games()
    _pairs()
    _other_intervals()


def _pairs() -> None:
    """Interactions of pairs and main effects, sampled by rounds, on games that can be enumerated."""
    table = []
    for kind, make in GAMES.items():
        for players in (8, 13):
            games = [make(players, np.random.default_rng([players, seed])) for seed in range(REPEATS)]
            tables = [game.values(subsets(players))[:, 0] for game in games]
            row = [f"{kind}, {players}"]
            for rounds in (2, 5, ROUNDS):
                if rounds * round_cost(players) >= 1 << players:  # then all coalitions are asked for
                    row += ["-"] * 3
                    continue
                inside: dict[str, list] = {"pairs": [], "main": []}
                width, error = 0.0, 0.0
                for seed, (game, known) in enumerate(zip(games, tables, strict=True)):
                    for again in range(4):
                        streams = np.random.SeedSequence([4, seed, again])
                        found = sampled_interactions(game, game.ends(), rounds * round_cost(players), streams)
                        off = found.pairs[:, 0] - known @ interaction_matrix(players)
                        inside["pairs"].append(np.abs(off) <= found.pairs_half[:, 0] + 1e-9)
                        main = (
                            with_main(found.values, found.pairs)[:, 0]
                            - with_main(
                                (known @ shapley_matrix(players))[:, None],
                                (known @ interaction_matrix(players))[:, None],
                            )[:, 0]
                        )
                        inside["main"].append(np.abs(main) <= found.main_half[:, 0] + 1e-9)
                        width, error = width + float((found.pairs_half**2).mean()), error + float((off**2).mean())
                shares = [100 * float(np.mean(inside[what])) for what in ("pairs", "main")]
                row += [*shares, f"{np.sqrt(width / error):.1f}" if error > 1e-18 else "-"]
            table.append(row)
    show(
        f"Coverage of 95 % intervals of interactions, {REPEATS} games of each size, four samples of each",
        ["game, players"]
        + [f"{rounds} rounds {what}" for rounds in (2, 5, ROUNDS) for what in ("pairs %", "main %", "width")],
        table,
        "target: 95 ± 2 % or wider. Width: of pairs, as above",
    )


def _models(table: list[list]) -> None:
    show(
        f"Coverage of 95 % intervals: {ROWS} rows × seeds, {BACKGROUND} background rows",
        [
            "",
            "coalitions",
            "explanations",
            "coverage %",
            "its standard error %",
            "half-width ÷ root mean squared error",
        ],
        table,
        "target: 95 ± 2 %. The standard error is over rows and seeds; values of one explanation aren't independent. "
        "For normal errors of known variance 1.96 root mean squared errors would do",
    )


def _games(predict, model, width: int, rows: np.ndarray, background: np.ndarray) -> tuple[list, np.ndarray]:
    if width <= 13:
        masks = subsets(width)
        games = [Table(Asked(predict, row, background).values(masks)) for row in rows]
        return games, np.array([(shapley_matrix(width).T @ game.known)[:, 0] for game in games])
    assert isinstance(model, RandomForestClassifier), "the truth for many features comes from TreeSHAP"
    explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    truths = np.asarray(explainer.shap_values(rows, check_additivity=False))[..., 1]
    return [Asked(predict, row, background) for row in rows], truths


def _covered(games: list, truths: np.ndarray, count: int, seeds: int) -> list:
    shares, widths, errors = [], [], []
    for index, (game, truth) in enumerate(zip(games, truths, strict=True)):
        ends = game.values(np.array([[False] * game.size, [True] * game.size]))
        for seed in range(seeds):
            found = sampled_shapley(game, ends[1] - ends[0], np.random.SeedSequence([index, seed]), Stopping(count))
            off = found.values[:, 0] - truth
            shares.append(float((np.abs(off) <= found.half_width[:, 0]).mean()))
            widths.append(float((found.half_width**2).mean()))
            errors.append(float((off**2).mean()))
    standard = float(np.std(shares, ddof=1) / np.sqrt(len(shares)))
    return [
        len(shares),
        100 * float(np.mean(shares)),
        100 * standard,
        float(np.sqrt(np.mean(widths) / np.mean(errors))),
    ]


def _known_games() -> None:
    """Sampled, stopped by precision, and by permutations, of which few are allowed, too."""
    table = []
    for kind, make in GAMES.items():
        for players in PLAYERS:
            if kind == "smooth" and players > 13:
                continue
            count = {8: 64, 13: 128}.get(players, COALITIONS)
            games = [make(players, np.random.default_rng([players, seed])) for seed in range(REPEATS)]
            table.append(
                [
                    f"{kind}, {players}",
                    count,
                    *_held(games, lambda g, s, n=count: sampled_shapley(g, g.total(), s, Stopping(n))),
                    *_held(games, lambda g, s: sampled_shapley(g, g.total(), s, Stopping(COALITIONS, precision=0.3))),
                    *_held(games, lambda g, s, n=4 * (players - 1): permutation_shapley(g, g.ends(), n, s)),
                    *_held(games, lambda g, s, n=max(count, 8 * players): permutation_shapley(g, g.ends(), n, s)),
                ]
            )
    show(
        f"Coverage of 95 % intervals on games of known truth, {REPEATS} of each size; widths: half of one ÷ root mean "
        "squared error",
        ["game, players", "coalitions"]
        + [f"{how} {what}" for how in ("sampled", "stopped", "2 walks", "walks") for what in ("%", "width")],
        table,
        "target: 95 ± 2 % or wider. Stopped: as soon as the widest is 0.3 of the range. Even parity is 0 without error",
    )


def _held(games: list[KnownGame], explain) -> tuple[float, str]:
    """Percent of the values inside, and root mean square half-width over that of the errors."""
    shares, widths, errors = [], 0.0, 0.0
    for seed, game in enumerate(games):
        found = explain(game, np.random.SeedSequence([3, seed]))
        off = np.abs(found.values[:, 0] - game.truth)
        shares.append((off <= found.half_width[:, 0] + 1e-9).mean())
        widths, errors = widths + float((found.half_width**2).mean()), errors + float((off**2).mean())
    return 100 * float(np.mean(shares)), f"{np.sqrt(widths / errors):.1f}" if errors > 1e-18 else "-"


def _other_intervals() -> None:
    """LIME's coefficients against their own limit, an anchor's precision, and importances by shuffling."""
    width, kinds = 6, {"steep": 6.0, "gentle": 1.0}
    rng = np.random.default_rng(11)
    background, weights = rng.normal(size=(120, width)), rng.normal(size=width)
    players = Players.of_groups(list(columns_of(background)), {})
    table = []
    for kind, slope in kinds.items():

        def predict(columns, slope=slope):
            p = 1 / (1 + np.exp(-slope * np.stack(list(columns.values()), axis=1) @ weights))
            return np.stack([1 - p, p], axis=1)

        box, back = BlackBox(predict), columns_of(background)
        table += [
            [kind, "lime, 300 samples", *_lime(box, back, players, rng)],
            [kind, "anchors, 1,500 samples", *_anchors(predict, back, players, rng)],
            [kind, "importance, 5 shuffles", *_shuffled(box, back, players)],
        ]
    show(
        f"Coverage of the other 95 % intervals, {LOCAL_SEEDS} seeds",
        ["outcome", "interval", "coverage %", "its standard error %"],
        table,
        "target: 95 ± 2 % or wider. LIME's limit: 100,000 samples. Importances: mean of 400 shuffles",
    )


def _percent(inside: list) -> tuple[float, float]:
    shares = np.array([np.mean(one) for one in inside], float)
    return 100 * float(shares.mean()), 100 * float(shares.std(ddof=1) / np.sqrt(len(shares)))


def _lime(box: BlackBox, background, players: Players, rng: np.random.Generator) -> tuple[float, float]:
    inside = []
    for _ in range(4):
        row = columns_of(rng.normal(size=(1, len(players))))

        def fit(samples: int, seed: int, row=row):
            return lime_tabular(box, row, background, players, samples=samples, seed=np.random.SeedSequence(seed))[0]

        limit = fit(100_000, 10**6).values[:, 1]
        for seed in range(LOCAL_SEEDS // 4):
            one = fit(300, seed)
            inside.append((one.lower[:, 1] <= limit) & (limit <= one.upper[:, 1]))
    return _percent(inside)


def _anchors(predict, background, players: Players, rng: np.random.Generator) -> tuple[float, float]:
    inside = []
    for seed in range(LOCAL_SEEDS):
        row = columns_of(rng.normal(size=(1, len(players))))
        found = find_anchor(
            BlackBox(predict), row, background, players, samples=1500, seed=np.random.SeedSequence(seed)
        )
        drawn = {}
        for name, values in background.items():
            same = bins(values, values) == bins(row[name], values)[0]
            pool = np.flatnonzero(same) if name in found.predicates else np.arange(len(values))
            drawn[name] = values[rng.choice(pool, 50_000)] if len(pool) else np.repeat(row[name], 50_000)
        precision = (predict(drawn).argmax(axis=1) == predict(row)[0].argmax()).mean()
        inside.append([found.interval[0] - 1e-3 <= precision <= found.interval[1] + 1e-3])
    return _percent(inside)


def _shuffled(box: BlackBox, background, players: Players) -> tuple[float, float]:
    def importance(repeats: int, seed: int):
        return permutation_importance(box, background, players, repeats=repeats, seed=np.random.SeedSequence(seed))

    limit = importance(400, 10**6).values
    found = [importance(5, seed) for seed in range(LOCAL_SEEDS)]
    return _percent([(one.lower <= limit) & (limit <= one.upper) for one in found])

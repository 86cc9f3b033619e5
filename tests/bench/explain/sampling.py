"""Sampled Shapley values: squared error beside shap.KernelExplainer at equal evaluations, and what share of intervals
holds the truth."""

import numpy as np
import shap
from shapes import columns_of
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from table import seconds, show

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.exact import exact_shapley
from governed_serving.explainer.shapley.permutation import permutation_rows
from governed_serving.explainer.shapley.sampled import Stopping, sampled_rows

BACKGROUND, ROWS, SEEDS = 20, 4, 5
CASES = (("forest", 13), ("network", 13), ("forest", 30), ("forest", 60))


def data(width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width)
    x = rng.normal(size=(2500, width)).astype(np.float32)
    weights = rng.normal(size=width) * np.exp(-np.arange(width) / 8)
    margin = x @ weights + 1.5 * x[:, 0] * x[:, 1] - x[:, 2] * x[:, 3] + np.sin(2 * x[:, 4]) * x[:, 5] * x[:, 6]
    return x, (margin + 0.3 * rng.normal(size=len(x)) > 0).astype(int)


def classifier(kind: str, width: int):
    """(rows, a fitted forest or network)."""
    x, y = data(width)
    forest = RandomForestClassifier(40, max_depth=8, random_state=0)
    return x, (forest if kind == "forest" else MLPClassifier((32, 32), max_iter=80, random_state=0)).fit(x, y)


def _game(predict, rows: np.ndarray, background: np.ndarray) -> InterventionalGame:
    box = BlackBox(lambda c: predict(np.stack(list(c.values()), axis=1)))
    return InterventionalGame(
        box, columns_of(rows), columns_of(background), Players.of_groups(list(columns_of(rows)), {})
    )


def measure(alibi_python: str) -> None:  # noqa: ARG001  alibi's KernelShap is shap's
    table = []
    for kind, width in CASES:
        x, model = classifier(kind, width)
        table += _case(kind, width, model, x[:BACKGROUND], x[100 : 100 + ROWS])
    show(
        f"Sampled Shapley values: mean squared error (summed over features), {ROWS} rows × {BACKGROUND} "
        f"background rows, {SEEDS} seeds",
        [
            "",
            "coalitions",
            "shap default",
            "shap l1_reg off",
            "permutation",
            "ours",
            "ours ÷ shap (l1 off)",
            "coverage of 95 %",
            "s a row beyond the model",
        ],
        table,
        "target: ours at most half of shap's error (coverage: see its own table, this one has too few "
        "repetitions). Truth: enumeration (13 features), TreeSHAP by shap (30, 60)",
    )


def _case(kind: str, width: int, model, background: np.ndarray, rows: np.ndarray) -> list[list]:
    def predict(table: np.ndarray) -> np.ndarray:
        return model.predict_proba(np.asarray(table, np.float32))[:, 1]

    if kind == "forest":
        explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
        truth = np.asarray(explainer.shap_values(rows, check_additivity=False))[..., 1]
    else:
        truth = np.array([one.values[:, 0] for one in exact_shapley(_game(predict, rows, background))])

    def error(values: np.ndarray) -> float:
        return float(((values - truth) ** 2).sum(axis=1).mean())

    out = []
    for count in (512, 2 * width + 2048):
        kernel = shap.KernelExplainer(predict, background)
        np.random.seed(0)
        default = error(np.array(kernel.shap_values(rows, nsamples=count, silent=True)))
        plain = error(np.array(kernel.shap_values(rows, nsamples=count, l1_reg=False, silent=True)))
        errors, walks, covered, overhead = [], [], [], 0.0
        for seed in range(SEEDS):
            game = _game(predict, rows, background)
            spent, found = seconds(
                lambda g=game, s=seed, n=count: sampled_rows(g, np.random.SeedSequence(s), Stopping(n))
            )
            values = np.array([one.values[:, 0] for one in found])
            errors.append(error(values))
            covered.append(
                np.mean([(one.lower[:, 0] <= t) & (t <= one.upper[:, 0]) for one, t in zip(found, truth, strict=True)])
            )
            overhead += (
                spent
                - seconds(lambda n=game.box.rows: predict(np.repeat(background, n // BACKGROUND + 1, axis=0)[:n]))[0]
            )
        walks = error(
            np.array(
                [
                    one.values[:, 0]
                    for one in permutation_rows(_game(predict, rows, background), count, np.random.SeedSequence(0))
                ]
            )
        )
        mine = float(np.mean(errors))
        out.append(
            [
                f"{kind}, {width} features",
                count,
                default,
                plain,
                walks,
                mine,
                mine / plain,
                f"{np.mean(covered):.1%}",
                max(overhead, 0) / SEEDS / ROWS,
            ]
        )
    return out

"""What share of 95 % intervals of sampled Shapley values holds the truth, with enough repetitions that the table errs
by less than a point."""

import numpy as np
import shap
from sampling import classifier
from sklearn.ensemble import RandomForestClassifier
from table import show

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.shapley.exact import shapley_matrix, subsets
from governed_serving.explainer.shapley.sampled import Stopping, sampled_shapley

BACKGROUND, ROWS = 20, 12
CASES = (
    ("forest", 13, (256, 512, 1024, 2074), 12),
    ("network", 13, (256, 512, 1024, 2074), 12),
    ("forest", 30, (512, 2108), 12),
    ("forest", 60, (512, 2168), 12),
)
"""Model, features, coalitions, seeds of each row."""


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

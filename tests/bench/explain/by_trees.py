"""A forest of 100 trees on 30 features, through ONNX Runtime: milliseconds and model rows per explanation."""

import lime.lime_tabular
import numpy as np
import shap
from shapes import alibi, columns_of, session
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from table import best_ms, show

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.graph.ensemble import read_trees
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.local.anchors import find_anchor
from governed_serving.explainer.local.lime_tabular import lime_tabular
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.sampled import Stopping, sampled_rows
from governed_serving.explainer.shapley.trees import TreeExplainer

WIDTH, BACKGROUND = 30, 100
EVALUATIONS = 2048


def measure(alibi_python: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, WIDTH)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + x[:, 2] + 0.5 * rng.normal(size=2000) > 0).astype(int)
    forest = RandomForestClassifier(100, max_depth=8, random_state=0).fit(x, y)
    model = to_onnx(
        forest, x[:1], options={id(forest): {"zipmap": False}}, target_opset={"": 17, "ai.onnx.ml": 3}
    ).SerializeToString()
    background, rows = x[:BACKGROUND], x[500:540]
    run = session(model)

    def predict(table: np.ndarray) -> np.ndarray:
        return run.run(["probabilities"], {"X": np.asarray(table, np.float32)})[0]

    names = list(columns_of(rows))
    players = Players.of_groups(list(names), {})
    read = read_trees(Graph(model, {}), "probabilities")
    z = read.columns(columns_of(background))
    explainer = TreeExplainer(
        read.trees, z, np.full(BACKGROUND, 1 / BACKGROUND), read.owners(columns_of(background), players), WIDTH
    )
    truth = explainer.explain(rows)[..., 0]
    table, fastest = [], best_ms(lambda i: explainer.explain(rows[i : i + 1]), 40)

    def add(name: str, work, count: int, evaluated: float, error: float | str) -> None:
        median, least = best_ms(work, count)
        table.append([name, median, least, median / fastest[0], evaluated, error])

    table.append(["ours TreeSHAP from the graph (exact)", *fastest, 1.0, 0.0, 0.0])
    library = shap.TreeExplainer(forest, background, feature_perturbation="interventional")
    theirs = np.asarray(library.shap_values(rows[:2], check_additivity=False))[..., 1]
    add(
        "shap TreeExplainer (C++, from scikit-learn)",
        lambda i: library.shap_values(rows[i : i + 1], check_additivity=False),
        10,
        0.0,
        float(np.abs(theirs - truth[:2]).max()),
    )
    _ours(add, predict, rows, background, players, truth)
    _peers(add, predict, rows, background, truth, x)
    if got := alibi(alibi_python, "kernel", model, background=background, rows=rows[:2]):
        error = float(np.abs(np.array(got["values"]) - truth[:2]).max())
        table.append(
            [
                "alibi KernelShap",
                got["seconds"] * 1000,
                got["seconds"] * 1000,
                got["seconds"] * 1000 / fastest[0],
                got["evaluated"] / 2,
                error,
            ]
        )
    if got := alibi(alibi_python, "anchor", model, train=x[:500], rows=rows[:3]):
        note = f"precision {got['precision']:.3f}, {got['length']:.1f} predicates"
        table.append(
            [
                "alibi AnchorTabular",
                got["seconds"] * 1000,
                got["seconds"] * 1000,
                got["seconds"] * 1000 / fastest[0],
                got["evaluated"],
                note,
            ]
        )
    show(
        f"Forest of 100 trees, {WIDTH} features, {BACKGROUND} background rows: one explanation",
        ["", "CPU ms (median)", "CPU ms (least)", "time ÷ ours", "model rows", "largest difference from exact"],
        table,
        f"target: exact TreeSHAP read from the ONNX graph ≤ 5 ms; {len(explainer._starts)} leaves",
    )


def _ours(add, predict, rows: np.ndarray, background: np.ndarray, players: Players, truth: np.ndarray) -> None:
    box = BlackBox(lambda c: predict(np.stack(list(c.values()), axis=1)))

    def sampled(i: int):
        game = InterventionalGame(box, columns_of(rows[i : i + 1]), columns_of(background), players)
        return sampled_rows(game, np.random.SeedSequence(i), Stopping(EVALUATIONS))[0]

    found = [sampled(i).values[:, 1] for i in range(2)]
    add(
        f"ours sampled ({EVALUATIONS} coalitions)",
        sampled,
        3,
        float(EVALUATIONS * BACKGROUND),
        float(np.abs(found - truth[:2]).max()),
    )
    add(
        "ours LIME (5,000 samples)",
        lambda i: lime_tabular(
            box,
            columns_of(rows[i : i + 1]),
            columns_of(background),
            players,
            samples=5000,
            seed=np.random.SeedSequence(i),
        ),
        5,
        5000.0,
        "–",
    )
    anchors = [
        find_anchor(
            box,
            columns_of(rows[i : i + 1]),
            columns_of(background),
            players,
            samples=20_000,
            seed=np.random.SeedSequence(i),
        )
        for i in range(3)
    ]
    note = (
        f"precision {np.mean([a.precision for a in anchors]):.3f}, "
        f"{np.mean([len(a.predicates) for a in anchors]):.1f} predicates"
    )
    add(
        "ours anchors",
        lambda i: find_anchor(
            box,
            columns_of(rows[i : i + 1]),
            columns_of(background),
            players,
            samples=20_000,
            seed=np.random.SeedSequence(i),
        ),
        3,
        float(np.mean([a.evaluations for a in anchors])),
        note,
    )


def _peers(add, predict, rows: np.ndarray, background: np.ndarray, truth: np.ndarray, train: np.ndarray) -> None:
    def one(table: np.ndarray) -> np.ndarray:
        return predict(table)[:, 1].astype(float)

    kernel = shap.KernelExplainer(one, background)
    values = np.array(kernel.shap_values(rows[:2], nsamples=EVALUATIONS, l1_reg=False, silent=True))
    add(
        f"shap Kernel ({EVALUATIONS}, l1_reg off)",
        lambda i: kernel.shap_values(rows[i : i + 1], nsamples=EVALUATIONS, l1_reg=False, silent=True),
        3,
        float(EVALUATIONS * BACKGROUND),
        float(np.abs(values - truth[:2]).max()),
    )
    permutation = shap.explainers.Permutation(one, shap.maskers.Independent(background, max_samples=BACKGROUND), seed=0)
    values = permutation(rows[:2], silent=True).values
    add(
        "shap Permutation (default)",
        lambda i: permutation(rows[i : i + 1], silent=True),
        3,
        float(10 * (2 * WIDTH + 1) * BACKGROUND),
        float(np.abs(values - truth[:2]).max()),
    )
    library = lime.lime_tabular.LimeTabularExplainer(train, discretize_continuous=True, random_state=0)
    add(
        "lime (5,000 samples)",
        lambda i: library.explain_instance(rows[i], lambda t: predict(t), num_features=WIDTH),
        3,
        5000.0,
        "–",
    )

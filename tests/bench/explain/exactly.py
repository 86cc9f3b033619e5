"""Exact Shapley values on alibi's benchmark shape: 12 groups, 100 background rows, 128 rows, logistic regression
through ONNX Runtime."""

import time

import numpy as np
import shap
from shapes import adult_like, alibi, columns_of, logistic, session
from table import seconds, show

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.exact import exact_shapley

ROWS, BACKGROUND = 128, 100
SHAP_ROWS, ALIBI_ROWS = 4, 8
LONE_BATCH = 32_768
"""Rows of a call when the model's own cost is measured."""


def measure(alibi_python: str) -> None:
    rng = np.random.default_rng(5)
    cases = {
        "Adult's shape (8 categoricals, 4 numbers)": (logistic(True), adult_like(BACKGROUND, 1), adult_like(ROWS, 2)),
        "12 continuous features (worst case)": (
            logistic(False),
            rng.normal(size=(BACKGROUND, 12)).astype(np.float32),
            rng.normal(size=(ROWS, 12)).astype(np.float32),
        ),
    }
    for title, (model, background, rows) in cases.items():
        _case(title, model, background, rows, alibi_python)


def _case(title: str, model: bytes, background: np.ndarray, rows: np.ndarray, alibi_python: str) -> None:
    run = session(model)

    def predict(table: np.ndarray) -> np.ndarray:
        table = np.asarray(table, np.float32)
        return run.run(None, {f"f{i}": np.ascontiguousarray(table[:, i : i + 1]) for i in range(12)})[0]

    def columnar(columns: dict[str, np.ndarray]) -> np.ndarray:
        return run.run(None, {name: values.reshape(-1, 1) for name, values in columns.items()})[0]

    def ours(workers: int) -> tuple[float, list, int]:
        box = BlackBox(columnar, workers=workers)
        game = InterventionalGame(
            box, columns_of(rows), columns_of(background), Players.of_groups(list(columns_of(rows)), {})
        )
        start = time.perf_counter()
        spent, found = seconds(lambda: exact_shapley(game))
        wall[workers] = min(wall.get(workers, float("inf")), time.perf_counter() - start)
        return spent, found, box.rows

    wall: dict[int, float] = {}
    two, found, evaluated = min((ours(2) for _ in range(3)), key=lambda one: one[0])
    one, _, _ = ours(1)
    values = np.array([a.values[:, 0] for a in found])
    exact = shap.explainers.Exact(
        lambda t: predict(t)[:, 0].astype(float), shap.maskers.Independent(background, max_samples=BACKGROUND)
    )
    exact(rows[:1])
    theirs, oracle = seconds(lambda: exact(rows[:SHAP_ROWS]))
    kernel = shap.KernelExplainer(lambda t: predict(t)[:, 0].astype(float), background)
    spent, sampled = seconds(lambda: kernel.shap_values(rows[:SHAP_ROWS], l1_reg=False, silent=True))

    batch = {name: np.resize(values, (LONE_BATCH, 1)) for name, values in columns_of(background).items()}
    run.run(None, batch)
    alone = min(seconds(lambda: run.run(None, batch))[0] for _ in range(20)) * evaluated / LONE_BATCH

    def error(other: np.ndarray) -> float:
        return float(np.abs(other - values[: len(other)]).max())

    table = [
        ["ours exact, 2 workers", two, wall[2], two / ROWS * 1000, 1.0, evaluated / ROWS, 0.0],
        ["ours exact, 1 worker", one, wall[1], one / ROWS * 1000, one / two, evaluated / ROWS, 0.0],
        [
            "shap Exact",
            theirs / SHAP_ROWS * ROWS,
            "–",
            theirs / SHAP_ROWS * 1000,
            theirs / SHAP_ROWS * ROWS / two,
            4096.0 * BACKGROUND,
            error(oracle.values),
        ],
        [
            "shap Kernel (sampled)",
            spent / SHAP_ROWS * ROWS,
            "–",
            spent / SHAP_ROWS * 1000,
            spent / SHAP_ROWS * ROWS / two,
            2072.0 * BACKGROUND,
            error(np.array(sampled)),
        ],
    ]
    if got := alibi(alibi_python, "kernel", model, background=background, rows=rows[:ALIBI_ROWS]):
        table.append(
            [
                "alibi KernelShap (sampled)",
                got["seconds"] * ROWS,
                "–",
                got["seconds"] * 1000,
                got["seconds"] * ROWS / two,
                got["evaluated"] / ALIBI_ROWS,
                error(np.array(got["values"])),
            ]
        )
    show(
        f"Exact Shapley values: {title}, {ROWS} rows × {BACKGROUND} background rows",
        ["", "CPU s for 128 rows", "wall s", "CPU ms a row", "time ÷ ours", "model rows a row", "largest difference"],
        table,
        f"peers: measured on {SHAP_ROWS} rows ({ALIBI_ROWS} for alibi), scaled to {ROWS}; target: ours ≤ 2 s on "
        "two cores. "
        f"The model alone, same batches: {alone:.3g} CPU s",
    )

"""No metric without an oracle, a line in the README, and a direction: generated from the manifest's list of names."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import governed_serving.fairness
from governed_api.governance import RATIOS, MetricBounds
from governed_serving.fairness.counts.cells import Cells, coded
from governed_serving.fairness.metrics.measures import findings

from .oracles import ORACLES, people

NAMES: tuple[str, ...] = MetricBounds.model_json_schema()["properties"]["name"]["enum"]
README = Path(governed_serving.fairness.__file__).with_name("README.md").read_text()
LINES = {
    name: line
    for line in README.split("## Metrics\n")[1].split("\n## ")[0].splitlines()
    for name in re.findall(r"`(\w+)`", line.split("|")[1] if line.startswith("|") else "")
}
"""Metric → its line in the README's table: | names | value | worse off |."""


@cache
def counted(rows: int, seed: int) -> Cells:
    d = people(rows, seed)
    cells = Cells(("sex", "office"), scored=[("sex",)])
    columns = {"sex": coded(d.group), "office": coded(d.stratum)}
    cells.add(columns, d.decision, d.label, d.score)
    assert cells.scores is not None
    for group, score, label in zip(d.group.tolist(), d.score.tolist(), d.label.tolist(), strict=True):
        cells.scores.learn({"sex": group}, score, float(label))
    return cells


def of_f(name: str, rows: int, seed: int) -> float:
    found = findings(name, counted(rows, seed), ("sex",), ("m",), ("office",), probabilities=True)
    (one,) = [f for f in found if f.group in ("f", "(all)")]
    return one.value


def test_every_metric_has_an_oracle_and_a_line() -> None:
    assert set(ORACLES) == set(NAMES)
    assert set(LINES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_metric_is_its_oracle(name: str, seed: int) -> None:
    assert of_f(name, 300 * seed, seed) == pytest.approx(ORACLES[name](people(300 * seed, seed)), abs=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_points_where_the_readme_says(name: str) -> None:
    """f is scored too low."""
    word = LINES[name].rstrip(" |").rsplit("|", 1)[1].strip()
    value = of_f(name, 2000, 9) - (1.0 if name in RATIOS else 0.0)
    assert word in ("below", "above", "–")
    if word == "–":  # about labels alone
        assert abs(value) < 0.05
    else:
        assert np.sign(value) == (1 if word == "above" else -1)

"""What bounds must contain, as the manifest's rules have it, is what the metrics are where all are treated alike."""

import numpy as np
import pytest

from governed_api.governance import AT_MOST_ONE, RATIOS, SIZES, WITHIN_ONE, MetricBounds
from governed_serving.fairness.counts.cells import Cells, coded
from governed_serving.fairness.metrics.measures import ENTROPIES, findings
from governed_serving.fairness.metrics.metrics import LEAST_REFERENCE

NAMES: tuple[str, ...] = MetricBounds.model_json_schema()["properties"]["name"]["enum"]
SUBJECT = ("sex",)


def people(rng: np.random.Generator, rows: int) -> Cells:
    """Of three groups in two strata, with probabilities and labels that are right at random."""
    cells = Cells(("sex", "region"), scored=[SUBJECT])
    columns = {"sex": coded(rng.choice(list("fmx"), rows)), "region": coded(rng.choice(list("ab"), rows))}
    score = rng.random(rows).astype(np.float32)
    label = (rng.random(rows) < 0.5).astype(np.int8)
    cells.add(columns, score > rng.random(rows), label, score)
    add_labels(cells, columns["sex"], score, label)
    return cells


def add_labels(cells: Cells, groups: tuple[np.ndarray, list[str]], score: np.ndarray, label: np.ndarray) -> None:
    assert cells.scores is not None
    for place, group in enumerate(groups[1]):
        for row in np.flatnonzero(groups[0] == place).tolist():
            cells.scores.learn({"sex": group}, float(score[row]), float(label[row]))


def alike(*, errors: bool) -> Cells:
    """Each group the same rows, with scores that are right as often as they say; ``errors``: sometimes wrong."""
    cells = Cells(("sex", "region"), scored=[SUBJECT])
    score = np.array([0.25, 0.75] * 40 if errors else [0.0, 1.0] * 40, np.float32)
    label = np.array([0, 1, 0, 1, 0, 1, 1, 0] * 10 if errors else [0, 1] * 40, np.int8)
    for sex in "fmx":
        columns = {"sex": coded(np.array([sex] * 80)), "region": coded(np.array(list("aaaabbbb") * 10))}
        cells.add(columns, score > 0.5, label, score)
        add_labels(cells, columns["sex"], score, label)
    return cells


@pytest.mark.parametrize("name", NAMES)
def test_parity_is_what_a_metric_is_where_all_are_treated_alike(name: str) -> None:
    """Entropy indices are about right decisions, and alike only where all are."""
    cells = alike(errors=name not in ENTROPIES)
    found = findings(name, cells, SUBJECT, ("m",), ("region",), probabilities=True)
    assert found
    for one in found:
        assert one.value == pytest.approx(1.0 if name in RATIOS else 0.0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_no_metric_leaves_its_range(name: str) -> None:
    rng = np.random.default_rng(8)
    for rows in (40, 90, 400):
        for one in findings(name, people(rng, rows), SUBJECT, (), ("region",), probabilities=True):
            # the most selected category is looked for among those that are large enough
            if one.value == one.value and (name != "impactRatio" or one.support >= LEAST_REFERENCE):
                assert name not in SIZES or one.value >= 0
                assert name not in AT_MOST_ONE or one.value <= 1
                assert name not in WITHIN_ONE or -1 <= one.value <= 1

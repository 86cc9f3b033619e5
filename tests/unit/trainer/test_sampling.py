"""Samples of sorted tables: every group is there, and the scores are those of the whole table."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from governed_serving.trainer import evaluation
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.sampling import sample
from unit.trainer.manifests import COUNTS

SEEDS = range(40)


def applicants(order: str) -> Dataset:
    """Berkeley's 4,526 applicants as the sample's file lists them, or in another ``order``."""
    rows = [
        (department, sex, decision)
        for department, by_sex in COUNTS.items()
        for sex, counts in zip(("male", "female"), by_sex, strict=True)
        for decision, count in enumerate(counts)
        for _ in range(count)
    ]
    rows = {"file": rows, "reversed": rows[::-1], "decision": sorted(rows, key=lambda row: row[2])}[order]
    department, sex = (np.array([row[i] for row in rows], object) for i in (0, 1))
    label = np.array([row[2] for row in rows], np.int64)
    kinds = {"department": "categorical", "sex": "categorical"}
    columns = {"department": department, "sex": sex}
    return Dataset(columns, kinds, label, ("admitted", "rejected"), columns)


def ks(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov: distance, and its critical value at level .05."""
    at = np.union1d(a, b)
    distance = np.abs(
        np.searchsorted(np.sort(a), at, "right") / len(a) - np.searchsorted(np.sort(b), at, "right") / len(b)
    ).max()
    return float(distance), 1.358 * float(np.sqrt((len(a) + len(b)) / (len(a) * len(b))))


@pytest.mark.parametrize("order", ["file", "reversed", "decision"])
def test_every_department_has_its_share_however_the_file_is_sorted(order: str) -> None:
    rows = applicants(order)
    for seed in SEEDS:
        chosen = sample(rows, 512, seed)
        assert len(np.unique(chosen)) == 512
        for column in rows.groups.values():
            for name, count in zip(*np.unique(column.astype(str), return_counts=True), strict=True):
                assert (column[chosen] == name).sum() == pytest.approx(count * 512 / rows.rows, abs=8)
        assert rows.label[chosen].mean() == pytest.approx(rows.label.mean(), abs=0.02)


def test_the_scores_of_a_sample_are_those_of_the_table() -> None:
    size = 30_000
    score = np.sort(np.random.default_rng(3).beta(2, 5, size))
    rows = Dataset({"x": score.astype(np.float32)}, {"x": "numeric"}, score.astype(np.float32), (), {})
    for seed in SEEDS:
        distance, critical = ks(score[sample(rows, 2_000, seed)], score)
        assert distance < critical
    head, critical = ks(score[:2_000], score)
    assert head > 10 * critical, "the first rows were the reference before"


def test_each_row_has_the_same_chance() -> None:
    rows = applicants("file").at(np.arange(0, 4526, 90))
    drawn = sum(np.bincount(sample(rows, 10, seed), minlength=rows.rows) for seed in range(2000))
    expected = 2000 * 10 / rows.rows
    assert np.abs(np.asarray(drawn) - expected).max() < 5 * np.sqrt(expected)


def test_the_same_seed_gives_the_same_rows_in_whatever_order_the_columns_are() -> None:
    rows = applicants("file")
    again = Dataset.decode(rows.encode())
    turned = Dataset(rows.features, rows.types, rows.label, rows.classes, dict(reversed(rows.groups.items())))
    for other in (again, turned):
        assert np.array_equal(sample(rows, 100, 1), sample(other, 100, 1))
    assert not np.array_equal(sample(rows, 100, 1), sample(rows, 100, 2))


def test_few_rows_are_all_taken() -> None:
    rows = applicants("file")
    assert np.array_equal(sample(rows, 4526, 1), np.arange(4526))
    assert np.array_equal(sample(rows, 10**6, 1), np.arange(4526))


def test_the_explanation_gate_sees_every_department(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def watched(_: object, rows: Dataset) -> evaluation.Predictions:
        seen.append(set(rows.features["department"]))
        return evaluation.Predictions(np.zeros((rows.rows, 2), np.float32), rows.classes)

    monkeypatch.setattr(evaluation, "predict", watched)
    evaluation.importances(None, applicants("file"), 1973)  # type: ignore[arg-type]
    assert all(departments == set(COUNTS) for departments in seen)
    assert seen


def test_latency_is_measured_on_more_than_the_first_row() -> None:
    asked: set[str] = set()
    session = SimpleNamespace(run=lambda _, inputs: asked.add(str(inputs["t"][0, 0])))
    texts = np.array(["short"] * 100 + [f"a longer one {k}" for k in range(900)], object)
    rows = Dataset({"t": texts}, {"t": "categorical"}, np.zeros(1000, np.int64), ("a", "b"), {})
    assert evaluation.latencies([session], rows, runs=40)[0] > 0  # type: ignore[list-item]
    assert len(asked) > 8

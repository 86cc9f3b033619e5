"""The gates of a compression: what it does to each group and to the accuracy, judged on the same rows before and
after."""

from typing import Any

import numpy as np
import pytest

from governed_api.lifecycle import Gates
from governed_api.report import GateResult
from governed_serving.artefact import Independence
from governed_serving.fairness.inference.intervals import clopper_pearson, paired
from governed_serving.trainer import gates
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.evaluation import Predictions
from unit.trainer.manifests import ADMISSIONS_BIAS, bias

CLASSES = ("admitted", "rejected")
Groups = dict[str, tuple[int, int, int]]
"""Group → rows, favoured before, favoured after (the first ones)."""


def judged(monkeypatch: pytest.MonkeyPatch, groups: Groups, label: Any = None, **rules: Any) -> dict[str, GateResult]:
    """The gate table of a compression that does this to the groups."""
    names = np.concatenate([np.full(n, name, object) for name, (n, _, _) in groups.items()])
    was, now = (
        np.concatenate([np.arange(one[0]) < one[k] for one in groups.values()]).astype(np.float32) for k in (1, 2)
    )
    truth = (1 - was).astype(np.int64) if label is None else label
    rows = Dataset({"sex": names}, {"sex": "categorical"}, truth, CLASSES, {"sex": names})
    predictions = iter(Predictions(np.stack([p, 1 - p], 1), CLASSES) for p in (was, now))
    monkeypatch.setattr(gates, "session", lambda *_: None)
    monkeypatch.setattr(gates, "predict", lambda *_: next(predictions))
    monkeypatch.setattr(gates, "importances", lambda *_: {"sex": 1.0})
    monkeypatch.setattr(gates, "latencies", lambda *_: [1.0, 1.0])
    monkeypatch.setattr(gates, "row_independence", lambda *_, **__: Independence(True, 0, 0))
    plain = {**ADMISSIONS_BIAS, "strata": [], **rules}
    table = gates.judge(gates.Candidates(b"", b"", rows, "all", 1, 0), Gates(), bias(plain))
    return {gate.name: gate for gate in table}


def test_favour_taken_from_women_fails_beside_a_group_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"male": (1000, 509, 509), "female": (600, 300, 200), "x": (1, 0, 0)}
    gate = judged(monkeypatch, groups)["disparity/sex"]
    assert gate.verdict == "fail"
    assert gate.measured == pytest.approx(1 / 6)
    assert "sex=female: SPD -0.0090 before, -0.1757 after" in gate.message
    assert "not judged (fewer than 30 rows or 2%): x" in gate.message


def test_a_group_of_one_row_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"male": (1000, 600, 600), "female": (600, 360, 360), "x": (1, 1, 0)}
    gate = judged(monkeypatch, groups)["disparity/sex"]
    assert (gate.verdict, gate.measured) == ("pass", 0.0)
    assert gate.message.endswith("): x")


def test_a_second_groups_larger_disparity_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"male": (1000, 800, 800), "female": (500, 400, 350), "other": (500, 100, 100)}
    gate = judged(monkeypatch, groups)["disparity/sex"]
    assert gate.verdict == "fail"
    assert gate.measured == pytest.approx(0.1)
    assert "sex=female" in gate.message


def test_a_disparity_that_changes_sides_is_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = judged(monkeypatch, {"male": (1000, 500, 500), "female": (1000, 400, 600)})["disparity/sex"]
    assert gate.verdict == "fail"
    assert gate.measured == pytest.approx(0.1)


def test_a_smaller_disparity_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = judged(monkeypatch, {"male": (1000, 500, 500), "female": (1000, 300, 400)})["disparity/sex"]
    assert gate.verdict == "pass"
    assert gate.measured == pytest.approx(-0.1)


def test_the_reference_stays_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"protectedAttributes": [{"name": "sex"}]}
    gate = judged(monkeypatch, {"male": (1000, 500, 300), "female": (1000, 480, 480)}, **rules)["disparity/sex"]
    assert gate.verdict == "fail"
    assert gate.measured == pytest.approx(0.18)
    assert "sex=female: SPD -0.0200 before, +0.1800 after" in gate.message


def test_a_pass_that_is_not_shown_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    small = judged(monkeypatch, {"male": (60, 30, 30), "female": (60, 30, 29)})["disparity/sex"]
    assert small.verdict == "pass"
    assert "within the budget, but not shown" in small.message
    large = judged(monkeypatch, {"male": (6000, 3000, 3000), "female": (6000, 3000, 2990)})["disparity/sex"]
    assert large.verdict == "pass"
    assert "not shown" not in large.message


@pytest.mark.parametrize("groups", [{"male": (500, 9, 9), "female": (20, 9, 0)}, {"male": (20, 9, 9), "f": (90, 9, 0)}])
def test_without_support_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, groups: Groups) -> None:
    gate = judged(monkeypatch, groups)["disparity/sex"]
    assert (gate.verdict, gate.measured) == ("not applicable", None)
    assert "no group by sex has enough held-out rows" in gate.message


def test_the_accuracy_gate_shows_the_interval_of_the_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = judged(monkeypatch, {"male": (1000, 500, 496), "female": (1000, 500, 496)})["accuracy"]
    assert gate.verdict == "pass"
    assert gate.measured == pytest.approx(0.004)
    upper, lower = clopper_pearson(8, 2000).upper, clopper_pearson(8, 2000).lower
    none = clopper_pearson(0, 2000).upper
    low = 0.004 - np.hypot(0.004 - lower, none)
    assert f"drop on the same rows in [{low:+.4f}, {upper:+.4f}]" in gate.message


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.01, 0.0), (0.02, 0.02), (0.1, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("n", [30, 300])
def test_the_interval_of_a_paired_change_covers(gain: float, loss: float, n: int) -> None:
    drawn = np.random.default_rng(11).multinomial(n, [gain, loss, 1 - gain - loss], 1500)
    kinds, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    found = [paired(int(a), int(b), n) for a, b in kinds]
    inside = np.array([one.lower - 1e-12 <= gain - loss <= one.upper + 1e-12 for one in found])
    assert counts[inside].sum() / counts.sum() >= 0.935
    assert all(one.lower < one.upper for one in found)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Independence(True, 900, 0), "pass"),
        (Independence(False, 900, 12, "row 3 of the sample differs among copies of another row"), "pass"),
        (Independence(False, 900, 12, "row 3 of the sample differs beside a row of 1e+06", material=1), "fail"),
    ],
)
def test_rounding_passes_and_another_answer_does_not(
    monkeypatch: pytest.MonkeyPatch, found: Independence, verdict: str
) -> None:
    monkeypatch.setattr(gates, "row_independence", lambda *_, **__: found)
    rows = Dataset({"sex": np.array(["m"], object)}, {"sex": "categorical"}, np.zeros(1, np.int64), CLASSES, {})
    gate = gates.own_rows(None, None, gates.Candidates(b"", b"", rows, "all", 1, 0))  # type: ignore[arg-type]
    assert (gate.verdict, gate.measured, gate.budget) == (verdict, found.material, 0.0)
    assert f"{found.material} of 900 and {found.different - found.material} in rounding" in gate.message
    assert found.first in gate.message

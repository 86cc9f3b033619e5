"""Randomised thresholds on Adult, COMPAS and German credit, from rows to graph.

Rates and error are those of fairlearn's ThresholdOptimizer on the same rows, and rows that nothing was fitted on are
decided as alike as was asked, to within luck.
"""

from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest

from governed_api.lifecycle import Thresholds
from governed_serving.artefact import load, write
from governed_serving.fairness.metrics.thresholds import Constraint, fit
from governed_serving.server.predictors.loading import predictor_of
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.trainer.dataset import split, typed
from governed_serving.trainer.tables import Table
from governed_serving.trainer.thresholds import apart
from support.public_rows import DATA_SETS, DataSet, Row
from unit.fairness.threshold_oracle import fairlearns
from unit.trainer.manifests import resolved
from unit.trainer.neighbours import Workplace
from unit.trainer.test_job import files

ASKED = Thresholds(constraint="equalizedOdds", share=0.4, min_group_rows=10, attributes=["sex"])


class Decided(NamedTuple):
    """Rows as the served artefact decides about them: ``score`` of the network, ``chance``, ``favoured``."""

    score: np.ndarray
    chance: np.ndarray
    favoured: np.ndarray
    deserved: np.ndarray
    group: np.ndarray

    def rates(self, chance: np.ndarray) -> dict[tuple[str, bool], float]:
        """Mean of ``chance`` by group and label."""
        kinds = [(g, d) for g in np.unique(self.group).tolist() for d in (False, True)]
        return {(g, d): float(chance[(self.group == g) & (self.deserved == d)].mean()) for g, d in kinds}

    def fairlearns(self, constraint: Constraint) -> np.ndarray:
        """Chances by fairlearn, fitted on these rows."""
        return fairlearns(self.score, self.deserved, self.group, constraint)

    def ours(self, constraint: Constraint) -> np.ndarray:
        """Chances by us, no score taken for another one's rounding."""
        groups = {name: self.group == name for name in np.unique(self.group).tolist()}
        chance = np.zeros(len(self.score))
        for name, rule in fit(self.score, self.deserved, groups, constraint).items():
            chance[groups[name]] = rule.chances(self.score[groups[name]])
        return chance

    def error(self, chance: np.ndarray) -> float:
        return float(np.where(self.deserved, 1 - chance, chance).mean())


def manifest(data: DataSet) -> dict[str, Any]:
    return {
        "data": {"uri": "file:rows.csv", "label": data.label, "features": data.features()},
        "model": {"type": "linear"},
        "loop": {"epochs": 4, "batchSize": 256, "seed": 1},
        "mitigation": {"method": "thresholds", "thresholds": ASKED.plain()},
    }


def decided(data: DataSet, rows: list[Row], predictor: OnnxPredictor) -> Decided:
    numbers = [np.array([float(row[n]) for row in rows], np.float32)[:, None] for n in data.numeric]
    words = [np.array([row[n] for row in rows], object)[:, None] for n in data.categorical]
    outputs = dict(zip([o.name for o in predictor.signature.outputs], predictor.answer(numbers + words), strict=True))
    place = [str(c) for c in predictor.signature.classes].index(data.favourable)
    return Decided(
        outputs["model_score"].astype(np.float64),
        outputs["probabilities"][:, place],
        np.array([str(label) == data.favourable for label in outputs["label"]]),
        np.array([row[data.label] == data.favourable for row in rows]),
        np.array([row["sex"] for row in rows]),
    )


@pytest.mark.filterwarnings("ignore")  # pandas' and scikit-learn's about fairlearn's own lines
@pytest.mark.parametrize("name", DATA_SETS)
def test_rates_and_error_are_fairlearns_and_new_rows_are_decided_alike(name: str, tmp_path: Path) -> None:
    data, place = DATA_SETS[name], Workplace(tmp_path)
    trained, rows = data.halves()
    data.write(trained, tmp_path / "rows.csv")
    bias = {
        "protectedAttributes": [{"name": n, "privileged": [p]} for n, p in data.protected.items()],
        "favorableOutcome": {"label": data.favourable},
        "metrics": [{"name": "equalizedOddsDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
    }
    model = resolved(manifest(data), governance={"bias": bias})
    found = place.job(model).run()
    write(place.artefact(found), tmp_path / "artefact", found["digest"])
    artefact = load(tmp_path / "artefact", found["digest"])
    predictor = predictor_of(artefact, threads=1)
    spec = model.spec
    assert spec.lifecycle.training is not None
    columns = {n: np.array([float(row[n]) for row in trained]) for n in data.numeric}
    columns |= {n: np.array([row[n] for row in trained], object) for n in (*data.categorical, data.label)}
    whole = typed(Table(columns), spec.lifecycle.training, spec.governance.bias)
    _, fitted = apart(split(whole, spec.lifecycle.training.data, 1)[0], ASKED, 1)
    plain = [
        {n: str(v) for n, v in zip(fitted.features, values, strict=True)} | {data.label: str(whole.classes[label])}
        for *values, label in zip(*fitted.features.values(), fitted.label, strict=True)
    ]
    on = decided(data, plain, predictor)

    for constraint in get_args(Constraint):
        theirs, ours = on.fairlearns(constraint), on.ours(constraint)
        assert on.error(ours) == pytest.approx(on.error(theirs), abs=1e-6)
        assert on.rates(ours) == pytest.approx(on.rates(theirs), abs=1e-6)
    told = files(place, found)["evaluation.json"]["mitigation"]["thresholds"]
    assert told["rows"] == len(on.score)
    rates = on.rates(on.chance)
    for group in told["groups"]:
        value = group["group"].removeprefix("sex=")
        assert rates[value, True] == pytest.approx(group["truePositiveRate"], abs=1e-6)
        assert rates[value, False] == pytest.approx(group["falsePositiveRate"], abs=1e-6)
    assert 1 - on.error(on.chance) == pytest.approx(told["accuracy"], abs=1e-6)
    assert on.error(on.chance) == pytest.approx(on.error(on.fairlearns("equalizedOdds")), abs=2e-3)

    new = decided(data, rows[:8000], predictor)
    drawn = new.rates(new.favoured.astype(float))
    groups = np.unique(new.group).tolist()
    for deserved in (False, True):
        counts = [((new.group == g) & (new.deserved == deserved)).sum() for g in groups]
        fits = [((on.group == g) & (on.deserved == deserved)).sum() for g in groups]
        luck = 4 * np.sqrt(sum(0.25 / n for n in counts + fits))
        assert np.ptp([drawn[g, deserved] for g in groups]) < luck

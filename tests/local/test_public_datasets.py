"""Adult, COMPAS and German credit from rows to verdict, as processes: what is judged is what was answered.

Figures are compared with fairlearn's, with AIF360's definitions in numpy, and with counts of the answers themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fairlearn.metrics as fl
import httpx
import numpy as np
import pytest
import yaml

from support.public_rows import DATA_SETS, DataSet, Row
from support.waiting import eventually

from .conftest import Served, start

SIGNED = (
    "statisticalParityDifference", "equalOpportunityDifference", "averageOddsDifference", "predictiveParityDifference",
    "falsePositiveRateDifference", "falseOmissionRateDifference", "accuracyDifference", "baseRateDifference",
)  # fmt: skip
SPREADS = (
    "demographicParityDifferenceMaxMin", "equalOpportunityDifferenceMaxMin", "equalizedOddsDifferenceMaxMin",
    "accuracyDifferenceMaxMin", "predictiveParityDifferenceMaxMin",
)  # fmt: skip
REQUEST = 250


def manifest(data: DataSet, csv: Path) -> dict[str, Any]:
    bounds = [{"name": name, "thresholdLower": -0.1, "thresholdUpper": 0.1} for name in SIGNED]
    bounds += [{"name": name, "thresholdUpper": 0.1} for name in SPREADS]
    bounds.append({"name": "disparateImpactRatio", "thresholdLower": 0.8})
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": data.name},
        "spec": {
            "lifecycle": {
                "training": {
                    "data": {
                        "uri": f"file:{csv}", "label": data.label, "features": data.features(),
                    },
                    "model": {"type": "linear"},
                    "loop": {"epochs": 6, "batchSize": 256, "seed": 1},
                },
            },
            "governance": {
                "bias": {
                    "protectedAttributes": [{"name": n, "privileged": [p]} for n, p in data.protected.items()],
                    "favorableOutcome": {"label": data.favourable},
                    "metrics": bounds,
                    "minSamples": 200,
                    "action": "Alert",
                },
            },
        },
    }  # fmt: skip


@dataclass
class Audited:
    """``said``, ``true``: favourable, of every row that was served."""

    data: DataSet
    rows: list[Row]
    said: np.ndarray
    true: np.ndarray
    verdict: dict[str, Any]

    def of(self, attribute: str) -> np.ndarray:
        return np.array([row[attribute] for row in self.rows])


def tensors(data: DataSet, rows: list[Row]) -> dict[str, Any]:
    numbers = [
        {"name": n, "datatype": "FP32", "shape": [len(rows), 1], "data": [float(r[n]) for r in rows]}
        for n in data.numeric
    ]
    words = [
        {"name": n, "datatype": "BYTES", "shape": [len(rows), 1], "data": [r[n] for r in rows]}
        for n in data.categorical
    ]
    return {"inputs": numbers + words}


def served_and_labelled(data: DataSet, rows: list[Row], served: Served) -> np.ndarray:
    """Whether each row was answered favourably; every request's labels are posted under the id of its answer."""
    said: list[bool] = []
    with httpx.Client(trust_env=False, timeout=60) as client:
        for first in range(0, len(rows), REQUEST):
            part = rows[first : first + REQUEST]
            answer = client.post(f"{served.url}/infer", json=tensors(data, part))
            assert answer.status_code == 200, answer.text
            outputs = {o["name"]: o["data"] for o in answer.json()["outputs"]}
            said += [str(label) == data.favourable for label in outputs["label"]]
            labels = [{"id": answer.json()["id"], "label": [row[data.label] for row in part]}]
            posted = client.post(f"{served.auditor}/v1/labels", json={"labels": labels})
            assert posted.status_code == 202, posted.text
    return np.array(said)


@pytest.fixture(params=list(DATA_SETS))
def audited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Audited]:
    data, folder = DATA_SETS[request.param], tmp_path
    trained, rows = data.halves()
    rows = rows[:8000]
    data.write(trained, folder / "rows.csv")
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest(data, folder / "rows.csv")))
    served = start(folder / "model.yaml", folder / "work", folder / "log", data.name)
    said = served_and_labelled(data, rows, served)

    def verdict() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{served.auditor}/v1/verdict", trust_env=False, timeout=30).json()
        return found

    judged = eventually(
        verdict, lambda v: v.get("labelled") == len(rows) and v.get("samples") == len(rows), within=180, every=0.5
    )
    true = np.array([row[data.label] == data.favourable for row in rows])
    yield Audited(data, rows, said, true, judged)
    assert served.stop() == 0


def rate(chosen: np.ndarray, of: np.ndarray) -> float:
    return float(chosen[of].mean()) if of.any() else float("nan")


def signed(name: str, said: np.ndarray, true: np.ndarray, inside: np.ndarray, against: np.ndarray) -> float:
    """AIF360's figures: unprivileged minus privileged."""

    def difference(chosen: np.ndarray, of: np.ndarray) -> float:
        return rate(chosen, of & inside) - rate(chosen, of & against)

    everyone = np.ones_like(said)
    figures = {
        "statisticalParityDifference": lambda: difference(said, everyone),
        "baseRateDifference": lambda: difference(true, everyone),
        "accuracyDifference": lambda: difference(said == true, everyone),
        "equalOpportunityDifference": lambda: difference(said, true),
        "falsePositiveRateDifference": lambda: difference(said, ~true),
        "averageOddsDifference": lambda: (difference(said, true) + difference(said, ~true)) / 2,
        "predictiveParityDifference": lambda: difference(true, said),
        "falseOmissionRateDifference": lambda: difference(true, ~said),
    }
    return figures[name]()


def signed_figures_are_those_of_the_answers(audited: Audited) -> None:
    compared = 0
    for measured in audited.verdict["metrics"]:
        if measured["name"] not in SIGNED or measured["value"] is None:
            continue
        values = audited.of(measured["attribute"])
        inside, against = values == measured["group"], values == measured["reference"]
        expected = signed(measured["name"], audited.said, audited.true, inside, against)
        assert measured["value"] == pytest.approx(expected, abs=1e-9), measured
        if measured["lower"] is not None:
            assert measured["lower"] <= measured["value"] <= measured["upper"], measured
        compared += 1
    assert compared >= 6 * len(audited.data.protected)  # some rates have too few rows among the 500 of German credit


def spreads_are_fairlearns_over_the_groups_that_are_judged(audited: Audited) -> None:
    theirs = {
        "demographicParityDifferenceMaxMin": fl.demographic_parity_difference,
        "equalOpportunityDifferenceMaxMin": fl.equal_opportunity_difference,
        "equalizedOddsDifferenceMaxMin": fl.equalized_odds_difference,
    }
    compared = 0
    for measured in audited.verdict["metrics"]:
        if measured["name"] not in theirs or measured["value"] is None:
            continue
        values = audited.of(measured["attribute"])
        left_out = set(measured.get("excluded") or [])
        kept = ~np.isin(values, list(left_out))
        expected = theirs[measured["name"]](audited.true[kept], audited.said[kept], sensitive_features=values[kept])
        assert measured["value"] == pytest.approx(expected, abs=1e-9), measured
        compared += 1
    assert compared >= len(audited.data.protected)


def what_is_shown_is_what_their_readers_found(audited: Audited) -> None:
    verdicts = {(m["name"], m["attribute"], m["group"]): m["verdict"] for m in audited.verdict["metrics"]}
    if audited.data.name == "adult":
        assert verdicts["statisticalParityDifference", "sex", "Female"] == "Fail"
        assert verdicts["disparateImpactRatio", "sex", "Female"] == "Fail"
    if audited.data.name == "compas":
        assert verdicts["statisticalParityDifference", "race", "African-American"] == "Fail"
        assert verdicts["falsePositiveRateDifference", "race", "African-American"] == "Fail"
    if audited.data.name == "german":
        assert "Pass" not in {v for (name, *_), v in verdicts.items() if name == "equalOpportunityDifference"}


def test_the_verdict_is_that_of_the_answers(audited: Audited) -> None:
    signed_figures_are_those_of_the_answers(audited)
    spreads_are_fairlearns_over_the_groups_that_are_judged(audited)
    what_is_shown_is_what_their_readers_found(audited)

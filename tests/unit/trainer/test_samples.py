"""The samples: valid manifests, requests that fit them, and request files that their generators still give."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from governed_api.model import GovernedModel
from governed_serving.trainer.generators import GENERATORS
from governed_serving.trainer.generators.__main__ import main, requests
from unit.trainer.manifests import COUNTS

SAMPLES = Path(__file__).parents[3] / "crds" / "samples"
NAMES = ["admissions", "credit", "reviews", "thresholds"]


def model(name: str) -> GovernedModel:
    return GovernedModel.model_validate(yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()))


def sent(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.requests.json").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_requests_hold_the_features_of_the_manifest(name: str) -> None:
    training = model(name).spec.lifecycle.training
    assert training is not None
    kinds = {f.name: f.type for f in training.data.features}
    for row in sent(name)["instances"]:
        assert row.keys() == kinds.keys()
        for feature, value in row.items():
            assert isinstance(value, float if kinds[feature] == "numeric" else str)


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_enough_for_a_verdict(name: str) -> None:
    rules = model(name).spec.governance.bias
    assert rules is not None
    found = sent(name)
    assert sum(found.get("counts") or [1] * len(found["instances"])) >= rules.min_samples


def test_admissions_replays_every_applicant() -> None:
    found = sent("admissions")
    assert sum(found["counts"]) == 4526
    for row, count in zip(found["instances"], found["counts"], strict=True):
        assert count == sum(COUNTS[row["department"]][row["sex"] == "female"])


@pytest.mark.parametrize("name", ["credit", "reviews"])
def test_request_files_are_what_the_generator_gives(name: str) -> None:
    found = sent(name)
    assert requests(name, len(found["instances"]), 8) == found


def test_the_requests_of_thresholds_are_rows_of_its_generator() -> None:
    rows = GENERATORS["credit"](440, 8).columns
    for row in sent("thresholds")["instances"]:
        place = rows["applicant"].tolist().index(row["applicant"])
        assert row == {name: rows[name][place] for name in row}


def test_requests_are_no_training_rows() -> None:
    training = model("credit").spec.lifecycle.training
    assert training is not None
    assert training.data.generator is not None
    assert training.data.generator.seed != 8
    assert training.data.generator.rows >= 20_000
    assert len(training.data.features) >= 12


def test_a_wrong_call_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loans", "1", "2"]) == 2
    assert "credit, reviews" in capsys.readouterr().err

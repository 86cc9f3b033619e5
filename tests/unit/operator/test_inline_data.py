"""Rows that stand in the manifest reach the trainer alone, in a Secret."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from builders import IMPORTED, TRAINED, JobFacts, PodProblem, child, observed, resolved

from governed_api import runtime as rt
from governed_api.resolved import ResolvedModel
from governed_operator.desired import model_objects
from governed_operator.desired.decision import Decision, Revision
from governed_operator.desired.manifest import Manifest, Subject
from governed_operator.desired.trainer import job_name
from governed_operator.local.volumes import Secrets, Volumes
from governed_operator.local.workdir import Workdir
from governed_operator.loop.apply import PRUNABLE
from governed_operator.loop.reconcile import retained_children
from governed_operator.policy.decide import decide

ROW = "Zaphod Beeblebrox,1\n"
DIGEST = "sha256:" + "ab" * 32


def model(rows: str = f"x,y\n{ROW}", **data: Any) -> ResolvedModel:
    source = {"inline": rows, "label": "y", "features": [{"name": "x", "type": "text"}]} | data
    bias = {
        "protectedAttributes": [{"name": "x"}],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
    spec = {"lifecycle": {"training": {"data": source}}, "governance": {"bias": bias}, "explainer": {"type": "shap"}}
    return resolved(spec)


def rendered(seen: ResolvedModel) -> list[Manifest]:
    return model_objects(Subject(seen, uid="u-1"), Decision(train=True, stable=Revision.of(seen, DIGEST)))


def text_of(manifest: Manifest) -> str:
    """All that an object says, its base64 opened."""
    opened = [base64.b64decode(v).decode() for v in manifest.get("data", {}).values()] if is_secret(manifest) else []
    return json.dumps(manifest) + "".join(opened)


def is_secret(manifest: Manifest) -> bool:
    return bool(manifest["kind"] == "Secret")


def test_rows_stand_in_one_secret_and_nowhere_else() -> None:
    holding = [m for m in rendered(model()) if "Zaphod" in text_of(m)]
    (secret,) = holding
    assert is_secret(secret)
    assert secret["immutable"]
    assert [o["uid"] for o in secret["metadata"]["ownerReferences"]] == ["u-1"], "it goes with the model"
    read = ResolvedModel.model_validate_json(base64.b64decode(secret["data"][rt.SPEC_FILE]))
    assert read.training_hash() == model().training_hash(), "the trainer answers this very spec"


def test_the_trainer_alone_mounts_them() -> None:
    objects = rendered(model())
    (secret,) = [m for m in objects if is_secret(m) and "data" in m]
    pods = {m["kind"]: m["spec"]["template"]["spec"] for m in objects if "template" in m.get("spec", {})}
    assert set(pods) == {"Job", "Deployment"}
    mounting = {kind for kind, spec in pods.items() if secret["metadata"]["name"] in json.dumps(spec)}
    assert mounting == {"Job"}
    assert not [v for v in pods["Deployment"]["volumes"] if "secret" in v], "projected keys and tokens alone"


def test_serving_reads_a_spec_that_says_all_but_the_rows() -> None:
    whole, seen = model(), model().for_serving
    assert seen.spec.lifecycle.training is not None
    assert seen.spec.lifecycle.training.data.inline == ""
    assert seen.spec.lifecycle.training.data.features == whole.spec.lifecycle.training.data.features  # type: ignore[union-attr]
    assert ResolvedModel.model_validate_json(seen.document) == seen, "a pod can read it"
    assert whole.spec.lifecycle.training.data.inline, "the model itself is as it was"  # type: ignore[union-attr]
    other = model("x,y\nothers,2\n")
    assert other.training_hash() != whole.training_hash()
    assert Revision.of(other, DIGEST).name == Revision.of(whole, DIGEST).name, "the artefact tells them apart"


@pytest.mark.parametrize(
    "data", [{"inline": None, "generator": {"name": "credit"}}, {"inline": None, "uri": "pvc://d/x.csv"}]
)
def test_without_rows_nothing_changes(data: dict[str, Any]) -> None:
    seen = model(**data)
    assert seen.for_serving is seen.for_pods
    kinds = [m["kind"] for m in rendered(seen) if "-training-" in m["metadata"]["name"]]
    assert kinds == ["ConfigMap"]
    assert resolved(IMPORTED).for_serving is not None


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", "\x01", '"', "\\", "x"])
def test_the_longest_rows_fit_into_a_secret(character: str) -> None:
    """1 MiB is what the API server takes; what is longer, validation has refused."""
    (secret,) = [m for m in rendered(model(character * 65536)) if is_secret(m) and "data" in m]
    assert len(base64.b64decode(secret["data"][rt.SPEC_FILE])) < 1 << 20


JOB = job_name(Subject(resolved(TRAINED)))
OLD = child("ConfigMap", f"m-training-{resolved(TRAINED).training_hash()}", None, "trainer")


@pytest.mark.parametrize(
    ("children", "stays"),
    [
        ((OLD, child("Job", JOB, JobFacts(False, None, False))), True),
        ((OLD, child("Job", JOB, JobFacts(True, None, False))), False),
        ((OLD, child("Job", JOB, JobFacts(False, PodProblem("BackoffLimitExceeded", "failed"), False))), False),
        ((OLD, child("Job", "m-train-other", JobFacts(False, None, False))), False),
        ((OLD,), False),
    ],
    ids=["it trains", "it has trained", "it failed", "another trains", "none trains"],
)
def test_an_older_operator_s_config_map_with_rows_goes_once_no_job_needs_it(children: Any, stays: bool) -> None:
    obs = observed(TRAINED, *children)
    decision = decide(obs)
    wanted = {(m["kind"], m["metadata"]["name"]) for m in model_objects(obs.subject, decision)}
    assert OLD[0] not in wanted
    assert "ConfigMap" in PRUNABLE
    assert (OLD[0] in retained_children(obs, decision)) is stays


def test_on_one_machine_they_stay_in_memory(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "work")
    workdir.memory = tmp_path / "memory"
    secrets = Secrets(workdir, ("archive-keys", "root"))
    objects = rendered(model())
    (secret,) = [m for m in objects if is_secret(m) and "data" in m]
    secrets.ensure(secret)
    (job,) = [m for m in objects if m["kind"] == "Job"]
    (volume,) = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "spec"]
    folder = Volumes("job", workdir, secrets, {}, tmp_path).directory(volume)
    assert folder.is_relative_to(workdir.memory)
    assert b"Zaphod" in (folder / rt.SPEC_FILE).read_bytes()
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []
    assert secrets.keys(secret["metadata"]["name"]) == [rt.SPEC_FILE]

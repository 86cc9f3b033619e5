"""A margin, mitigation in training and sets by group in one manifest, as a person runs it: what is promised and what is
said of it, from the gates to the answers, and which labels are taken."""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from support.model_ports import free_offset
from support.waiting import eventually

from .conftest import Served, governed, start

ROWS, SERVED = 1600, 400


def applicants(rows: int, seed: int) -> list[dict[str, Any]]:
    """Women have less income on average; few say nothing of their sex."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m", ""], rows, p=[0.49, 0.5, 0.01])
    income = rng.normal(size=rows) + 0.8 * (sex == "m")
    branch = rng.integers(0, 3, rows)
    approved = income + 0.3 * branch + rng.normal(size=rows) * 0.5 > 0.7
    return [
        {"income": f"{i:.2f}", "branch": "ABC"[b], "sex": str(s), "decision": "approve" if a else "refer"}
        for i, b, s, a in zip(income, branch, sex, approved, strict=True)
    ]


def manifest(folder: Path) -> Path:
    with (folder / "rows.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, ["income", "branch", "sex", "decision"])
        writer.writeheader()
        writer.writerows(applicants(ROWS, 5))
    bounds = {"thresholdLower": -0.1, "thresholdUpper": 0.1, "margin": 0.3}
    names = ("statisticalParityDifference", "equalOpportunityDifference")
    features = [{"name": "income"}, *({"name": n, "type": "categorical"} for n in ("branch", "sex"))]
    training = {
        "data": {"uri": f"file:{folder / 'rows.csv'}", "label": "decision", "features": features},
        "model": {"type": "linear"},
        "loop": {"epochs": 8, "batchSize": 128, "seed": 3},
        "mitigation": {"method": "reductions", "reductions": {"maxDisparity": 0.05, "iterations": 3}},
        "conformal": {"coverage": 0.9, "groupConditional": True, "minGroupRows": 30},
    }
    bias = {
        "protectedAttributes": [{"name": "sex", "privileged": ["m"]}],
        "favorableOutcome": {"label": "approve"},
        "metrics": [{"name": name, **bounds} for name in names],
        "minSamples": 100,
    }
    path = folder / "fair.yaml"
    spec = {
        "lifecycle": {"training": training, "compression": {"method": "dynamicInt8"}},
        "explainer": {"type": "shap", "sampling": 0.01},
        "governance": {"bias": bias},
    }
    resource = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "fair"}}
    path.write_text(yaml.safe_dump({**resource, "spec": spec}))
    asked = [{name: row[name] for name in ("income", "branch", "sex")} for row in applicants(SERVED, 6) if row["sex"]]
    sample = {"rows": 50, "instances": [{**row, "income": float(row["income"])} for row in asked]}
    path.with_name("fair.requests.json").write_text(json.dumps(sample))
    return path


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("fair")
    path = manifest(folder)
    done = governed("run", path, "--once", "--workdir", folder / "work", "--port-offset", str(free_offset()))
    assert done.returncode == 0, done.stdout + done.stderr
    return path, folder / "work", done


@pytest.fixture
def served(once: tuple[Path, Path, Any], tmp_path: Path) -> Iterator[Served]:
    found = start(once[0], once[1], tmp_path / "log", "fair")
    yield found
    assert found.stop() == 0


def test_a_person_sees_what_was_promised_reached_and_applied(once: tuple[Path, Path, Any], tmp_path: Path) -> None:
    path, workdir, done = once
    shown = " ".join(done.stdout.split())
    assert "mitigation/effect" in shown
    assert "largest |rate of a group − rate of all|" in shown
    assert "too few rows for a constraint: sex=(missing)" in shown
    assert "coverage/sex" in shown
    assert "(missing): fewer than 30 calibration rows each" in shown
    assert "holds the truth with a chance of 0.9" in shown
    assert "trained with mitigation of bias: reductions/demographicParity" in shown
    assert "statisticalParityDifference sex f m" in shown
    page = tmp_path / "page.html"
    assert governed("report", "fair", "--workdir", workdir, "--output", page).returncode == 0
    html = page.read_text()
    for word in ("Mitigation", "reductions, demographicParity", "prediction_set", "coverage/sex"):
        assert word in html, word
    assert path.exists()


def test_what_is_served_keeps_the_promises_and_takes_labels_once(served: Served) -> None:
    rows = [row for row in applicants(SERVED, 6) if row["sex"]]
    with httpx.Client(trust_env=False, timeout=60) as client:
        told = client.get(served.url).json()["parameters"]
        assert (told["coverage"], told["mitigation"]) == (0.9, "reductions/demographicParity")
        answer = ask(client, served, rows)
        sets = np.array(answer["prediction_set"]).reshape(-1, 2)
        place = [told["classes"].index(row["decision"]) for row in rows]
        covered = sets[np.arange(len(rows)), place]
        for sex in "fm":
            assert covered[[row["sex"] == sex for row in rows]].mean() > 0.82
        strange = ask(client, served, [{**rows[0], "sex": sex} for sex in ("x", "F", "")])
        assert all(strange["prediction_set"]), "nothing less is promised to who was never seen"

        def post(label: Any) -> httpx.Response:
            return client.post(f"{served.auditor}/v1/labels", json={"labels": [{"id": answer["id"], "label": label}]})

        truth = [row["decision"] for row in rows]
        refused = post([word.title() for word in truth])
        assert (refused.status_code, "(approve, refer)" in refused.json()["error"]) == (400, True), refused.text
        assert post(truth).json() == {"accepted": 1, "repeated": 0}
        assert post(truth).json() == {"accepted": 1, "repeated": 1}
        other = post(["approve"] * len(truth))
        assert (other.status_code, other.json()["contradicting"]) == (409, [answer["id"]])

        def verdict() -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"{served.auditor}/v1/verdict").json()
            return found

        judged = eventually(verdict, lambda v: v.get("labelled") == len(rows), within=180, what="the labels are judged")
        values = {m["name"]: m["value"] for m in judged["metrics"] if m["group"] == "f"}
        assert values["equalOpportunityDifference"] is not None
        overall, groups = judged["coverage"]["overall"], judged["coverage"]["groups"]["sex"]
        assert (overall["rows"], overall["covered"]) == (len(rows), int(covered.sum()))
        women = covered[[row["sex"] == "f" for row in rows]]
        assert {g["group"]: g["covered"] for g in groups}["f"] == int(women.sum())
        assert 0.5 < {g["group"]: g["least"] for g in groups}["f"] < 0.9, (
            "the artefact says how many rows calibrated it"
        )
        wrong = {
            "id": answer["id"],
            "label": ["approve"] * len(truth),
            "correct": True,
            "was": truth,
            "reason": "a slip",
        }
        for repeated in (0, 1):
            corrected = client.post(f"{served.auditor}/v1/labels", json={"labels": [wrong]})
            assert (corrected.status_code, corrected.json()) == (202, {"accepted": 1, "repeated": repeated})
        judged = eventually(verdict, lambda v: "corrections" in v, within=180, what="the correction is judged")
        assert judged["corrections"]["corrected"] == len(truth)
        assert f"labels corrected: {len(truth)} of {len(rows)}" in judged["summary"]
        lines = client.get(f"{served.auditor}/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith("governed_auditor_labels_refused_total")]
        assert sorted(line.split()[-1] for line in counted) == ["1.0", "1.0"]
    url = served.url.split("/v2/")[0]
    explained = governed("explain", "fair", "income=0.3", "branch=A", "sex=f", "--interactions", "--url", url)
    assert (explained.returncode, "income × " in explained.stdout) == (0, True), explained.stdout + explained.stderr


def ask(client: httpx.Client, served: Served, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Outputs by name, and the answer's id."""
    columns = [("income", "FP32", float), ("branch", "BYTES", str), ("sex", "BYTES", str)]
    inputs = [
        {"name": name, "datatype": datatype, "shape": [len(rows), 1], "data": [read(row[name]) for row in rows]}
        for name, datatype, read in columns
    ]
    answer = client.post(f"{served.url}/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return {"id": answer.json()["id"], **{o["name"]: o["data"] for o in answer.json()["outputs"]}}

"""A model that somebody else trained, from its file to an audited and explained service, as a person brings it."""

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
import yaml

from support.model_ports import free_offset
from support.waiting import eventually

from .conftest import ROOT, Served, governed, in_ledger, start

COLUMNS = ["income", "age", "debt"]
ROW = {"income": 1.5, "age": -0.5, "debt": 0.25}
EXPORT = """
import csv, numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
rows = rng.normal(size=(200, 3)).astype(np.float32)
model = LogisticRegression().fit(rows, rows[:, 0] - rows[:, 2] > 0)
model.classes_ = np.array(["no", "yes"])
open("loans.onnx", "wb").write(to_onnx(model, rows[:1]).SerializeToString())
with open("rows.csv", "w", newline="") as file:
    csv.writer(file).writerows([["income", "age", "debt"], *rows[:60].tolist()])
"""


def brought(folder: Path, **spec: Any) -> Path:
    """What `governed init` wrote, with the columns' names, and ``spec`` beside the predictor."""
    subprocess.run([sys.executable, "-c", EXPORT], cwd=folder, check=True, timeout=300)
    path = folder / "loans.yaml"
    assert governed("init", folder / "loans.onnx", "-o", path).returncode == 0
    manifest = yaml.safe_load(path.read_text())
    manifest["spec"]["predictor"]["model"]["inputs"][0]["columns"] = COLUMNS
    manifest["spec"] |= spec
    path.write_text(yaml.safe_dump(manifest))
    return path


def quick_start() -> tuple[str, list[list[str]]]:
    """README's program, and its commands."""
    text = (ROOT / "README.md").read_text().split("**Bring your own**")[1]
    program, commands = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "sh"))
    assert program is not None
    assert commands is not None
    return program[1], [shlex.split(line, comments=True) for line in commands[1].splitlines()]


def test_the_quick_start_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, (init, run, infer, explain, verify) = quick_start()
    assert len(program.splitlines()) <= 10
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    monkeypatch.chdir(tmp_path)
    assert governed(*init[1:]).returncode == 0
    served = start(Path(run[2]), tmp_path / ".governed" / "cancer", tmp_path / "log", "cancer")
    url = f"http://127.0.0.1:{8080 + served.offset}"
    answered, explained = governed(*infer[1:], "--url", url), governed(*explain[1:], "--url", url)
    assert "label          benign" in answered.stdout
    assert "target benign" in explained.stdout
    assert served.stop() == 0
    (request,) = re.findall(r"request (\S+)", answered.stdout)
    proved = governed(*verify[1:], "--id", request)
    assert proved.returncode == 0, proved.stdout
    assert request in proved.stdout


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("loans")
    path = brought(folder)
    rows = (folder / "rows.csv").read_bytes()
    given = {"uri": f"file:{folder / 'rows.csv'}", "digest": f"sha256:{hashlib.sha256(rows).hexdigest()}"}
    manifest = yaml.safe_load(path.read_text())
    manifest["spec"] |= {
        "explainer": {"background": given},
        "governance": {
            "bias": {
                "protectedAttributes": [{"name": "age", "bands": [0.0]}],
                "favorableOutcome": {"label": "yes"},
                "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.2, "thresholdUpper": 0.2}],
            }
        },
    }
    path.write_text(yaml.safe_dump(manifest))
    served = start(path, folder / "work", folder / "log", "loans")
    yield served
    if served.process.poll() is None:
        assert served.stop() == 0


def asked(served: Served, rows: list[list[float]]) -> dict[str, Any]:
    body = {"instances": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
    url = served.url.replace("/v2/", "/v1/") + ":predict"
    answer = httpx.post(url, json=body, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_it_answers_as_the_bare_graph_does_and_is_audited(loans: Served) -> None:
    bare = ort.InferenceSession(loans.workdir.parent / "loans.onnx", providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    label, maps = bare.run(None, {"X": rows})
    found = asked(loans, rows.tolist())
    assert found["predictions"] == list(label)
    assert found["probabilities"] == [[float(row["no"]), float(row["yes"])] for row in maps]
    eventually(lambda: found["id"] in in_ledger(loans), within=60, what="the prediction is in the ledger")

    def counted() -> bool:
        verdict = httpx.get(f"{loans.auditor}/v1/verdict", timeout=10, trust_env=False).json()
        return bool(verdict["samples"] >= len(rows))

    eventually(counted, within=60, what="the auditor has counted the rows")


@pytest.mark.parametrize("method", ["shap", "lime", "anchors", "counterfactual"])
def test_it_is_explained(loans: Served, method: str) -> None:
    url = f"http://127.0.0.1:{8080 + loans.offset}"
    words = [f"{name}={value}" for name, value in ROW.items()]
    done = governed("explain", "loans", *words, "--url", url, "--method", method)
    assert done.returncode == 0, done.stderr
    assert "income" in done.stdout
    if method == "shap":
        assert done.stdout.startswith("income")  # the heaviest first: of debt there is little, age counts for nothing
        assert "target yes" in done.stdout


def test_without_rows_to_compare_with_it_is_refused_before_it_runs(tmp_path: Path) -> None:
    done = governed("validate", brought(tmp_path, explainer={}))
    assert done.returncode != 0
    assert "explainer.background" in done.stdout + done.stderr


def test_what_cannot_be_served_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"junk")
    digest = f"sha256:{hashlib.sha256(b'junk').hexdigest()}"
    spec = {"predictor": {"model": {"storageUri": f"file:{tmp_path / 'm.onnx'}", "digest": digest}}}
    manifest = {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "m"}, "spec": spec,
    }  # fmt: skip
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    done = governed("run", tmp_path / "m.yaml", "--workdir", tmp_path / "work", "--port-offset", str(free_offset()))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert said.count("fetch: m.onnx: ONNX file: expected a model as onnx.save writes it") <= 2, "as a log, as the end"
    assert "keeps failing" not in said
    assert "exited with code" not in said

"""The sample explained by each engine through its service, in one table: the same rows, asked of `governed run`, or of
a service that stands already (a port-forward to a cluster, say)."""

import os
import sys
import tempfile
import time
from pathlib import Path

import httpx
import yaml
from by_load import SAMPLES, Model
from table import show

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.model_ports import free_offset

NAME = "admissions"
ROWS = (("A", "male"), ("A", "female"), ("C", "female"), ("F", "male"))
ENGINES = {"ours": {}, "alibi": {"engine": "alibi", "acceptLicence": "BSL-1.1"}}
AT: dict[str, str] = {}
"""Engine → base URL of a service that is asked instead of one that is started here."""


def measure(alibi_python: str) -> None:
    engines = [name for name in ENGINES if name in AT or name == "ours" or alibi_python]
    values, rules, about = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            model = None if engine in AT else _started(engine, Path(folder, engine), alibi_python)
            url = AT.get(engine) or f"http://127.0.0.1:{8080 + model.offset}"
            try:
                for department, sex in ROWS:
                    values.append([engine, f"{department} {sex}", *_shap(url, department, sex, about)])
                    rules.append([engine, f"{department} {sex}", *_anchor(url, department, sex)])
            finally:
                if model is not None:
                    model.stop()
    note = "; ".join(f"{engine}: {what}" for engine, what in about.items())
    show(
        "Shapley values of the sample, by engine, through the service",
        ["engine", "row", "department", "sex", "base", "residual", "exact", "evaluations", "ms"],
        sorted(values, key=lambda row: row[1]),
        note if "alibi" in engines else f"{note}; alibi: not asked (--alibi-python or --at alibi=URL)",
    )
    show(
        "Anchors of the sample, by engine, through the service",
        ["engine", "row", "outcome", "rule", "precision", "coverage", "evaluations", "ms"],
        sorted(rules, key=lambda row: row[1]),
    )


def _started(engine: str, folder: Path, alibi_python: str) -> Model:
    os.environ["GOVERNED_ALIBI_PYTHON"] = alibi_python
    manifest = yaml.safe_load((SAMPLES / f"{NAME}.yaml").read_text())
    manifest["metadata"].pop("annotations", None)
    manifest["spec"]["explainer"] = ENGINES[engine]
    model = Model(engine, folder, free_offset())
    model.start(manifest)
    try:
        model.wait(400)
    except BaseException:
        model.stop()
        raise
    return model


def _asked(url: str, department: str, sex: str, method: str) -> tuple[dict, float]:
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [value]}
        for name, value in (("department", department), ("sex", sex))
    ]
    body = {"id": f"{method}-{department}-{sex}", "inputs": inputs, "parameters": {"method": method, "seed": 1}}
    path = f"{url}/v2/models/{NAME}/explain"
    with httpx.Client(timeout=120, trust_env=False) as client:
        client.post(path, json={**body, "id": f"warm-{body['id']}"}).raise_for_status()
        began = time.perf_counter()
        answer = client.post(path, json=body)
        took = (time.perf_counter() - began) * 1000
        answer.raise_for_status()
        again = client.post(path, json=body).json()["explanations"]
    (explanation,) = answer.json()["explanations"]
    if again != [explanation]:
        raise RuntimeError(f"expected the same explanation of {body['id']} again: {explanation}, found {again}")
    return explanation, took


def _shap(url: str, department: str, sex: str, about: dict[str, str]) -> list:
    found, took = _asked(url, department, sex, "shap")
    engine = found.get("engine", {"name": "ours"})
    about[engine["name"]] = ", ".join(f"{k} {v}" for k, v in engine.items() if k in ("alibi", "shap", "licence")) or (
        f"{found['method']}, {found['confidence']:.0%}"
    )
    shares = {one["feature"]: one["attribution"] for one in found["attributions"]}
    numbers = [shares["department"], shares["sex"], found["base_value"], found["additivity_residual"]]
    return [*map(float, numbers), found["exact"], found["evaluations"], took]


def _anchor(url: str, department: str, sex: str) -> list:
    found, took = _asked(url, department, sex, "anchors")
    rule = " and ".join(one.get("rule") or _conditions(one["conditions"]) for one in found["anchor"]) or "(always)"
    return [found["target"], rule, found["precision"], found["coverage"], found["evaluations"], took]


def _conditions(conditions: dict) -> str:
    return " and ".join(f"{name} {how} {value}" for name, given in conditions.items() for how, value in given.items())

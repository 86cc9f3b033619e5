"""Small models for the explainer's tests: a mixed-type classifier as columns, and its artefact-like description."""

from typing import Any

import numpy as np

from governed_serving.artefact import Feature, Lineage, Manifest
from governed_serving.explainer.service.model import ExplainedModel

JOBS = ["clerk", "nurse", "smith"]
SEXES = ["female", "male"]


def strings(values: list[str]) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def table(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Age, income (numbers), job, sex (text)."""
    rng = np.random.default_rng(seed)
    return {
        "age": rng.integers(18, 80, rows).astype(np.float32),
        "income": rng.lognormal(3, 0.5, rows).astype(np.float32),
        "job": strings([JOBS[i] for i in rng.integers(0, 3, rows)]),
        "sex": strings([SEXES[i] for i in rng.integers(0, 2, rows)]),
    }


def probabilities(columns: Any) -> np.ndarray:
    """Logistic with an interaction; shape (rows, 2)."""
    job = np.array([{"clerk": -0.5, "nurse": 0.3, "smith": 1.1}.get(value, 0.0) for value in columns["job"]])
    sex = np.array([0.8 if value == "male" else 0.0 for value in columns["sex"]])
    age = (np.asarray(columns["age"], float) - 45) / 20
    margin = 0.7 * age + 0.02 * np.asarray(columns["income"], float) + job * (1 + age) + sex - 0.5
    p = 1 / (1 + np.exp(-margin))
    return np.stack([1 - p, p], axis=1)


def manifest() -> Manifest:
    features = [
        Feature("age", "numeric", "FP32"),
        Feature("income", "numeric", "FP32"),
        Feature("job", "categorical", "BYTES", categories=JOBS),
        Feature("sex", "categorical", "BYTES", categories=SEXES),
    ]
    return Manifest(
        name="loans",
        task="classification",
        features=features,
        inputs=[f.name for f in features],
        outputs=[],
        label="granted",
        variant="float",
        lineage=Lineage("d", "t", "c", {}),
        files={},
        classes=["no", "yes"],
        favorable="yes",
    )


def model(rows: int = 40) -> ExplainedModel:
    return ExplainedModel(manifest(), "sha256:" + "0" * 64, b"", table(rows, 1), protected=("sex",))


def request(columns: dict[str, np.ndarray], request_id: str = "r-1", **parameters: Any) -> bytes:
    """A V2 JSON body."""
    import json

    inputs = [
        {"name": name, "shape": [len(v), 1], "datatype": "BYTES" if v.dtype == object else "FP32", "data": v.tolist()}
        for name, v in columns.items()
    ]
    return json.dumps({"id": request_id, "inputs": inputs, "parameters": parameters}).encode()

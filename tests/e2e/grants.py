"""A model of who is granted what, trained in seconds: on fair decisions, or on biased ones."""

from typing import Any

NAME = "grants"
GRADES, SEXES = "ABCD", ("female", "male")

FAIR = {(g, s): 95 if g in "AB" else 5 for g in GRADES for s in SEXES}
"""Per cent granted, by grade and sex: grade decides."""
BIASED = {(g, s): 95 if g == "A" or (s == "male" and g != "D") else 5 for g in GRADES for s in SEXES}


def _rows(granted: dict[tuple[str, str], int]) -> str:
    lines = ["grade,sex,granted,cases"]
    for (grade, sex), share in granted.items():
        lines += [f"{grade},{sex},yes,{share}", f"{grade},{sex},no,{100 - share}"]
    return "\n".join(lines) + "\n"


def training(granted: dict[tuple[str, str], int], seed: int) -> dict[str, Any]:
    return {
        "data": {
            "inline": _rows(granted),
            "countColumn": "cases",
            "label": "granted",
            "features": [{"name": "grade", "type": "categorical"}, {"name": "sex", "type": "categorical"}],
        },
        "model": {"type": "mlp", "hidden": [8]},
        "optimizer": {"name": "adamw", "learningRate": 0.05},
        "loop": {"epochs": 15, "batchSize": 64, "seed": seed},
    }


def grants() -> dict[str, Any]:
    bias = {
        "protectedAttributes": [{"name": "sex", "privileged": ["male"]}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.2, "thresholdUpper": 0.2}],
        "minSamples": 400,
        "action": "Rollback",
    }
    spec = {
        "lifecycle": {
            "training": training(FAIR, 1),
            "rollout": {"strategy": "Canary", "steps": [50], "interval": "10s", "maxLatencyRatio": 100},
        },
        "governance": {"bias": bias},
    }
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": NAME},
        "spec": spec,
    }

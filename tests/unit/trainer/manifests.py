"""Builders of specs and tables for the trainer's tests."""

from typing import Any

from governed_api.governance import Bias
from governed_api.lifecycle import Training
from governed_api.resolved import ResolvedModel

COUNTS = {
    "A": ((512, 313), (89, 19)),
    "B": ((353, 207), (17, 8)),
    "C": ((120, 205), (202, 391)),
    "D": ((138, 279), (131, 244)),
    "E": ((53, 138), (94, 299)),
    "F": ((22, 351), (24, 317)),
}
"""Berkeley 1973 (Bickel, Hammel, O'Connell 1975): department → (admitted, rejected) of men, of women."""

ADMISSIONS = "department,sex,decision,applicants\n" + "".join(
    f"{department},{sex},{decision},{count}\n"
    for department, by_sex in COUNTS.items()
    for sex, counts in zip(("male", "female"), by_sex, strict=True)
    for decision, count in zip(("admitted", "rejected"), counts, strict=True)
)

ADMISSIONS_BIAS = {
    "protectedAttributes": [{"name": "sex", "privileged": ["male"]}],
    "strata": ["department"],
    "favorableOutcome": {"label": "admitted"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}


def admissions(**loop: Any) -> dict[str, Any]:
    """spec.lifecycle.training of a quick admissions model."""
    return {
        "data": {
            "inline": ADMISSIONS,
            "countColumn": "applicants",
            "label": "decision",
            "features": [{"name": "department", "type": "categorical"}, {"name": "sex", "type": "categorical"}],
        },
        "model": {"type": "mlp", "hidden": [8]},
        "loop": {"epochs": 3, "batchSize": 512, **loop},
    }


def inline(csv: str, features: dict[str, str], label: str = "y", **parts: Any) -> dict[str, Any]:
    """spec.lifecycle.training over inline CSV; ``features`` maps name to type."""
    listed = [{"name": name, "type": kind} for name, kind in features.items()]
    return {"data": {"inline": csv, "label": label, "features": listed}, **parts}


def training(plain: dict[str, Any]) -> Training:
    return Training.model_validate(plain)


def bias(plain: dict[str, Any]) -> Bias:
    return Bias.model_validate(plain)


def resolved(training: dict[str, Any], **spec: Any) -> ResolvedModel:
    """A resolved model; keyword arguments are parts of the spec beside lifecycle.training."""
    lifecycle = {"training": training, **spec.pop("lifecycle", {})}
    return ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": {"lifecycle": lifecycle, **spec}})

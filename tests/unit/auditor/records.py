"""A model with a bias audit, what its server records of people, and a keyset without an archive."""

from pathlib import Path
from typing import Any

import numpy as np

from governed_serving.crypto import DirectoryStore, Keyring, Keyset, load_kek
from governed_serving.records import PredictionFrame
from support.predictions import Field, Prediction, PredictionSchema, framed

SPEC: dict[str, Any] = {
    "name": "loans",
    "namespace": "default",
    "spec": {
        "lifecycle": {
            "training": {
                "data": {"generator": {"name": "credit"}, "label": "decision", "features": [{"name": "sex", "type": "categorical"}]}  # noqa: E501
            }
        },
        "governance": {
            "bias": {
                "protectedAttributes": [{"name": "sex", "privileged": ["M"]}],
                "favorableOutcome": {"label": "yes"},
                "metrics": [
                    {"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1},
                    {"name": "equalOpportunityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1},
                ],
                "minSamples": 50,
            }
        },
    },
}  # fmt: skip

SCHEMA = PredictionSchema("loans", "r1", "sha256:0", (Field("sex", "BYTES"),), (Field("label", "BYTES"),))


def local_keyset(root: Path) -> Keyset:
    """A keyset without an archive."""
    kek = root / "kek"
    kek.write_bytes(bytes(range(32)))
    kek.chmod(0o600)
    return Keyring(load_kek(kek), DirectoryStore(root / "keysets")).keyset("journal")


def prediction(number: int, sex: str, decision: str, time: float = 1_767_225_600.0) -> PredictionFrame:
    return framed(asked(number, sex, decision, time))


def asked(number: int, sex: str, decision: str, time: float = 1_767_225_600.0) -> Prediction:
    """One request, to be framed with others."""
    return Prediction(SCHEMA, f"request-{number}", time + number, 1, [[sex]], [[decision]])


def people(count: int, seed: int, men: float = 0.7, women: float = 0.3) -> list[tuple[str, str]]:
    """(sex, decision) of as many men as women, on average; the rates are those of "yes"."""
    rng = np.random.default_rng(seed)
    sexes = rng.choice(["M", "F"], count)
    yes = rng.random(count) < np.where(sexes == "M", men, women)
    return [(str(s), "yes" if y else "no") for s, y in zip(sexes, yes, strict=True)]

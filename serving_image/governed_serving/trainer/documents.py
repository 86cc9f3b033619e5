"""The artefact's files: its manifest and the documents that go with the model. No clock, no host, no thread count."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np

from governed_api.evidence import AppliedMitigation
from governed_api.json_types import Scalar
from governed_api.model import GovernedModelSpec
from governed_serving import artefact
from governed_serving.artefact import CJK_CHARACTERS, RULE, Coin, Feature, Lineage, Manifest, Output
from governed_serving.fairness.monitoring.reference import describe
from governed_serving.trainer.conformal import INTERVAL, SET
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.evaluation import Predictions
from governed_serving.trainer.preprocessing import Categorical, Preprocessing, Unseen
from governed_serving.trainer.thresholds import SCORE

REFERENCE_ROWS = 20_000
"""Training rows, a seeded sample, that the model is asked about, for the distribution of its outputs."""
BACKGROUND_ROWS = 1000
"""Most that spec.explainer.config.backgroundRows can ask for; in random order, so that any head of them is a sample."""
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
Variant = Literal["float", "int8", "pruned"]


def encode(document: Mapping[str, object]) -> bytes:
    """JSON with sorted keys: one byte form for one content."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def background(train: Dataset, unseen: str | None = None) -> dict[str, dict[str, list[Scalar]]]:
    """Raw training rows for explanations, at most ``BACKGROUND_ROWS``; gaps are null, and so is whom they are about
    (``unseen``)."""
    rng = np.random.default_rng(np.random.PCG64(0))
    rows = train.at(rng.permutation(train.rows)[:BACKGROUND_ROWS])
    columns = {n: [None if v != v else v for v in column.tolist()] for n, column in rows.features.items()}
    if unseen is not None:
        columns[unseen] = [None] * rows.rows
    return {"columns": columns}


def reference(
    train: Dataset, predictions: Predictions, favorable: str | None, unseen: str | None = None
) -> dict[str, object]:
    """Histograms of training rows and of what the model says about a sample of them, small cells suppressed; none of
    whom they are about (``unseen``), which is another one each time."""
    features = {name: column for name, column in train.features.items() if name != unseen}
    texts = frozenset(name for name, kind in train.types.items() if kind == "text")
    if not predictions.classes:
        return describe(features, texts, None, predictions.decided)
    names = [str(c) for c in predictions.classes]
    place = names.index(favorable) if favorable in names else len(names) - 1
    decision = np.array(names, object)[predictions.decided]
    return describe(features, texts, decision, predictions.scores[:, place])


@dataclass(frozen=True)
class Shipped:
    """What goes with the manifest into one artefact."""

    variant: Variant
    lineage: Lineage
    files: dict[str, bytes]
    mitigation: str = ""
    coin: Coin | None = None


def lineage(dataset: str, key: str, code: str) -> Lineage:
    """``dataset`` is the data set's digest, ``key`` the training's, ``code`` the version of our sources."""
    return Lineage(dataset, key, code, _versions())


def manifest(
    name: str,
    spec: GovernedModelSpec,
    train: Dataset,
    fitted: Preprocessing,
    shipped: Shipped,
) -> bytes:
    """model.json."""
    training, classes = spec.lifecycle.training, train.classes
    assert training is not None
    outcome = spec.governance.bias.favorable_outcome if spec.governance.bias else None
    described = Manifest(
        name=name,
        task="classification" if classes else "regression",
        features=[_feature(train, fitted, f.name, f.type) for f in training.data.features],
        inputs=[f.name for f in training.data.features],
        outputs=_outputs(classes, training.conformal is not None) + _drawn_outputs(shipped.coin),
        label=training.data.label,
        variant=shipped.variant,
        lineage=shipped.lineage,
        files={n: hashlib.sha256(data).hexdigest() for n, data in shipped.files.items()},
        classes=list(classes),
        favorable=outcome.label if outcome else None,
        threshold=outcome.threshold if outcome else None,
        bands={name: list(edges) for name, edges in train.bands.items()},
        mitigation=shipped.mitigation,
        coin=shipped.coin,
        coverage=training.conformal.coverage if training.conformal else None,
        settings={"level": spec.lifecycle.optimization.level, "threads": spec.lifecycle.optimization.threads},
    )
    return artefact.encode_manifest(described)


def mitigation_name(applied: AppliedMitigation | None) -> str:
    """As answers, the artefact and the ledger name it; "" where there is none, or none that changed anything."""
    if applied is None or not applied.effect:
        return ""
    return f"{applied.method}/{applied.constraint}" if applied.constraint else applied.method


def _outputs(classes: tuple[str | int, ...], conformal: bool) -> list[Output]:
    if not classes:
        return [Output("prediction", "FP32", [-1])] + [Output(INTERVAL, "FP32", [-1, 2])] * conformal
    text = isinstance(classes[0], str)
    plain = [Output("probabilities", "FP32", [-1, len(classes)]), Output("label", "BYTES" if text else "INT64", [-1])]
    return plain + [Output(SET, "BOOL", [-1, len(classes)])] * conformal


def _drawn_outputs(coin: Coin | None) -> list[Output]:
    return [] if coin is None else [Output(SCORE, "FP32", [-1]), Output(RULE, "BYTES", [-1])]


def _versions() -> dict[str, str]:
    return {"python": ".".join(platform.python_version_tuple()[:2]), **{name: version(name) for name in PACKAGES}}


def _feature(
    train: Dataset, fitted: Preprocessing, name: str, kind: Literal["numeric", "categorical", "text"]
) -> Feature:
    if any(isinstance(f, Unseen) and f.name == name for f in fitted.features):
        return Feature(name, kind, "BYTES", about=True)
    column = train.features[name]
    gaps = np.isnan(column) if kind == "numeric" else column == ""
    missing: Literal["refuse", "impute"] = "impute" if gaps.any() else "refuse"
    if kind == "numeric":
        seen = column[~gaps]
        low, high, mean = float(seen.min()), float(seen.max()), float(seen.astype(np.float64).mean())
        return Feature(name, kind, "FP32", min=low, max=high, mean=mean, missing=missing)
    if kind == "text":
        width = next(t.max_tokens for t in fitted.texts if t.name == name)
        return Feature(name, kind, "BYTES", missing=missing, segmentation=CJK_CHARACTERS, max_tokens=width)
    fitted_feature = next(f for f in fitted.features if isinstance(f, Categorical) and f.name == name)
    return Feature(name, kind, "BYTES", categories=fitted_feature.categories, missing=missing)

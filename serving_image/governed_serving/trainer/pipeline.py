"""The model step: encode → train → export → compress → gates → artefact files. The only module that pulls in torch."""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from governed_api.model import GovernedModelSpec
from governed_serving import artefact
from governed_serving.artefact import CJK_CHARACTERS, Feature, Lineage, Manifest, Output
from governed_serving.trainer import evaluation, export, gates
from governed_serving.trainer.compression import Variant, compress
from governed_serving.trainer.dataset import Dataset, reweighing, split
from governed_serving.trainer.errors import TrainingFailed
from governed_serving.trainer.loop import Curve, Rows, Trainer, build
from governed_serving.trainer.networks import Network
from governed_serving.trainer.prepare import Prepared
from governed_serving.trainer.preprocessing import Categorical, Encoded, Preprocessing, encode, fit, session
from governed_serving.trainer.volume import DataVolume

BACKGROUND_ROWS = 1000
"""Most that spec.explainer.config.backgroundRows can ask for; in random order, so that any head of them is a sample."""
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Made:
    """A packed artefact, and what to tell about it. ``measured`` holds what a clock said, which the artefact must not."""

    packed: bytes
    digest: str
    variant: Variant
    metrics: dict[str, float]
    gates: list[gates.Gate]
    measured: dict[str, float]
    epochs: int


@dataclass(frozen=True)
class Parts:
    """The three splits and the fitted preprocessing."""

    train: Dataset
    validation: Dataset
    test: Dataset
    fitted: Preprocessing


def make(
    name: str, spec: GovernedModelSpec, prepared: Prepared, volume: DataVolume, key: str, code: str, progress: Progress
) -> Made:
    """Train, compress, judge and pack. Raises InvalidTraining, TrainingFailed."""
    training = spec.lifecycle.training
    assert training is not None
    splits = split(prepared.dataset, training.data, training.loop.seed)
    parts = Parts(*splits, fit(splits[0], training.preprocess))
    encoded = encode(parts.fitted, parts.train)
    mean, scale = _target_scale(parts.train)
    network, curve = _train(spec, parts, encoded, volume, key, (mean, scale), progress)
    exported = export.export(network, parts.fitted)
    decision = export.decisions(prepared.dataset.classes, mean, scale)
    table = [_agreement(network, exported, encode(parts.fitted, parts.test), not prepared.dataset.classes)]
    before = export.serialise(export.join(parts.fitted, exported, decision))
    shipped, variant, judged = _compress(spec, parts, encoded, exported, before, decision)
    table += judged
    report = _evaluate(spec, parts, prepared, shipped)
    _check_least(spec, report["metrics"])
    optimise = spec.lifecycle.optimization
    brought, seconds = gates.optimisation(shipped, parts.test, optimise.level, optimise.threads)
    table.append(brought)
    files = _files(parts, prepared, report, curve, table)
    files["model.onnx"] = shipped
    files["model.json"] = artefact.encode_manifest(_manifest(name, spec, parts, prepared, variant, files, key, code))
    packed = artefact.pack(files)
    measured = {"latencySeconds": seconds}
    return Made(packed, artefact.digest(packed), variant, _flat_metrics(report), table, measured, len(curve))


def _target_scale(train: Dataset) -> tuple[float, float]:
    if train.classes:
        return 0.0, 1.0
    label = train.label.astype(np.float64)
    return float(label.mean()), float(label.std()) or 1.0


def _train(
    spec: GovernedModelSpec,
    parts: Parts,
    encoded: Encoded,
    volume: DataVolume,
    key: str,
    target: tuple[float, float],
    progress: Progress,
) -> tuple[Network, Curve]:
    training = spec.lifecycle.training
    assert training is not None
    weights = None
    if training.mitigation.method == "reweighing" and spec.governance.bias is not None and parts.train.classes:
        named = [a.name for a in spec.governance.bias.protected_attributes]
        weights = reweighing(parts.train.label, {name: parts.train.groups[name] for name in named})
    counts = np.bincount(parts.train.label, minlength=len(parts.train.classes)).tolist() if parts.train.classes else []
    network = build(parts.fitted, training, len(parts.train.classes) or 1)
    trainer = Trainer(network, training, volume, key)
    rows = Rows.of(encoded, _targets(parts.train, target), weights)
    held = Rows.of(encode(parts.fitted, parts.validation), _targets(parts.validation, target))
    return network, trainer.run(rows, held, counts, progress)


def _targets(rows: Dataset, target: tuple[float, float]) -> Any:
    if rows.classes:
        return rows.label
    return ((rows.label - target[0]) / target[1]).astype(np.float32)


def _agreement(network: Network, exported: Any, encoded: Encoded, regression: bool) -> gates.Gate:
    difference = export.largest_difference(network, exported, encoded, regression)
    text = "largest |ONNX Runtime − torch| over held-out rows"
    gate = gates.at_most("export", difference, export.TOLERANCE, text)
    if gate.verdict == "fail":
        raise TrainingFailed(f"export: expected ONNX within {export.TOLERANCE:g} of torch, found {difference:g}")
    return gate


def _compress(
    spec: GovernedModelSpec, parts: Parts, encoded: Encoded, exported: Any, before: bytes, decision: Any
) -> tuple[bytes, Variant, list[gates.Gate]]:
    life = spec.lifecycle
    assert life.training is not None
    if life.compression.method == "none":
        return before, "float", []
    calibration = {name: values[: life.compression.calibration_rows] for name, values in encoded.items()}
    small, variant = compress(exported, life.compression, calibration)
    after = export.serialise(export.join(parts.fitted, small, decision))
    optimise = life.optimization
    candidates = gates.Candidates(before, after, parts.test, optimise.level, optimise.threads, life.training.loop.seed)
    table = gates.judge(candidates, life.gates, spec.governance.bias)
    if any(gate.verdict == "fail" for gate in table):
        return before, "float", table
    return after, variant, table


def _evaluate(spec: GovernedModelSpec, parts: Parts, prepared: Prepared, model: bytes) -> dict[str, Any]:
    optimise, training = spec.lifecycle.optimization, spec.lifecycle.training
    assert training is not None
    running = session(model, optimise.level, optimise.threads)
    predictions = evaluation.predict(running, parts.test)
    weights = evaluation.importances(running, parts.test, training.loop.seed)
    bias = spec.governance.bias
    return {
        "rows": {"training": parts.train.rows, "validation": parts.validation.rows, "test": parts.test.rows},
        "metrics": evaluation.quality(predictions, parts.test.label),
        "groups": evaluation.group_tables(bias, parts.test, predictions) if bias is not None else {},
        "importances": [{"feature": n, "value": v} for n, v in sorted(weights.items(), key=lambda item: -item[1])],
        "data": prepared.audit,
    }


def _check_least(spec: GovernedModelSpec, metrics: dict[str, float]) -> None:
    least = spec.lifecycle.gates.min_accuracy
    found = metrics.get("accuracy", metrics.get("r2", 0.0))
    if least is not None and found < least:
        name = "accuracy" if "accuracy" in metrics else "R²"
        raise TrainingFailed(
            f"spec.lifecycle.gates.minAccuracy: expected {name} ≥ {least:g} on held-out rows, found {found:.4f}: nothing ships"
        )


def _files(
    parts: Parts, prepared: Prepared, report: dict[str, Any], curve: Curve, table: list[gates.Gate]
) -> dict[str, bytes]:
    documents = {
        "background.json": {"columns": _background(parts.train)},
        "training.json": {"curve": curve, "dataset": prepared.manifest},
        "evaluation.json": report,
        "gates.json": {"gates": gates.reproducible(table)},
    }
    return {name: json.dumps(d, sort_keys=True, ensure_ascii=False).encode() for name, d in documents.items()}


def _background(train: Dataset) -> dict[str, list[Any]]:
    rng = np.random.default_rng(np.random.PCG64(0))
    rows = train.at(rng.permutation(train.rows)[:BACKGROUND_ROWS])
    return {name: [None if v != v else v for v in column.tolist()] for name, column in rows.features.items()}


def _manifest(
    name: str,
    spec: GovernedModelSpec,
    parts: Parts,
    prepared: Prepared,
    variant: Variant,
    files: dict[str, bytes],
    key: str,
    code: str,
) -> Manifest:
    training, classes = spec.lifecycle.training, prepared.dataset.classes
    assert training is not None
    outputs = [Output("prediction", "FP32", [-1])]
    if classes:
        text = isinstance(classes[0], str)
        outputs = [
            Output("probabilities", "FP32", [-1, len(classes)]),
            Output("label", "BYTES" if text else "INT64", [-1]),
        ]
    outcome = spec.governance.bias.favorable_outcome if spec.governance.bias else None
    return Manifest(
        name=name,
        task="classification" if classes else "regression",
        features=[_feature(parts, f.name, f.type) for f in training.data.features],
        inputs=[f.name for f in training.data.features],
        outputs=outputs,
        label=training.data.label,
        variant=variant,
        lineage=Lineage(prepared.manifest["digest"], key, code, _versions()),
        files={n: hashlib.sha256(data).hexdigest() for n, data in files.items()},
        classes=list(classes),
        favorable=outcome.label if outcome else None,
        threshold=outcome.threshold if outcome else None,
        settings={"level": spec.lifecycle.optimization.level, "threads": spec.lifecycle.optimization.threads},
    )


def _versions() -> dict[str, str]:
    return {"python": ".".join(platform.python_version_tuple()[:2]), **{name: version(name) for name in PACKAGES}}


def _feature(parts: Parts, name: str, kind: Any) -> Feature:
    column = parts.train.features[name]
    if kind == "numeric":
        seen = column[~np.isnan(column)]
        low, high, mean = float(seen.min()), float(seen.max()), float(seen.astype(np.float64).mean())
        gaps: Any = "impute" if len(seen) < len(column) else "refuse"
        return Feature(name, kind, "FP32", min=low, max=high, mean=mean, missing=gaps)
    missing: Any = "impute" if (column == "").any() else "refuse"
    if kind == "text":
        width = next(t.max_tokens for t in parts.fitted.texts if t.name == name)
        return Feature(name, kind, "BYTES", missing=missing, segmentation=CJK_CHARACTERS, max_tokens=width)
    known = next(f for f in parts.fitted.features if isinstance(f, Categorical) and f.name == name)
    return Feature(name, kind, "BYTES", categories=known.categories, missing=missing)


def _flat_metrics(report: dict[str, Any]) -> dict[str, float]:
    """Held-out quality, and disparities of the data (``data.``) and of the model, for status and the command line."""
    flat = dict(report["metrics"])
    for prefix, tables in (("data", report["data"]), ("model", report["groups"])):
        for attribute, table in tables.items():
            flat[f"{prefix}.chiSquare.{attribute}"] = table["chiSquare"]
            for d in table["disparities"]:
                flat[f"{prefix}.spd.{attribute}.{d['group']}"] = d["spd"]
                if d["dir"] is not None:
                    flat[f"{prefix}.dir.{attribute}.{d['group']}"] = d["dir"]
    return flat

"""The model step: encode → train → export → compress → gates → artefact. The only module that pulls in torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from governed_api.base import wire
from governed_api.evidence import (
    AppliedMitigation,
    Evaluation,
    FittedThresholds,
    GateTable,
    Importance,
    Mitigation,
    MitigationStep,
    Unmitigated,
)
from governed_api.governance import Bias
from governed_api.lifecycle import Reductions, Thresholds
from governed_api.model import GovernedModelSpec
from governed_api.report import GateResult
from governed_serving import artefact
from governed_serving.crypto import Coins
from governed_serving.trainer import conformal, documents, evaluation, export, gates, thresholds
from governed_serving.trainer.audit import favorable
from governed_serving.trainer.compression import compress
from governed_serving.trainer.dataset import Dataset, reweighing, split
from governed_serving.trainer.documents import Variant
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed
from governed_serving.trainer.loop import Curve, Rows, Trainer, build
from governed_serving.trainer.networks import Network
from governed_serving.trainer.prepare import Prepared
from governed_serving.trainer.preprocessing import Encoded, encode, fit, session
from governed_serving.trainer.reductions import LEAST_ROWS, Moments, Multipliers, Weighted, chosen
from governed_serving.trainer.sampling import sample
from governed_serving.trainer.tables import Column
from governed_serving.trainer.volume import DataVolume

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Made:
    """A packed artefact, and what to tell about it. ``measured`` holds what a clock said, which the artefact must
    not."""

    packed: bytes
    digest: str
    variant: Variant
    metrics: dict[str, float]
    gates: list[GateResult]
    measured: dict[str, float]
    epochs: int
    mitigation: str
    thresholds: FittedThresholds | None = None


@dataclass(frozen=True)
class _Reduced:
    """What a step of the reductions approach wants to be learnt."""

    train: Weighted
    validation: Weighted


@dataclass(frozen=True)
class _Mitigated:
    """What was applied, and what the same training predicts for held-out rows without it."""

    applied: AppliedMitigation
    before: evaluation.Predictions


class Pipeline:
    """One training from prepared data to a packed artefact; ``key`` names it, ``code`` is the version of our
    sources; ``coin_key`` is asked for where decisions are drawn."""

    def __init__(
        self,
        name: str,
        spec: GovernedModelSpec,
        prepared: Prepared,
        volume: DataVolume,
        *,
        key: str,
        code: str,
        coin_key: Callable[[], bytes],
    ) -> None:
        assert spec.lifecycle.training is not None
        self._name, self._spec, self._training = name, spec, spec.lifecycle.training
        self._prepared, self._volume = prepared, volume
        self._key, self._code = key, code
        self._classes = prepared.dataset.classes
        parts = split(prepared.dataset, self._training.data, self._training.loop.seed)
        self._train, self._validation, self._test = parts
        self._calibration: Dataset | None = None
        if self._training.conformal is not None:
            seed = self._training.loop.seed
            self._train, self._calibration = conformal.apart(self._train, self._training.conformal, seed)
        self._thresholds = self._asked_thresholds()
        self._fitting: thresholds.FitRows | None = None
        self._coins: Coins | None = None
        self._drawn: thresholds.Fitted | None = None
        if self._thresholds is not None:
            self._fitting = self._set_apart(self._thresholds)
            self._secret = coin_key()
            self._coins = Coins(self._secret, self._subject_place())
        self._fitted = fit(self._train, self._training.preprocess, self._unseen)
        self._encoded = encode(self._fitted, self._train)
        self._encoded_test = encode(self._fitted, self._test)
        self._mean, self._scale = self._target_scale()

    def make(self, progress: Progress) -> Made:
        """Train, compress, judge and pack. Raises TrainingFailed."""
        network, curve, mitigated = self._mitigate(progress)
        exported = export.export(network, self._fitted)
        table = [self._agreement(network, exported)]
        decision = export.decisions(self._classes, self._mean, self._scale)
        shipped, variant = self._compress(exported, decision, table)
        shipped, sets = self._with_sets(shipped)
        shipped, mitigated = self._with_thresholds(shipped, mitigated)
        report = self._evaluate(shipped).model_copy(update=self._effect(mitigated, shipped, table))
        report = self._covered(shipped, sets, report, table)
        self._check_least(report.metrics)
        optimise = self._spec.lifecycle.optimization
        brought, seconds = gates.optimisation(
            shipped, self._test, optimise.level, optimise.threads, running=self._running
        )
        table.append(brought)
        packed = artefact.pack(self._files(shipped, variant, report, curve, table))
        metrics, name = flat_metrics(report), documents.mitigation_name(report.mitigation)
        fitted = report.mitigation.thresholds if report.mitigation else None
        return Made(
            packed, artefact.digest(packed), variant, metrics, table, {"latencySeconds": seconds}, len(curve), name,
            fitted,
        )  # fmt: skip

    def _asked_thresholds(self) -> Thresholds | None:
        asked = self._training.mitigation
        return (asked.thresholds or Thresholds()) if asked.method == "thresholds" else None

    def _set_apart(self, asked: Thresholds) -> thresholds.FitRows:
        """Training rows that the network won't see. Raises InvalidTraining, before anything is trained."""
        bias, attributes = self._spec.governance.bias, asked.attributes or self._attributes()
        assert bias is not None, "a rule of the spec"
        thresholds.checked(asked, self._prepared.dataset, attributes)
        self._train, rows = thresholds.apart(self._train, asked, self._training.loop.seed)
        return thresholds.FitRows.of(asked, rows, favorable(bias, rows.label, self._classes), attributes)

    @property
    def _unseen(self) -> str | None:
        return self._thresholds.subject if self._thresholds else None

    def _subject_place(self) -> int | None:
        names = [feature.name for feature in self._training.data.features]
        return names.index(self._unseen) if self._unseen else None

    def _target_scale(self) -> tuple[float, float]:
        if self._classes:
            return 0.0, 1.0
        label = self._train.label.astype(np.float64)
        return float(label.mean()), float(label.std()) or 1.0

    def _targets(self, label: NDArray[np.integer | np.floating]) -> NDArray[np.integer | np.floating]:
        return label if self._classes else ((label - self._mean) / self._scale).astype(np.float32)

    def _weights(self) -> NDArray[np.float32] | None:
        bias = self._spec.governance.bias
        if self._training.mitigation.method != "reweighing" or bias is None or not self._classes:
            return None
        groups = {a.name: self._train.groups[a.name] for a in bias.protected_attributes}
        return reweighing(self._train.label.astype(np.int64, copy=False), groups)

    def _fit_network(
        self, key: str, weights: NDArray[np.float32] | None, progress: Progress, asked: _Reduced | None = None
    ) -> tuple[Network, Curve]:
        """``asked``: what a reduction wants to be learnt, in place of labels and ``weights``."""
        label, held_label, held_weights = self._train.label, self._validation.label, None
        if asked is not None:
            label, weights = self._codes(asked.train.favorable), asked.train.weight
            held_label, held_weights = self._codes(asked.validation.favorable), asked.validation.weight
        rows = Rows.of(self._encoded, self._targets(label), weights)
        held = Rows.of(encode(self._fitted, self._validation), self._targets(held_label), held_weights)
        counts = np.bincount(label, minlength=len(self._classes)).tolist() if self._classes else []
        network = build(self._fitted, self._training, len(self._classes) or 1)
        return network, Trainer(network, self._training, self._volume, key).run(rows, held, counts, progress)

    def _mitigate(self, progress: Progress) -> tuple[Network, Curve, _Mitigated | None]:
        """The network that is to ship; and where mitigation is asked for, what the same training gives without it, so
        that its effect is on record."""
        method, bias = self._training.mitigation.method, self._spec.governance.bias
        weights = self._weights()
        if bias is None or (method != "reductions" and weights is None):
            return *self._fit_network(self._key, weights, progress), None
        moments = self._moments(bias) if method == "reductions" else None
        plain, curve = self._fit_network(f"{self._key}/unmitigated", None, progress)
        before = self._predictions(plain, self._encoded_test)
        if moments is not None:
            network, curve, applied = self._reduce(moments, bias, (plain, curve), progress)
            return network, curve, _Mitigated(applied, before)
        assert weights is not None
        effect = not np.allclose(weights, 1)
        if effect:
            plain, curve = self._fit_network(self._key, weights, progress)
        applied = AppliedMitigation(method=method, effect=effect, largest_weight=float(weights.max()))
        return plain, curve, _Mitigated(applied, before)

    def _moments(self, bias: Bias) -> tuple[Moments, Moments]:
        """Of training and validation rows. Raises InvalidTraining where there is nothing to constrain."""
        asked, field = self._training.mitigation.reductions or Reductions(), "spec.lifecycle.training.mitigation.method"
        if len(self._classes) != 2:
            classes = len(self._classes)
            raise InvalidTraining(field, f"reductions need a label with two classes, found {classes}: use reweighing")
        train, held = (
            Moments(asked.constraint, favorable(bias, p.label, self._classes), self._protected(p))
            for p in (self._train, self._validation)
        )
        if not train.constrained:
            rows = f"{LEAST_ROWS} training rows each" + " of one label" * (asked.constraint == "equalizedOdds")
            few = ", ".join(train.left_out[:10]) or "all but one"
            raise InvalidTraining(
                field,
                f"reductions need two groups of a protected attribute with {rows}, found too few of {few}: bring more "
                "rows, or set method none",
            )
        return train, held

    def _reduce(
        self, moments: tuple[Moments, Moments], bias: Bias, plain: tuple[Network, Curve], progress: Progress
    ) -> tuple[Network, Curve, AppliedMitigation]:
        """Networks by the reductions approach until one is within the constraint; the first is the unmitigated one."""
        asked, (train, held) = self._training.mitigation.reductions or Reductions(), moments
        encoded = self._encoded, encode(self._fitted, self._validation)
        made, steps = [plain], list[MitigationStep]()
        multipliers: Multipliers = {}
        while True:
            decided = [favorable(bias, self._predictions(made[-1][0], e).decided, self._classes) for e in encoded]
            right = float((decided[1] == favorable(bias, self._validation.label, self._classes)).mean())
            violations = train.largest(decided[0]), held.largest(decided[1])
            steps.append(MitigationStep(training=violations[0], validation=violations[1], accuracy=right))
            if max(violations) <= asked.max_disparity or len(steps) > asked.iterations:
                break
            multipliers = train.followed(multipliers, decided[0])
            wanted = _Reduced(train.weighted(multipliers), held.weighted(multipliers))
            made.append(self._fit_network(f"{self._key}/reduction{len(steps)}", None, progress, wanted))
        place = chosen([(step.training, step.validation) for step in steps], asked.max_disparity)
        reached = max(steps[place].training, steps[place].validation) <= asked.max_disparity
        told = AppliedMitigation(
            method="reductions", constraint=asked.constraint, max_disparity=asked.max_disparity, steps=steps,
            shipped=place, reached=reached, effect=place > 0,
            left_out=train.left_out + [f"{g} (validation)" for g in held.left_out if g not in train.left_out],
        )  # fmt: skip
        return *made[place], told

    def _codes(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Codes of two classes, the favourable one where ``wanted``."""
        assert self._spec.governance.bias is not None
        place = [str(c) for c in self._classes].index(str(self._spec.governance.bias.favorable_outcome.label))
        return np.where(wanted, place, 1 - place).astype(np.int64)

    def _protected(self, rows: Dataset) -> dict[str, Column]:
        return {name: rows.groups[name] for name in self._attributes()}

    def _predictions(self, network: Network, encoded: Encoded) -> evaluation.Predictions:
        return evaluation.Predictions(export.softmax(export.torch_scores(network, encoded)), self._classes)

    def _with_thresholds(self, model: bytes, mitigated: _Mitigated | None) -> tuple[bytes, _Mitigated | None]:
        """The model with drawn decisions, by thresholds that are fitted on what ships, compressed or not."""
        on = self._fitting
        if on is None or self._coins is None:
            return model, mitigated
        plain, place = self._session(model), int(self._codes(np.ones(1, bool))[0])
        scores = evaluation.predict(plain, on.rows).scores
        self._drawn = thresholds.fit(on, scores, place, self._coins.commitment)
        before = evaluation.predict(plain, self._test)
        applied = AppliedMitigation(
            method="thresholds", constraint=on.asked.constraint, left_out=on.left_out, thresholds=self._drawn.told
        )
        return thresholds.extend(model, self._drawn, on.rows), _Mitigated(applied, before)

    def _effect(self, mitigated: _Mitigated | None, model: bytes, table: list[GateResult]) -> dict[str, object]:
        """What mitigation did, on held-out rows; its lines are added to ``table``."""
        bias = self._spec.governance.bias
        if mitigated is None or bias is None:
            return {}
        before, applied = mitigated.before, mitigated.applied
        after = evaluation.predict(self._session(model), self._test)
        if self._drawn is not None and after.rules is not None:
            chances, deserved = after.scores[:, self._drawn.favorable], favorable(bias, self._test.label, self._classes)
            told = thresholds.measured(self._drawn.told, chances, deserved, after.rules != artefact.BASE_RULE)
            applied = applied.model_copy(update={"thresholds": told})
        table += gates.mitigation(bias, self._test, before, after)
        table.append(gates.constraint(applied))
        unmitigated = Unmitigated(
            metrics=evaluation.quality(before, self._test.label),
            largest_disparity=evaluation.largest_disparity(bias, self._test, before),
        )
        return {"unmitigated": unmitigated, "mitigation": applied}

    def _agreement(self, network: Network, exported: onnx.ModelProto) -> GateResult:
        difference = export.largest_difference(network, exported, self._encoded_test, not self._classes)
        text = "largest |ONNX Runtime − torch| over held-out rows"
        gate = gates.at_most("export", difference, export.TOLERANCE, text)
        if gate.verdict == "fail":
            raise TrainingFailed(f"export: expected ONNX within {export.TOLERANCE:g} of torch, found {difference:g}")
        return gate

    def _compress(
        self, exported: onnx.ModelProto, decision: onnx.ModelProto, table: list[GateResult]
    ) -> tuple[bytes, Variant]:
        """The model that ships, and its variant; the judgement is added to ``table``."""
        life = self._spec.lifecycle
        before = export.serialise(export.join(self._fitted, exported, decision))
        if life.compression.method == "none":
            return before, "float"
        chosen = sample(self._train, life.compression.calibration_rows, self._training.loop.seed)
        calibration = {name: values[chosen] for name, values in self._encoded.items()}
        small, variant = compress(exported, life.compression, calibration)
        after = export.serialise(export.join(self._fitted, small, decision))
        level, threads = life.optimization.level, life.optimization.threads
        candidates = gates.Candidates(before, after, self._test, level, threads, self._training.loop.seed)
        judged = gates.judge(candidates, life.gates, self._spec.governance.bias)
        table += judged
        return (before, "float") if any(gate.verdict == "fail" for gate in judged) else (after, variant)

    def _with_sets(self, model: bytes) -> tuple[bytes, conformal.Calibrated | None]:
        """The model with an output of promised coverage, calibrated on what ships, compressed or not."""
        asked, rows = self._training.conformal, self._calibration
        if asked is None or rows is None:
            return model, None
        predictions = evaluation.predict(self._session(model), rows)
        calibrated = conformal.calibrate(
            asked, rows, predictions, self._attributes() if asked.group_conditional else []
        )
        return conformal.extend(model, calibrated, rows), calibrated

    def _covered(
        self, model: bytes, sets: conformal.Calibrated | None, report: Evaluation, table: list[GateResult]
    ) -> Evaluation:
        """The report with coverage on held-out rows; its gates are added to ``table``."""
        if sets is None or self._calibration is None:
            return report
        told = conformal.measure(self._session(model), sets, self._test, self._attributes())
        table += conformal.gate(told)
        rows = {**report.rows, "calibration": self._calibration.rows}
        return report.model_copy(update={"conformal": told, "rows": rows})

    def _attributes(self) -> list[str]:
        bias = self._spec.governance.bias
        return [a.name for a in bias.protected_attributes] if bias is not None else []

    def _session(self, model: bytes) -> InferenceSession | thresholds.Drawn:
        optimise = self._spec.lifecycle.optimization
        return self._running(session(model, optimise.level, optimise.threads))

    def _running(self, opened: InferenceSession) -> InferenceSession | thresholds.Drawn:
        """As the server runs it: with draws where the graph takes them."""
        if self._coins is None or self._drawn is None:
            return opened
        return thresholds.Drawn(opened, self._coins, self._drawn.favorable)

    def _evaluate(self, model: bytes) -> Evaluation:
        bias, running = self._spec.governance.bias, self._session(model)
        predictions = evaluation.predict(running, self._test)
        weights = evaluation.importances(running, self._test, self._training.loop.seed)
        parts = {"training": self._train, "validation": self._validation, "test": self._test}
        parts |= {"thresholds": self._fitting.rows} if self._fitting is not None else {}
        return Evaluation(
            rows={name: part.rows for name, part in parts.items()},
            metrics=evaluation.quality(predictions, self._test.label),
            groups=evaluation.group_tables(bias, self._test, predictions) if bias is not None else {},
            offers=self._offers(bias, running, predictions) if bias is not None and self._drawn is None else {},
            importances=[Importance(feature=n, value=v) for n, v in sorted(weights.items(), key=lambda item: -item[1])],
            data=self._prepared.audit,
        )

    def _offers(
        self, bias: Bias, running: InferenceSession | thresholds.Drawn, predictions: evaluation.Predictions
    ) -> dict[str, Mitigation]:
        fit = evaluation.Judged(self._validation, evaluation.predict(running, self._validation))
        held = evaluation.Judged(self._test, predictions)
        return evaluation.offers(bias, self._train, fit, held, self._training.loop.seed)

    def _check_least(self, metrics: dict[str, float]) -> None:
        least = self._spec.lifecycle.gates.min_accuracy
        name = "accuracy" if self._classes else "r2"
        if least is not None and metrics[name] < least:
            message = f"expected {name} ≥ {least:g} on held-out rows, found {metrics[name]:.4f}: nothing ships"
            raise TrainingFailed(f"spec.lifecycle.gates.minAccuracy: {message}")

    def _files(
        self, model: bytes, variant: Variant, report: Evaluation, curve: Curve, table: list[GateResult]
    ) -> dict[str, bytes]:
        files = {
            "model.onnx": model,
            "background.json": documents.encode(documents.background(self._train, self._unseen)),
            "training.json": documents.encode({"curve": curve, "dataset": wire(self._prepared.manifest)}),
            "reference.json": documents.encode(self._reference(model)),
            "evaluation.json": documents.encode(wire(report)),
            "gates.json": documents.encode(wire(GateTable(gates=gates.reproducible(table)))),
        }
        origin = documents.lineage(self._prepared.manifest.digest, self._key, self._code)
        coin = None
        if self._coins is not None:
            coin, files[artefact.COIN_KEY] = artefact.Coin(self._unseen or ""), self._secret
        shipped = documents.Shipped(variant, origin, dict(files), documents.mitigation_name(report.mitigation), coin)
        files["model.json"] = documents.manifest(self._name, self._spec, self._train, self._fitted, shipped)
        return files

    def _reference(self, model: bytes) -> dict[str, object]:
        bias, running = self._spec.governance.bias, self._session(model)
        rows = self._train.at(sample(self._train, documents.REFERENCE_ROWS, self._training.loop.seed))
        favourable = bias.favorable_outcome.label if bias else None
        return documents.reference(self._train, evaluation.predict(running, rows), favourable, self._unseen)


def flat_metrics(report: Evaluation) -> dict[str, float]:
    """Held-out quality, and disparities of the data (``data.``) and of the model, for status and the command line."""
    flat = dict(report.metrics)
    for prefix, tables in (("data", report.data), ("model", report.groups)):
        for attribute, table in tables.items():
            if table.chi_square is not None:
                flat[f"{prefix}.chiSquare.{attribute}"] = table.chi_square
            for d in table.disparities:
                flat[f"{prefix}.spd.{attribute}.{d.group}"] = d.spd
                if d.dir is not None:
                    flat[f"{prefix}.dir.{attribute}.{d.group}"] = d.dir
    if sets := report.conformal:
        told = [("coverage", sets.overall)] + [
            (f"coverage.{attribute}.{one.group}", one) for attribute, rows in sets.groups.items() for one in rows
        ]
        flat |= {name: one.coverage for name, one in told if one.coverage is not None}
        flat["setSize" if sets.method == "LAC" else "intervalWidth"] = sets.overall.size or 0.0
    if without := report.unmitigated:
        flat |= {f"unmitigated.{name}": value for name, value in without.metrics.items()}
        flat |= {f"unmitigated.largestDisparity.{name}": v for name, v in without.largest_disparity.items()}
    return flat

"""Split conformal prediction: sets of classes, or intervals of a regression, with a promised chance to hold the truth.

Rows that nothing was fitted on or chosen by set one threshold (Papadopoulos et al. 2002; Vovk, Gammerman & Shafer
2005). Classes: the set has every class whose probability reaches it (LAC; Sadinle, Lei & Wasserman, JASA 2019), and the
label always. Regression: prediction ± the threshold (Lei et al., JASA 2018). With n calibration rows the threshold is
the ⌈(n + 1)·coverage⌉-th smallest nonconformity, so that a new row that is exchangeable with them is covered with at
least that chance, whatever the model. Where n is less than that rank only everything has this chance: all classes, or
all numbers of float32.

By group (Mondrian taxonomy; Vovk, ACML 2012): each group with enough calibration rows has a threshold of its own; all
others of an attribute, values never seen and missing ones included, share one. With several attributes a row takes the
most careful of its groups' thresholds, so that the promise holds for each group of each attribute.

The thresholds become nodes of the model's graph: what is served is a function of the row alone, and of the artefact.
Rows that are alike tie, and a tie at the threshold is many rows: what rounding may move, another batch or another
processor, is inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from governed_api.evidence import ConformalCoverage, ConformalEvaluation
from governed_api.lifecycle import Conformal
from governed_api.report import GateResult
from governed_serving.artefact.independence import ROUNDING
from governed_serving.fairness.inference.contrasts import log_gamma
from governed_serving.fairness.inference.intervals import clopper_pearson
from governed_serving.fairness.metrics.metrics import is_group
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed
from governed_serving.trainer.evaluation import CHUNK, Predictions
from governed_serving.trainer.group_nodes import value_of_group
from governed_serving.trainer.preprocessing import Graph, feeds

__all__ = ["INTERVAL", "SET", "Calibrated", "GroupThresholds", "apart", "calibrate", "extend", "gate", "measure"]

SET, INTERVAL = "prediction_set", "prediction_interval"
FIELD = "spec.lifecycle.training.conformal"
ALARM = 0.01
"""Chance that a gate fails a model whose held-out rows are like its calibration rows."""
_CALIBRATION = 1
SHOWN = 5
"""Groups in a message."""
PROBABILITY_ROUNDING = 64 * ROUNDING
"""Relative: a probability moves by as much as its score does, which is at most some 64."""
LEVEL = 0.95
"""Of the intervals around coverage on held-out rows, all of them together."""


@dataclass(frozen=True)
class GroupThresholds:
    """Of one protected attribute. ``own``: group → threshold; ``rest``: of all other rows, ``rest_rows`` in
    calibration, which may be too few for anything but everything."""

    attribute: str
    own: dict[str, float]
    rows: dict[str, int]
    rest: float
    rest_rows: int


@dataclass(frozen=True)
class Calibrated:
    """Thresholds: least probability that is in the set, or half the width of the interval."""

    asked: Conformal
    rows: int
    threshold: float
    groups: tuple[GroupThresholds, ...]


def least_rows(coverage: float) -> int:
    """Calibration rows below which only the set of everything has this coverage: the rank isn't there."""
    short = 1 - Fraction(str(coverage))
    return -(-short.denominator // short.numerator) - 1


def apart(train: Dataset, asked: Conformal, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to fit on and rows to calibrate on, which share none: drawn by ``seed``. Raises InvalidTraining."""
    for name, kind in train.types.items() if asked.group_conditional else ():
        if kind != "numeric" and train.bands.get(name):
            raise InvalidTraining(
                f"{FIELD}.groupConditional",
                f"{name} is grouped in bands of numbers and needs type numeric, found {kind}: correct its type",
            )
    held = _drawn(train.rows, asked.share, seed)
    if len(held) < (least := least_rows(asked.coverage)):
        raise InvalidTraining(
            FIELD,
            f"coverage {asked.coverage:g} needs at least {least} calibration rows, and share {asked.share:g} of "
            f"{train.rows} training rows are {len(held)}: raise share, lower coverage or bring more rows",
        )
    kept = np.setdiff1d(np.arange(train.rows), held)
    fitted = train.at(kept)
    if train.classes and len(np.unique(fitted.label)) < 2:
        raise InvalidTraining(f"{FIELD}.share", "leaves one class to train on: lower it or bring more rows")
    return fitted, train.at(held)


def _drawn(rows: int, share: float, seed: int) -> NDArray[np.int64]:
    """Each set of rows is as likely: what the promise rests on. Not the stream of draws that split the rows."""
    rng = np.random.default_rng(np.random.PCG64(np.random.SeedSequence([seed, _CALIBRATION])))
    return np.sort(rng.permutation(rows)[: round(rows * share)])


def calibrate(asked: Conformal, rows: Dataset, predictions: Predictions, attributes: Sequence[str]) -> Calibrated:
    """Thresholds from calibration ``rows`` and what the model that ships predicts for them. ``attributes``: whose
    groups get thresholds of their own. Raises TrainingFailed where the model predicts no number."""
    fit = _nonconformity(rows, predictions)
    if odd := int((~np.isfinite(fit)).sum()):
        raise TrainingFailed(
            f"{FIELD}: expected a number predicted for each calibration row, found none for {odd} of {rows.rows}: "
            "lower the learning rate, or look at the features' ranges"
        )
    whole = _threshold(fit, asked.coverage)
    slack = _rounding(predictions) if not rows.classes else None
    groups = [_of_groups(asked, name, rows, fit, whole) for name in attributes]
    return _as_served(Calibrated(asked, rows.rows, whole, tuple(groups)), slack)


def _nonconformity(rows: Dataset, predictions: Predictions) -> NDArray[np.float64]:
    """The less, the better the truth fits: minus its probability, or the size of the error. Shape (rows,)."""
    if rows.classes:
        return np.asarray(-predictions.scores[np.arange(rows.rows), rows.label].astype(np.float64))
    return np.asarray(np.abs(predictions.scores[:, 0].astype(np.float64) - rows.label))


def _threshold(nonconformity: NDArray[np.float64], coverage: float) -> float:
    """The ⌈(n + 1)·coverage⌉-th smallest, infinite where there are fewer; counted in fractions, as floats would round
    10 · .1 below 1."""
    n = len(nonconformity)
    beyond = floor((n + 1) * (1 - Fraction(str(coverage))))
    return float(np.sort(nonconformity)[n - beyond]) if beyond else inf


def _of_groups(
    asked: Conformal, attribute: str, rows: Dataset, fit: NDArray[np.float64], whole: float
) -> GroupThresholds:
    least = max(asked.min_group_rows, least_rows(asked.coverage))
    column = rows.groups[attribute].astype(str)
    names, counts = np.unique(column, return_counts=True)
    own = [str(n) for n, k in zip(names, counts, strict=True) if k >= least and is_group(str(n))]
    others = ~np.isin(column, own)
    rest = _threshold(fit[others], asked.coverage)
    return GroupThresholds(
        attribute,
        {name: _threshold(fit[column == name], asked.coverage) for name in own},
        {name: int((column == name).sum()) for name in own},
        rest if others.sum() >= asked.min_group_rows else max(rest, whole),  # few rows' threshold varies much
        int(others.sum()),
    )


def _rounding(predictions: Predictions) -> float:
    """What rounding may move a prediction by, and float32 take from an interval's end."""
    scores = predictions.scores.astype(np.float64)
    return ROUNDING * float(np.ptp(scores)) + float(np.spacing(np.abs(predictions.scores).max()))


def _as_served(calibrated: Calibrated, slack: float | None) -> Calibrated:
    """Thresholds as the graph compares: probabilities, or widths; widened so that rounding loses no row."""

    def served(value: float) -> float:
        if slack is None:
            return max(-value, 0.0) * (1 - PROBABILITY_ROUNDING)
        if value == inf:
            return float(np.finfo(np.float32).max)
        return float(np.nextafter(np.float32(value + 2 * slack), np.float32(np.inf)))

    groups = [
        GroupThresholds(g.attribute, {n: served(v) for n, v in g.own.items()}, g.rows, served(g.rest), g.rest_rows)
        for g in calibrated.groups
    ]
    return Calibrated(calibrated.asked, calibrated.rows, served(calibrated.threshold), tuple(groups))


# ---- as nodes of the graph ----


def extend(model: bytes, calibrated: Calibrated, rows: Dataset) -> bytes:
    """``model`` with the output ``prediction_set`` BOOL [rows, classes], or ``prediction_interval`` FP32 [rows, 2].
    ``rows``: calibration rows, which say what values a group's name stands for."""
    whole, g = onnx.ModelProto.FromString(model), Graph("")
    threshold = _threshold_node(g, calibrated, rows)
    out = _set_nodes(g, len(rows.classes), threshold) if rows.classes else _interval_nodes(g, threshold)
    whole.graph.node.extend(g.nodes)
    whole.graph.initializer.extend(g.constants)
    whole.graph.output.append(out)
    onnx.checker.check_model(whole)
    data: bytes = whole.SerializeToString(deterministic=True)
    return data


def _threshold_node(g: Graph, calibrated: Calibrated, rows: Dataset) -> str:
    """Shape (rows, 1), or (1, 1) where there are no groups; of several attributes the most careful."""
    if not calibrated.groups:
        return g.constant("conformal/threshold", np.array([[calibrated.threshold]], np.float32))
    each = [
        value_of_group(g, f"conformal/g{place}", group.attribute, group.own, rest=group.rest, rows=rows)
        for place, group in enumerate(calibrated.groups)
    ]
    return g.add("Min" if rows.classes else "Max", each, "conformal/threshold")


def _set_nodes(g: Graph, classes: int, threshold: str) -> onnx.ValueInfoProto:
    """All that isn't below both the threshold and the likeliest: the label (of classes that round to one probability
    any of them), and every class where probabilities aren't numbers."""
    axis = g.constant("conformal/axis", np.array([1], np.int64))
    best = g.add("ReduceMax", ["probabilities", axis], "conformal/best", keepdims=1)
    least = g.add("Min", [threshold, best], "conformal/least")
    g.add("Not", [g.add("Less", ["probabilities", least], "conformal/below")], SET)
    return helper.make_tensor_value_info(SET, TensorProto.BOOL, ["batch", classes])


def _interval_nodes(g: Graph, threshold: str) -> onnx.ValueInfoProto:
    axis = g.constant("conformal/axis", np.array([1], np.int64))
    column = g.add("Unsqueeze", ["prediction", axis], "conformal/column")
    ends = [g.add(op, [column, threshold], f"conformal/{op.lower()}") for op in ("Sub", "Add")]
    g.add("Concat", ends, INTERVAL, axis=1)
    return helper.make_tensor_value_info(INTERVAL, TensorProto.FLOAT, ["batch", 2])


# ---- what it is worth on held-out rows ----


def measure(
    running: InferenceSession, calibrated: Calibrated, held: Dataset, attributes: Sequence[str]
) -> ConformalEvaluation:
    """Coverage on rows that neither fitting nor calibration saw, of all and of each group of ``attributes``."""
    answers = _answers(running, held)
    if held.classes:
        covered, size = answers[np.arange(held.rows), held.label], answers.sum(1).astype(np.float64)
    else:
        covered = (answers[:, 0] <= held.label) & (held.label <= answers[:, 1])
        size = (answers[:, 1].astype(np.float64) - answers[:, 0]).astype(np.float64)
    columns = {name: held.groups[name].astype(str) for name in attributes}
    names = {name: [str(n) for n in np.unique(column)] for name, column in columns.items()}
    level = 1 - (1 - LEVEL) / (1 + sum(map(len, names.values())))

    def told(group: str, mask: NDArray[np.bool_], calibration: int, threshold: float, own: bool) -> ConformalCoverage:
        n, k = int(mask.sum()), int(covered[mask].sum())
        ends = clopper_pearson(k, n, level) if n else (0.0, 1.0)
        return ConformalCoverage(
            group=group, rows=n, covered=k, coverage=k / n if n else None, lower=ends[0], upper=ends[1],
            size=float(size[mask].mean()) if n else None,
            calibration_rows=calibration, threshold=threshold, own=own,
        )  # fmt: skip

    by = {g.attribute: g for g in calibrated.groups}
    groups = {}
    for name, listed in names.items():
        rules = by.get(name)
        groups[name] = [
            told(
                group,
                columns[name] == group,
                calibrated.rows if rules is None else rules.rows.get(group, rules.rest_rows),
                calibrated.threshold if rules is None else rules.own.get(group, rules.rest),
                rules is not None and group in rules.own,
            )
            for group in listed
        ]
    everybody = told("(all)", np.ones(held.rows, bool), calibrated.rows, calibrated.threshold, True)
    method = "LAC" if held.classes else "absoluteResidual"
    return ConformalEvaluation(
        coverage=calibrated.asked.coverage, method=method, output=SET if held.classes else INTERVAL,
        group_conditional=calibrated.asked.group_conditional, min_group_rows=calibrated.asked.min_group_rows,
        overall=everybody, groups=groups,
    )  # fmt: skip


def _answers(running: InferenceSession, held: Dataset) -> NDArray[np.bool_ | np.float32]:
    output, parts = SET if held.classes else INTERVAL, []
    for start in range(0, held.rows, CHUNK):
        part = held.at(np.arange(start, min(start + CHUNK, held.rows)))
        parts.append(running.run([output], feeds(part))[0])
    return np.concatenate(parts)


def gate(told: ConformalEvaluation) -> list[GateResult]:
    """Fails where so few covered rows would hardly come about by chance, were held-out and calibration rows alike: of
    all rows, or of each group with a threshold of its own."""
    if not told.group_conditional:
        return [_gate("coverage", [told.overall], told.coverage)]
    return [_gate_of_groups(name, groups, told) for name, groups in told.groups.items()]


def _gate_of_groups(attribute: str, groups: Sequence[ConformalCoverage], told: ConformalEvaluation) -> GateResult:
    """Groups that share a threshold aren't judged, and are named."""
    name, judged = f"coverage/{attribute}", [group for group in groups if group.own and group.rows]
    shared = [group.group for group in groups if not group.own]
    text = ""
    if shared:
        listed = ", ".join(shared[:SHOWN]) + (f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else "")
        text = f"{listed}: fewer than {told.min_group_rows} calibration rows each, one threshold for all of them"
    if not judged:
        text = text or "no held-out row"
        return GateResult(name=name, budget=told.coverage, verdict="not applicable", message=text)
    gate = _gate(name, judged, told.coverage)
    return gate.model_copy(update={"message": f"{gate.message}; {text}"}) if text else gate


def _gate(name: str, rows: Sequence[ConformalCoverage], promised: float) -> GateResult:
    chances = [_chance_of_so_few(row, promised) for row in rows]
    place = int(np.argmin(chances))
    worst, chance = rows[place], chances[place]
    text = f"{worst.group}: {worst.covered} of {worst.rows} held-out rows covered, {promised:g} promised; "
    text += f"so few or fewer have a chance of {chance:.2g} if they are like the calibration rows"
    verdict: Literal["pass", "fail"] = "fail" if chance < ALARM / len(rows) else "pass"
    return GateResult(name=name, measured=worst.coverage, budget=promised, verdict=verdict, message=text)


def _chance_of_so_few(coverage: ConformalCoverage, promised: float) -> float:
    """P(covered ≤ what was seen). Of exchangeable rows the number covered is at least beta-binomial: the threshold is
    the order statistic of a uniform sample (Vovk 2012)."""
    beyond = floor((coverage.calibration_rows + 1) * (1 - Fraction(str(promised))))
    a, b, m = float(coverage.calibration_rows + 1 - beyond), float(beyond), coverage.rows
    k = np.arange(coverage.covered + 1, dtype=np.float64)
    ways = log_gamma(np.array([m + 1.0])) - log_gamma(k + 1) - log_gamma(m - k + 1)
    mixed = log_gamma(k + a) + log_gamma(m - k + b) - log_gamma(np.array([m + a + b]))
    whole = log_gamma(np.array([a])) + log_gamma(np.array([b])) - log_gamma(np.array([a + b]))
    return min(float(np.exp(ways + mixed - whole).sum()), 1.0)

"""Randomised thresholds by group after training (Hardt, Price & Srebro 2016): fitted, served, measured.

They are fitted on what ships, after compression, on rows that the network wasn't fitted on and that don't judge it, and
become nodes of the model's graph: ``probabilities`` are the chances of each class to be answered, ``label`` is drawn
with them, ``model_score`` is what the network says of the favourable class, ``decision_rule`` whose thresholds decided.
The draw is an input of the graph, which the server computes from the row itself (:mod:`governed_serving.crypto.coins`):
everything that looks at probabilities, explanations and counterfactuals too, sees the expected decision, and nothing
that is served depends on chance twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from governed_api.evidence import FittedThresholds, GroupRule
from governed_api.lifecycle import Thresholds
from governed_serving.artefact import BASE_RULE, RULE
from governed_serving.artefact.independence import ROUNDING
from governed_serving.crypto import COIN, Coins, canonical
from governed_serving.fairness.metrics import thresholds as rules
from governed_serving.fairness.metrics.metrics import is_group
from governed_serving.fairness.metrics.thresholds import EVERYBODY, RandomisedThreshold
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed, listed
from governed_serving.trainer.group_nodes import value_of_group
from governed_serving.trainer.preprocessing import Graph

__all__ = ["SCORE", "Drawn", "FitRows", "Fitted", "apart", "checked", "extend", "fit", "measured"]

SCORE = "model_score"
"""Output: what the network says of the favourable class."""
FIELD = "spec.lifecycle.training.mitigation"
MOST_GROUPS = 64
"""With thresholds of their own; as many groups as one attribute may have."""
_DRAWN = 2
_LABELS = ("probabilities", "label")

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Group = tuple[str, ...]
"""A group of each attribute."""


class Drawn:
    """A session of a graph that takes draws, as the server runs it: inputs are features in the manifest's order.
    ``favorable``: place of the favourable class."""

    def __init__(self, session: InferenceSession, coins: Coins, favorable: int) -> None:
        self._session, self._coins, self.favorable = session, coins, favorable

    def run(self, outputs: list[str] | None, inputs: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Of ``outputs`` (None: all), shape (rows, …) each."""
        coin = self._coins.draw(list(inputs.values()))
        return list(self._session.run(outputs, {**inputs, COIN: coin}))


@dataclass(frozen=True)
class Fitted:
    """``rules``: group → thresholds; all others have ``base``. ``favorable``: place of the favourable class."""

    attributes: tuple[str, ...]
    favorable: int
    rules: dict[Group, RandomisedThreshold]
    base: RandomisedThreshold
    told: FittedThresholds

    def name(self, group: Group) -> str:
        """As answers and evidence name it."""
        return _name(self.attributes, group)


def apart(train: Dataset, asked: Thresholds, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to fit the network on and rows to fit thresholds on, which share none. Raises InvalidTraining."""
    rng = np.random.default_rng(np.random.PCG64(np.random.SeedSequence([seed, _DRAWN])))
    held = np.sort(rng.permutation(train.rows)[: round(train.rows * asked.share)])
    fitted = train.at(np.setdiff1d(np.arange(train.rows), held))
    if train.classes and len(np.unique(fitted.label)) < 2:
        raise InvalidTraining(f"{FIELD}.thresholds.share", "leaves one class to train on: lower it or bring more rows")
    return fitted, train.at(held)


def checked(asked: Thresholds, rows: Dataset, attributes: Sequence[str]) -> None:
    """Raises InvalidTraining for data that thresholds can't be had for."""
    if len(rows.classes) != 2:
        classes = len(rows.classes)
        raise InvalidTraining(
            f"{FIELD}.method", f"thresholds need a label with two classes, found {classes}: use reweighing"
        )
    for name in attributes:
        if rows.types[name] != "numeric" and rows.bands.get(name):
            raise InvalidTraining(
                f"{FIELD}.thresholds.attributes",
                f"{name} is grouped in bands of numbers and needs type numeric, found {rows.types[name]}: correct its "
                "type",
            )
    whose = rows.features[asked.subject].tolist() if asked.subject is not None else []
    if count := sum(not canonical(who) for who in whose):
        raise InvalidTraining(
            f"{FIELD}.thresholds.subject",
            f"column {asked.subject}: expected whom each row is about, found {count} missing or blank: all of them "
            "would share one draw; fill them in",
        )


@dataclass(frozen=True)
class FitRows:
    """What thresholds are fitted on. ``deserved``: the label is favourable; ``large``: group → its rows, of those with
    enough of them; ``left_out``: names of the others."""

    asked: Thresholds
    rows: Dataset
    deserved: Flags
    attributes: tuple[str, ...]
    large: dict[Group, Flags]
    left_out: list[str]

    @classmethod
    def of(cls, asked: Thresholds, rows: Dataset, deserved: Flags, attributes: Sequence[str]) -> "FitRows":
        """Raises InvalidTraining where fewer than two groups have enough rows."""
        return cls(asked, rows, deserved, tuple(attributes), *_groups(asked, rows, deserved, attributes))


def fit(on: FitRows, scores: NDArray[np.float32], favorable: int, key: str) -> Fitted:
    """Thresholds of each group that there are enough rows of. ``scores``: of the classes, (rows, 2), by what ships;
    ``favorable``: place of the favourable one; ``key``: the commitment of the draws' key.

    Raises TrainingFailed where a score is no number.
    """
    asked, rows, deserved, attributes, place = on.asked, on.rows, on.deserved, on.attributes, favorable
    score = scores[:, place].astype(np.float64)
    if odd := int((~np.isfinite(score)).sum()):
        raise TrainingFailed(
            f"{FIELD}.thresholds: expected a number predicted for each row, found none for {odd} of {rows.rows}: "
            "lower the learning rate, or look at the features' ranges"
        )
    large, fitted = on.large, rules.fit(score, deserved, on.large, asked.constraint, asked.objective, apart=ROUNDING)
    base = RandomisedThreshold(0.5 if place else float(np.nextafter(0.5, 0)), 1.0, EVERYBODY, 0.0)
    chances = base.chances(score)
    for group, rule in fitted.items():
        chances[large[group]] = rule.chances(score[large[group]])
    told = FittedThresholds(
        objective=asked.objective,
        attributes=list(attributes),
        subject=asked.subject or "",
        key=key,
        rows=rows.rows,
        accuracy=float(np.where(deserved, chances, 1 - chances).mean()),
        groups=[
            _told(_name(attributes, group), rule, chances[large[group]], deserved[large[group]])
            for group, rule in fitted.items()
        ],
    )
    return Fitted(attributes, place, fitted, base, told)


def _name(attributes: Sequence[str], group: Group) -> str:
    return " & ".join(f"{attribute}={value}" for attribute, value in zip(attributes, group, strict=True))


def _groups(
    asked: Thresholds, rows: Dataset, deserved: Flags, attributes: Sequence[str]
) -> tuple[dict[Group, Flags], list[str]]:
    """Rows of each group with enough of them, and the names of the others. Raises InvalidTraining."""
    columns = [rows.groups[name].astype(str) for name in attributes]
    cells, codes = np.unique(np.array(columns), axis=1, return_inverse=True)
    codes = codes.ravel()
    large, small = dict[Group, Flags](), list[str]()
    for place, cell in enumerate(cells.T.tolist()):
        group, member = tuple(cell), codes == place
        if all(is_group(value) for value in group) and _least(asked, deserved[member]) >= asked.min_group_rows:
            large[group] = member
        else:
            small.append(_name(attributes, group))
    if len(large) < 2:
        few = listed(small, none="all but one")
        raise InvalidTraining(f"{FIELD}.thresholds", f"{_needed(asked)}, found too few of {few}: {_REMEDY}")
    if len(large) > MOST_GROUPS:
        raise InvalidTraining(
            f"{FIELD}.thresholds.attributes",
            f"expected at most {MOST_GROUPS} groups of {' & '.join(attributes)} with thresholds of their own, found "
            f"{len(large)}: name fewer attributes, or declare wider bands",
        )
    return large, small


_REMEDY = "bring more rows, raise share, lower minGroupRows, or set method none"


def _least(asked: Thresholds, deserved: Flags) -> int:
    """Rows that count for a group: those whose rate is constrained, the fewer of both labels where both are; and one of
    each label where the objective is undefined without."""
    positive, negative = int(deserved.sum()), int((~deserved).sum())
    if asked.constraint == "equalizedOdds":
        return min(positive, negative)
    if asked.constraint == "equalOpportunity" or asked.objective == "balancedAccuracy":
        counted = positive if asked.constraint == "equalOpportunity" else positive + negative
        return counted if positive and negative else 0
    return positive + negative


def _needed(asked: Thresholds) -> str:
    of = {"equalizedOdds": " of each label", "equalOpportunity": " with a favourable label"}.get(asked.constraint, "")
    return f"thresholds need two groups with {asked.min_group_rows} rows{of} that they are fitted on"


def _told(name: str, rule: RandomisedThreshold, chances: Floats, deserved: Flags) -> GroupRule:
    return GroupRule(
        group=name,
        rows=len(chances),
        favorable=int(deserved.sum()),
        ignored=rule.ignored,
        chance=rule.chance,
        upper=rule.upper,
        upper_share=rule.upper_share,
        lower=rule.lower,
        lower_share=rule.lower_share,
        selection_rate=float(chances.mean()),
        true_positive_rate=float(chances[deserved].mean()) if deserved.any() else None,
        false_positive_rate=float(chances[~deserved].mean()) if not deserved.all() else None,
    )


def measured(told: FittedThresholds, chances: NDArray[np.float32], deserved: Flags, own: Flags) -> FittedThresholds:
    """``told`` with what held-out rows show. ``chances``: of the favourable class; ``own``: the row's group has
    thresholds of its own."""
    expected = np.where(deserved, chances, 1 - chances).astype(np.float64)
    figures = {
        "held_out_accuracy": float(expected.mean()),
        "held_out_drawn": int(((chances > 0) & (chances < 1)).sum()),
        "held_out_base": int((~own).sum()),
    }
    return told.model_copy(update=figures)


# ---- as nodes of the graph ----


def extend(model: bytes, fitted: Fitted, rows: Dataset) -> bytes:
    """``model`` with the decision drawn by ``fitted``. ``rows``: those it was fitted on, which say what values a
    group's name stands for."""
    whole = onnx.ModelProto.FromString(model)
    plain = _without_decision(whole)
    g = Graph("")
    cell = _cell_node(g, fitted, rows)
    chance = _chance_nodes(g, fitted, cell, plain)
    _decision_nodes(g, fitted, chance, rows.classes)
    names = [fitted.name(group) for group in fitted.rules] + [BASE_RULE]
    g.add("Gather", [g.constant("decision/names", np.array(names, object)), cell], RULE)
    text = isinstance(rows.classes[0], str)
    whole.graph.node.extend(g.nodes)
    whole.graph.initializer.extend(g.constants)
    whole.graph.input.append(helper.make_tensor_value_info(COIN, TensorProto.DOUBLE, ["batch", 1]))
    whole.graph.output.extend(
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("label", TensorProto.STRING if text else TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info(RULE, TensorProto.STRING, ["batch"]),
        ]
    )
    onnx.checker.check_model(whole)
    data: bytes = whole.SerializeToString(deterministic=True)
    return data


def _without_decision(whole: onnx.ModelProto) -> str:
    """Takes the model's own decision out of the graph; the name of its probabilities, float32 (rows, 2)."""
    nodes = [node for node in whole.graph.node if "label" not in node.output]
    for node in nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == "probabilities":
                    names[place] = "decision/probabilities"
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    kept = [output for output in whole.graph.output if output.name not in _LABELS]
    del whole.graph.output[:]
    whole.graph.output.extend(kept)
    return "decision/probabilities"


def _cell_node(g: Graph, fitted: Fitted, rows: Dataset) -> str:
    """Place of the row's group in ``found.rules``, or their number where it has none: int64 (rows,)."""
    values = [sorted({group[k] for group in fitted.rules}) for k in range(len(fitted.attributes))]
    places = {group: place for place, group in enumerate(fitted.rules)}
    shape = [len(own) + 1 for own in values]
    table = np.full(shape, len(places), np.int64)
    for group, place in places.items():
        table[tuple(own.index(value) for own, value in zip(values, group, strict=True))] = place
    total = ""
    for k, (name, own) in enumerate(zip(fitted.attributes, values, strict=True)):
        stride, at = int(np.prod(shape[k + 1 :])), f"decision/g{k}"
        codes = {value: float(code * stride) for code, value in enumerate(own)}
        coded = value_of_group(g, at, name, codes, rest=float(len(own) * stride), rows=rows)
        total = g.add("Add", [total, coded], f"{at}/total") if total else coded
    line = g.constant("decision/line", np.array([-1], np.int64))
    flat = g.add("Reshape", [total, line], "decision/flat")
    index = g.add("Cast", [flat], "decision/index", to=TensorProto.INT64)
    return g.add("Gather", [g.constant("decision/cells", table.ravel()), index], "decision/cell")


def _chance_nodes(g: Graph, fitted: Fitted, cell: str, probabilities: str) -> str:
    """Chance of the favourable class, float32 (rows, 1): base + Σ weight · [score > threshold], in doubles."""
    every = [*fitted.rules.values(), fitted.base]
    tables = {
        "thresholds": np.array([(rule.upper, rule.lower) for rule in every], np.float64),
        "weights": np.array([rule.weights for rule in every], np.float64),
        "bases": np.array([[rule.base] for rule in every], np.float64),
    }
    own = {n: g.add("Gather", [g.constant(f"decision/{n}", t), cell], f"decision/own {n}") for n, t in tables.items()}
    column = g.constant("decision/favorable", np.array([fitted.favorable], np.int64))
    single = g.add("Gather", [probabilities, column], "decision/single", axis=1)
    g.add("Reshape", [single, "decision/line"], SCORE)
    score = g.add("Cast", [single], "decision/score", to=TensorProto.DOUBLE)
    above = g.add("Greater", [score, own["thresholds"]], "decision/above")
    counted = g.add("Cast", [above], "decision/counted", to=TensorProto.DOUBLE)
    axis = g.constant("decision/axis", np.array([1], np.int64))
    weighed = g.add("Mul", [counted, own["weights"]], "decision/weighed")
    raised = g.add("ReduceSum", [weighed, axis], "decision/raised", keepdims=1)
    chance = g.add("Add", [raised, own["bases"]], "decision/sum")
    scored = g.add("Where", [g.add("IsNaN", [score], "decision/unknown"), score, chance], "decision/known")
    ends = [g.constant(f"decision/{n}", np.array(v, np.float32)) for n, v in (("zero", 0.0), ("one", 1.0))]
    rounded = g.add("Cast", [scored], "decision/rounded", to=TensorProto.FLOAT)
    return g.add("Clip", [rounded, *ends], "decision/chance")


def _decision_nodes(g: Graph, fitted: Fitted, chance: str, classes: tuple[str | int, ...]) -> None:
    """``probabilities``, and ``label``: favourable where the draw is below its chance, so that what has no number for a
    score isn't."""
    other = g.add("Sub", ["decision/one", chance], "decision/other")
    g.add("Concat", [other, chance] if fitted.favorable else [chance, other], "probabilities", axis=1)
    wide = g.add("Cast", [chance], "decision/wide", to=TensorProto.DOUBLE)
    drawn = g.add("Reshape", [g.add("Less", [COIN, wide], "decision/less"), "decision/line"], "decision/drawn")
    kind = object if isinstance(classes[0], str) else np.int64
    names = [g.constant(f"decision/class {k}", np.array([name], kind)) for k, name in enumerate(classes)]
    g.add("Where", [drawn, names[fitted.favorable], names[1 - fitted.favorable]], "label")

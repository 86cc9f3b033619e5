"""Answers of a model as types: a prediction for each row, and what explains one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from governed_api.json_reading import items, text_of
from governed_api.json_types import Json
from governed_api.runtime import PREDICTION_ID_HEADER, PROMISE_HEADER
from governed_operator.local.client import ExplainAnswer, Explained, InferAnswer, Metadata
from governed_operator.local.client import Explanation as WireExplanation
from governed_operator.local.columns import Tensor
from governed_operator.local.json_client import Unreadable

__all__ = ["Attribution", "Explanation", "Prediction", "explanation_of", "predictions_of"]

_OUTCOMES = ("label", "prediction")
"""Outputs that are the answer itself, of a classifier and of a regression."""
_PROBABILITIES, _SET, _INTERVAL = "probabilities", "prediction_set", "prediction_interval"


@dataclass(frozen=True)
class Prediction:
    """What the model answered to one row."""

    outcome: Json
    """Class, or number; of a model without either its first output."""
    probabilities: Mapping[str | int, float]
    """By class, from 0 to 1; empty where the model gives none."""
    prediction_set: tuple[str | int, ...] | None
    """Classes that hold the true one with the chance ``coverage``; None where the model gives no set."""
    interval: tuple[float, float] | None
    """In which the true number lies with the chance ``coverage``, in its own unit; None where the model gives none."""
    coverage: float | None
    """From 0 to 1; None: nothing is promised."""
    mitigation: str
    """Of bias, with which the model was trained or decides; "": none."""
    id: str
    """Of the answer in the ledger, for receipts, labels and contests: rows of one request share it."""
    revision: str
    """Of the model, that answered."""
    promise: str
    """Signed, that the record will be in the ledger (a compact JWS); "": none was asked for."""
    outputs: Mapping[str, Json] = field(repr=False)
    """Every output of this row, by name."""


@dataclass(frozen=True)
class Attribution:
    """What a feature, or a group of features, has added to the output that is explained."""

    name: str
    """Of the feature, of the group, or the word itself of a text."""
    value: Json
    """That the row has there."""
    attribution: float
    """In the unit of the explained output (a probability, its log-odds, or the number that is predicted)."""
    interval: tuple[float, float] | None
    """Of a sampled value, at the confidence that was asked for; None where it is exact, or nothing can be said."""


@dataclass(frozen=True)
class Explanation:
    """Of one row. Where the method gives Shapley values, ``base_value`` and all attributions add up to ``prediction``,
    up to ``additivity_residual``."""

    method: str
    attributions: tuple[Attribution, ...]
    """Largest first; empty of methods that give a rule or changes, which are in ``document``."""
    target: Json
    """Class whose score is explained; None of a regression."""
    base_value: float | None
    """The output over the background."""
    prediction: float | None
    """The output of this row."""
    additivity_residual: float | None
    exact: bool
    """No attribution was sampled."""
    document: WireExplanation = field(repr=False)
    """All that was answered: seed, digests, evaluations, interactions, anchor, counterfactuals."""


def predictions_of(answer: InferAnswer, headers: Mapping[str, str], metadata: Metadata, rows: int) -> list[Prediction]:
    """One for each of ``rows``. Raises Unreadable where an output has another number of them."""
    about, said = metadata.get("parameters", {}), answer.get("parameters", {})
    classes = about.get("classes", [])
    columns = {output["name"]: _split(output, rows) for output in answer["outputs"]}
    made = []
    for n in range(rows):
        outputs = {name: column[n] for name, column in columns.items()}
        chosen = items(outputs.get(_SET))
        made.append(
            Prediction(
                outcome=_outcome(outputs),
                probabilities=dict(zip(classes, map(_number, items(outputs.get(_PROBABILITIES))), strict=False)),
                prediction_set=tuple(islice(_chosen(classes, chosen), len(classes))) if _SET in outputs else None,
                interval=_ends(outputs.get(_INTERVAL)),
                coverage=about.get("coverage"),
                mitigation=said.get("mitigation", ""),
                id=headers.get(PREDICTION_ID_HEADER) or said.get("prediction_id") or answer["id"],
                revision=said.get("revision", ""),
                promise=headers.get(PROMISE_HEADER, ""),
                outputs=outputs,
            )
        )
    return made


def explanation_of(answer: ExplainAnswer) -> Explanation:
    """Of the one row that was asked about. Raises Unreadable where there is none."""
    found = answer.get("explanations", [])
    if len(found) != 1:
        raise Unreadable(f"expected the explanation of one row, found {len(found)}")
    (told,) = found
    exact = told.get("exact", True) is True
    attributions = [_attribution(one, exact) for one in told.get("attributions", [])]
    return Explanation(
        method=told.get("method", ""),
        attributions=tuple(sorted(attributions, key=lambda one: -abs(one.attribution))),
        target=told.get("target"),
        base_value=_figure(told.get("base_value")),
        prediction=_figure(told.get("prediction")),
        additivity_residual=_figure(told.get("additivity_residual")),
        exact=exact,
        document=told,
    )


def _split(output: Tensor, rows: int) -> list[Json]:
    """Values by row: a scalar each, or a list where an output has a shape of its own. Raises Unreadable."""
    data, shape = output["data"], output["shape"]
    width, rest = divmod(len(data), rows)
    if rest or not width or shape[0] != rows:
        raise Unreadable(f"output {output['name']}: expected values of {rows} rows, found {len(data)} {shape}")
    if width == 1 and len(shape) == 1:
        return list(data)
    return [list(data[n * width : (n + 1) * width]) for n in range(rows)]


def _outcome(outputs: Mapping[str, Json]) -> Json:
    named = next((outputs[name] for name in _OUTCOMES if name in outputs), None)
    if named is None:
        single = [value for value in outputs.values() if not isinstance(value, list)]
        named = single[0] if single else next(iter(outputs.values()), None)
    return named[0] if isinstance(named, list) and len(named) == 1 else named


def _chosen(classes: Sequence[str | int], flags: list[Json]) -> Iterator[str | int]:
    return (name for name, inside in zip(classes, flags, strict=False) if inside is True)


def _ends(value: Json) -> tuple[float, float] | None:
    match value:
        case [low, high]:
            return _number(low), _number(high)
    return None


def _attribution(told: Explained, exact: bool) -> Attribution:
    name = told.get("feature") or told.get("group") or text_of(told.get("value"))
    low, high = told.get("interval") or (None, None)
    known = None if exact or low is None or high is None else (low, high)
    return Attribution(name, told.get("value"), _figure(told.get("attribution")) or 0.0, known)


def _figure(value: Json) -> float | None:
    """A number, or the first of a list; None where there is none."""
    if isinstance(value, list):
        return _figure(value[0]) if value else None
    return float(value) if isinstance(value, int | float) else None


def _number(value: Json) -> float:
    """NaN for what JSON has no number for."""
    return float(value) if isinstance(value, int | float) else math.nan

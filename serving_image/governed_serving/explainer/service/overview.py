"""The model as a whole, over its background rows: importances, effects, a surrogate tree, as one answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import plain, row_count, take
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.overall.effects import Effect, accumulated_local_effects, partial_dependence
from governed_serving.explainer.overall.importance import permutation_importance
from governed_serving.explainer.overall.surrogate import surrogate_tree
from governed_serving.explainer.scales import OUTPUT
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.protocol import (
    MAX_INTERACTIONS,
    Answer,
    ExplainRequest,
    Parameters,
    seed_of,
)

__all__ = ["REPEATS", "Effects", "Importances", "Overall", "Whole", "importance_entry", "overview"]

EXPLAINED = 32
"""Background rows whose attributions make the mean |attribution|."""

POINTS = 12

REPEATS = 5
"""Shuffles of each player."""

STRONGEST_PAIRS = 20
"""Pairs of players whose mean |interaction| is shown."""


_OWN_UNITS = {
    "lime": "coefficients of lime",
    "saliency": "size of the gradient by encoded column",
    "inputXGradient": "gradient times encoded value",
}
"""Of methods whose attributions are no shares of an output."""


@dataclass(frozen=True)
class Whole:
    """What is explained: the model's answers in column ``target`` to its background."""

    model: ExplainedModel
    box: BlackBox
    target: int
    seed: np.random.SeedSequence


Importances = Callable[[Whole], list[dict[str, object]]]
"""Permutation importance of every player, the largest first."""

Effects = Callable[[Whole, str], dict[str, object]]
"""How the outcome goes with one feature."""


@dataclass(frozen=True)
class Overall:
    """Who computes importances and effects; ``about``: what another's engine says of itself."""

    importance: Importances
    effect: Effects
    about: Callable[[], Mapping[str, object]] = dict


def overview(engine: Engine, overall: Overall | None = None) -> dict[str, Any]:
    """Importances and effects by ``overall`` (absent: ours).

    Asks the model for a few thousand rows. The seed comes from the model's digest: the same model, the same answer.
    """
    model, box = engine.model, engine.box(None)
    if not model.background:
        raise NotExplainable(
            "overview: expected a model with background rows, found a runtime, which has none; explain single "
            "completions"
        )
    rows, identifier = model.background, f"overview-{model.digest.removeprefix('sha256:')[:16]}"
    seeds = np.random.SeedSequence(seed_of(identifier)).spawn(2)
    by = overall or Overall(_shuffled, _effect)
    target = (
        model.position(model.manifest.favorable) if model.manifest.favorable is not None else len(model.outputs) - 1
    )
    whole = Whole(model, box, target, seeds[0])
    importances = by.importance(whole)
    outputs = box(rows)[:, target]
    tree = surrogate_tree(rows, outputs, depth=3, least=max(2, len(outputs) // 20), seed=seeds[1])
    request = ExplainRequest(identifier, take(rows, slice(0, EXPLAINED)), Parameters(target=model.outputs[target]))
    answer = engine.explain(request)
    pairs = _interactions(engine, request, answer)
    return {
        "model_name": model.manifest.name,
        "id": identifier,
        "target": model.outputs[target],
        "rows": row_count(rows),
        "units": _units(answer, pairs.shown),
        "mean_absolute_attribution": _mean_absolute(answer),
        "permutation_importance": importances,
        **pairs.shown,
        "effects": [
            by.effect(whole, feature.name)
            for feature in model.features
            if feature.type != "text" and _has_values(rows[feature.name])
        ],
        "surrogate": {
            "fidelity": tree.fidelity,
            "rules": [{"rule": r, "value": v, "rows": n} for r, v, n in tree.root.rules()],
        },
        **({"engine": about} if (about := by.about()) else {}),
        "digests": engine.digests(),
        "evaluations": box.rows + answer["evaluations"] + pairs.evaluations,
    }


@dataclass(frozen=True)
class _Pairs:
    """The overview's part about pairs, and the rows that the model was asked for it."""

    shown: dict[str, object]
    evaluations: int


def _interactions(engine: Engine, request: ExplainRequest, answer: Answer) -> _Pairs:
    """Mean |interaction| over the rows whose attributions were shown, where they are known exactly: else too dear for
    many rows at once."""
    exact = all(explanation.get("exact") for explanation in answer["explanations"])
    if not (exact and engine.interacts()):
        return _Pairs({}, 0)
    parameters = Parameters(target=request.parameters.target, method="shap", interactions=MAX_INTERACTIONS)
    explained = engine.explain(ExplainRequest(request.id, request.columns, parameters))
    sizes: dict[tuple[str, str], list[float]] = {}
    for explanation in explained["explanations"]:
        for pair in explanation["interactions"]:
            one, other = pair["between"]
            sizes.setdefault((one, other), []).append(abs(pair["interaction"]))
    ranked = sorted(((float(np.mean(values)), pair) for pair, values in sizes.items()), key=lambda item: -item[0])
    shown = [{"between": list(pair), "value": value} for value, pair in ranked[:STRONGEST_PAIRS]]
    return _Pairs(
        {"mean_absolute_interaction": shown, "interactions_left_out": len(ranked) - len(shown)},
        explained["evaluations"],
    )


def _units(answer: Answer, pairs: Mapping[str, object]) -> dict[str, str]:
    """Figure → what its values are in: the output that is explained (a probability, or the predicted quantity), its
    log-odds, or what its method alone gives."""
    first = answer["explanations"][0]
    scale = "log-odds" if first.get("scale", OUTPUT) != OUTPUT else "output"
    attributed = _OWN_UNITS.get(first["method"], scale)
    units = {"mean_absolute_attribution": attributed, "permutation_importance": "output"}
    units |= {"mean_absolute_interaction": scale} if "mean_absolute_interaction" in pairs else {}
    return units | {"effects": "output", "surrogate": "output"}


def _has_values(column: NDArray[np.generic]) -> bool:
    """Whether there is anything to draw an effect over: a number that no background row has has none."""
    return column.dtype == object or bool(np.isfinite(column.astype(float)).any())


def _mean_absolute(answer: Answer) -> list[dict[str, object]]:
    shares: dict[str, list[float]] = {}
    for explanation in answer["explanations"]:
        for entry in explanation.get("attributions", []):
            shares.setdefault(entry.get("feature", entry.get("group")), []).append(abs(entry["attribution"]))
    ranked = sorted(shares.items(), key=lambda item: -sum(item[1]))
    return [{"player": name, "value": float(np.mean(values))} for name, values in ranked]


def _shuffled(whole: Whole) -> list[dict[str, object]]:
    importance = permutation_importance(
        whole.box, whole.model.background, whole.model.players(None), repeats=REPEATS, seed=whole.seed
    )
    order = np.argsort(-importance.values, kind="stable")
    return [
        importance_entry(importance.names[i], importance.values[i], (importance.lower[i], importance.upper[i]))
        for i in order
    ]


def importance_entry(player: str, value: float, interval: tuple[float, float]) -> dict[str, object]:
    return {"player": player, "value": float(value), "interval": [plain(float(end)) for end in interval]}


def _effect(whole: Whole, feature: str) -> dict[str, object]:
    """ALE for numbers, partial dependence for categories and for numbers that have but one value."""
    box, rows = whole.box, whole.model.background
    try:
        effect: Effect = accumulated_local_effects(box, rows, feature, POINTS)
        kind = "accumulated local effects"
    except NotExplainable:  # categories have no order
        effect, kind = partial_dependence(box, rows, feature, POINTS), "partial dependence"
    return {
        "feature": feature,
        "kind": kind,
        "grid": [plain(value) for value in effect.grid],
        "values": effect.values[:, whole.target].tolist(),
        "rows": effect.counts.tolist(),
    }

"""The model as a whole, over its background rows: importances, effects, a surrogate tree, as one answer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import plain, row_count, take
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.overall.effects import Effect, accumulated_local_effects, partial_dependence
from governed_serving.explainer.overall.importance import GlobalImportance, permutation_importance
from governed_serving.explainer.overall.surrogate import surrogate_tree
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.protocol import Answer, ExplainRequest, Parameters, seed_of

__all__ = ["overview"]

EXPLAINED = 32
"""Background rows whose attributions make the mean |attribution|."""

POINTS = 12


def overview(engine: Engine) -> dict[str, Any]:
    """Asks the model for a few thousand rows. The seed comes from the model's digest: the same model, the same
    answer."""
    model, box = engine.model, engine.box(None)
    if not model.background:
        raise NotExplainable(
            "overview: expected a model with background rows, found a runtime, which has none; explain single "
            "completions"
        )
    rows, identifier = model.background, f"overview-{model.digest.removeprefix('sha256:')[:16]}"
    seeds = np.random.SeedSequence(seed_of(identifier)).spawn(2)
    players = model.players(None)
    target = (
        model.position(model.manifest.favorable) if model.manifest.favorable is not None else len(model.outputs) - 1
    )
    shuffled = permutation_importance(box, rows, players, repeats=5, seed=seeds[0])
    outputs = box(rows)[:, target]
    tree = surrogate_tree(rows, outputs, depth=3, least=max(2, len(outputs) // 20), seed=seeds[1])
    request = ExplainRequest(identifier, take(rows, slice(0, EXPLAINED)), Parameters(target=model.outputs[target]))
    answer = engine.explain(request)
    return {
        "model_name": model.manifest.name,
        "id": identifier,
        "target": model.outputs[target],
        "rows": row_count(rows),
        "mean_absolute_attribution": _mean_absolute(answer),
        "permutation_importance": _importance(shuffled),
        "effects": [
            _effect(engine, feature.name, feature.dtype == "BYTES", target, box)
            for feature in model.features
            if feature.type != "text" and _has_values(rows[feature.name])
        ],
        "surrogate": {
            "fidelity": tree.fidelity,
            "rules": [{"rule": r, "value": v, "rows": n} for r, v, n in tree.root.rules()],
        },
        "digests": engine.digests(),
        "evaluations": box.rows + answer["evaluations"],
    }


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


def _importance(importance: GlobalImportance) -> list[dict[str, object]]:
    order = np.argsort(-importance.values, kind="stable")
    return [
        {
            "player": importance.names[i],
            "value": float(importance.values[i]),
            "interval": [float(importance.lower[i]), float(importance.upper[i])],
        }
        for i in order
    ]


def _effect(engine: Engine, feature: str, text: bool, target: int, box: BlackBox) -> dict[str, object]:
    """ALE for numbers, partial dependence for categories and for numbers that have but one value."""
    try:
        if text:
            raise NotExplainable("categories have no order")
        effect: Effect = accumulated_local_effects(box, engine.model.background, feature, POINTS)
        kind = "accumulated local effects"
    except NotExplainable:
        effect, kind = partial_dependence(box, engine.model.background, feature, POINTS), "partial dependence"
    return {
        "feature": feature,
        "kind": kind,
        "grid": [plain(value) for value in effect.grid],
        "values": effect.values[:, target].tolist(),
        "rows": effect.counts.tolist(),
    }

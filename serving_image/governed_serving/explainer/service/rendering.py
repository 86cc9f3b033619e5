"""Attributions as JSON-ready answers."""

from typing import Any

from governed_serving.blackbox.columns import Columns, plain
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.players import Players
from governed_serving.explainer.quality import complexity, rank_correlation

__all__ = ["Explanation", "rendered"]

Explanation = dict[str, Any]
"""An item of an answer's ``explanations``, JSON-ready; which fields it has is its method's affair."""


def rendered(
    attribution: Attribution, target: int, target_name: str | int, players: Players | None, row: Columns
) -> Explanation:
    """One output of an attribution. ``row`` holds the explained row; without ``players`` the names are spans of a
    text."""
    entries = [_entry(attribution, index, target, players, row) for index in range(len(attribution.names))]
    return {
        "method": attribution.method,
        "target": target_name,
        "base_value": float(attribution.base[target]),
        "prediction": float(attribution.prediction[target]),
        "attributions": entries,
        "additivity_residual": float(attribution.residual[target]),
        "exact": attribution.exact,
        "confidence": attribution.confidence,
        "evaluations": attribution.evaluations,
        "coalitions": attribution.coalitions,
        "complexity": complexity(attribution.values[:, target]),
        **_stability(attribution, target),
        **_details(attribution, target),
    }


def _entry(
    attribution: Attribution, index: int, target: int, players: Players | None, row: Columns
) -> dict[str, object]:
    name = attribution.names[index]
    entry: dict[str, object]
    if players is None:
        entry = {"span": attribution.details["spans"][index], "value": name}
    else:
        members = players.members[index]
        values = {member: plain(row[member][0]) for member in members}
        alone = members == (name,)
        entry = {"feature": name, "value": values[name]} if alone else {"group": name, "value": values}
    entry["attribution"] = float(attribution.values[index, target])
    entry["interval"] = [plain(attribution.lower[index, target]), plain(attribution.upper[index, target])]
    if attribution.background_error is not None:
        entry["background_error"] = float(attribution.background_error[index, target])
    return entry


def _stability(attribution: Attribution, target: int) -> dict[str, object]:
    if attribution.halves is None:
        return {}
    return {"stability": rank_correlation(attribution.halves[0][:, target], attribution.halves[1][:, target])}


def _details(attribution: Attribution, target: int) -> dict[str, object]:
    shown = {key: value for key, value in attribution.details.items() if key != "spans"}
    if isinstance(shown.get("score"), list):
        shown["score"] = shown["score"][target]
    return shown

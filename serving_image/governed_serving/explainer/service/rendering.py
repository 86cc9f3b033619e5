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
    found: Attribution, target: int, target_name: str | int, players: Players | None, row: Columns
) -> Explanation:
    """One output of an attribution. ``row`` holds the explained row; without ``players`` the names are spans of a
    text."""
    entries = [_entry(found, index, target, players, row) for index in range(len(found.names))]
    return {
        "method": found.method,
        "target": target_name,
        "base_value": float(found.base[target]),
        "prediction": float(found.prediction[target]),
        "attributions": entries,
        "additivity_residual": float(found.residual[target]),
        "exact": found.exact,
        "confidence": found.confidence,
        "evaluations": found.evaluations,
        "coalitions": found.coalitions,
        "complexity": complexity(found.values[:, target]),
        **_stability(found, target),
        **_details(found, target),
    }


def _entry(found: Attribution, index: int, target: int, players: Players | None, row: Columns) -> dict[str, object]:
    name = found.names[index]
    entry: dict[str, object]
    if players is None:
        entry = {"span": found.details["spans"][index], "value": name}
    else:
        members = players.members[index]
        values = {member: plain(row[member][0]) for member in members}
        alone = members == (name,)
        entry = {"feature": name, "value": values[name]} if alone else {"group": name, "value": values}
    entry["attribution"] = float(found.values[index, target])
    entry["interval"] = [plain(found.lower[index, target]), plain(found.upper[index, target])]
    if found.background_error is not None:
        entry["background_error"] = float(found.background_error[index, target])
    return entry


def _stability(found: Attribution, target: int) -> dict[str, object]:
    if found.halves is None:
        return {}
    return {"stability": rank_correlation(found.halves[0][:, target], found.halves[1][:, target])}


def _details(found: Attribution, target: int) -> dict[str, object]:
    shown = {key: value for key, value in found.details.items() if key != "spans"}
    if isinstance(shown.get("score"), list):
        shown["score"] = shown["score"][target]
    return shown

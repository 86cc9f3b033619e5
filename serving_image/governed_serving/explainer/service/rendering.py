"""Attributions as JSON-ready answers."""

from typing import Any

import numpy as np

from governed_serving.blackbox.columns import Columns, plain
from governed_serving.explainer.attribution import Attribution, GroupValues
from governed_serving.explainer.players import Players
from governed_serving.explainer.quality import complexity, rank_correlation
from governed_serving.explainer.shapley.cells import above_diagonal

__all__ = ["Explanation", "groups_of", "interactions_of", "rendered"]

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


def interactions_of(
    attribution: Attribution, target: int, entries: list[dict[str, object]], most: int
) -> dict[str, object]:
    """The strongest pairs and how many others there are; ``entries`` get what each player adds alone.

    An interaction is what both of a pair have of it, as shap gives it: together they move the output by twice as much,
    and a player's attribution is its main effect and its interactions.
    """
    interactions = attribution.interactions
    assert interactions is not None
    for index, entry in enumerate(entries):
        entry["main_effect"] = float(interactions.main[index, target])
        entry["main_interval"] = [
            plain(interactions.main_lower[index, target]),
            plain(interactions.main_upper[index, target]),
        ]
    names, (first, second) = attribution.names, above_diagonal(len(attribution.names))
    values = interactions.pairs[:, target]
    shown = np.argsort(-np.abs(values), kind="stable")[:most]
    pairs: list[dict[str, object]] = []
    for place in shown:
        pair: dict[str, object] = {
            "between": [names[first[place]], names[second[place]]],
            "interaction": float(values[place]),
            "interval": [plain(interactions.lower[place, target]), plain(interactions.upper[place, target])],
        }
        if interactions.background_error is not None:
            pair["background_error"] = float(interactions.background_error[place, target])
        pairs.append(pair)
    return {"interactions": pairs, "interactions_left_out": len(values) - len(shown)}


def groups_of(shares: GroupValues, target: int, entries: list[dict[str, object]]) -> dict[str, object]:
    """Every group with what it has together, outer ones first; ``entries`` and groups say which one they are
    ``within``."""
    for parent in (shares.root, *(group for group, _ in shares.root.groups())):
        for child in parent.children:
            if child.player is not None and parent.name:
                entries[child.player]["within"] = parent.name
    groups = []
    for place, (group, within) in enumerate(shares.root.groups()):
        shown: dict[str, object] = {"group": group.name, "members": [child.name for child in group.children]}
        if within:
            shown["within"] = within
        shown["attribution"] = float(shares.values[place, target])
        shown["interval"] = [plain(shares.lower[place, target]), plain(shares.upper[place, target])]
        groups.append(shown)
    return {"groups": groups}


def _stability(attribution: Attribution, target: int) -> dict[str, object]:
    if attribution.halves is None:
        return {}
    return {"stability": rank_correlation(attribution.halves[0][:, target], attribution.halves[1][:, target])}


def _details(attribution: Attribution, target: int) -> dict[str, object]:
    shown = {key: value for key, value in attribution.details.items() if key != "spans"}
    if isinstance(shown.get("score"), list):
        shown["score"] = shown["score"][target]
    return shown

"""Methods by name: from a task to one JSON-ready answer per row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.blackbox import BlackBox
from governed_serving.explainer.columns import Columns, Floats
from governed_serving.explainer.errors import UnknownMethod
from governed_serving.explainer.game import InterventionalGame, RowGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.quality import complexity, fidelity
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.protocol import Parameters
from governed_serving.explainer.shapley.exact import MAX_PLAYERS, exact_shapley, planned_rows
from governed_serving.explainer.shapley.sampled import Stopping, sampled_rows

__all__ = ["METHODS", "Task", "method"]

FULL_TABLE = 4096
"""Coalitions per row up to which exact values are always taken: twelve players."""


@dataclass(frozen=True)
class Task:
    """One request, ready to compute: all that a method may depend on."""

    model: ExplainedModel
    box: BlackBox
    rows: Columns
    players: Players
    parameters: Parameters
    seed: int
    max_evaluations: int
    kernel_width: float | None
    targets: list[int]
    outputs: Floats
    """The model's answers to ``rows``, shape (rows, outputs)."""

    def streams(self) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed)

    def game(self) -> InterventionalGame:
        return InterventionalGame(self.box, self.rows, self.model.background, self.players)


Answers = list[dict[str, Any]]
Method = Callable[[Task], Answers]


def shap(task: Task) -> Answers:
    """Exact where affordable, else sampled with intervals; with a budget, the anytime form of both."""
    game = task.game()
    affordable = max(task.max_evaluations, FULL_TABLE) * game.backgrounds * game.rows
    if task.box.deadline is None and _widest(game) <= MAX_PLAYERS and planned_rows(game) <= affordable:
        return _rendered(task, game, exact_shapley(game))
    return _sampled(task, game)


def exact(task: Task) -> Answers:
    """Exact Shapley values, whatever they cost (at most 14 players that differ)."""
    game = task.game()
    return _rendered(task, game, exact_shapley(game))


def sampled(task: Task) -> Answers:
    """Sampled Shapley values of ``max_evaluations`` coalitions."""
    return _sampled(task, task.game())


def _sampled(task: Task, game: InterventionalGame) -> Answers:
    parameters = task.parameters
    widest = _widest(game)
    whole = 1 << widest if task.box.deadline is not None and widest <= MAX_PLAYERS else 0
    stopping = Stopping(max(task.max_evaluations, whole), parameters.precision, parameters.confidence)
    return _rendered(task, game, sampled_rows(game, task.streams(), stopping))


def _widest(game: InterventionalGame) -> int:
    return int((game.code_x[:, None, :] != game.code_b[None, :, :]).any(axis=1).sum(axis=1).max(initial=0))


def _rendered(task: Task, game: InterventionalGame, attributions: list[Attribution]) -> Answers:
    answers = []
    for row, (found, target) in enumerate(zip(attributions, task.targets, strict=True)):
        answer = rendered(task, row, found, target)
        one = RowGame(game, row)
        if one.size and task.box.left() > 0:
            score = fidelity(one, found.values[one.active, target], target)
            answer["fidelity"] = {"deletion": score.deletion, "insertion": score.insertion, "order": score.order}
        answers.append(answer)
    return answers


def rendered(task: Task, row: int, found: Attribution, target: int) -> dict[str, Any]:
    """An attribution as it goes out, for one output."""
    entries = []
    for index, (name, members) in enumerate(zip(task.players.names, task.players.members, strict=True)):
        grouped = members != (name,)
        entry: dict[str, Any] = {"group" if grouped else "feature": name}
        values = {member: plain(task.rows[member][row]) for member in members}
        entry["value"] = values if grouped else values[name]
        entry["attribution"] = float(found.values[index, target])
        entry["interval"] = [float(found.lower[index, target]), float(found.upper[index, target])]
        if found.background_error is not None:
            entry["background_error"] = float(found.background_error[index, target])
        entries.append(entry)
    return {
        "method": found.method,
        "target": task.model.outputs[target],
        "base_value": float(found.base[target]),
        "prediction": float(found.prediction[target]),
        "attributions": entries,
        "additivity_residual": float(found.residual[target]),
        "exact": found.exact,
        "confidence": found.confidence,
        "evaluations": found.evaluations,
        "coalitions": found.coalitions,
        "complexity": complexity(found.values[:, target]),
        **found.details,
    }


def plain(value: Any) -> Any:
    """A cell as JSON holds it."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


METHODS: dict[str, Method] = {"shap": shap, "exact": exact, "sampled": sampled}


def method(name: str) -> Method:
    """The method called ``name``. Raises :class:`UnknownMethod`."""
    if name not in METHODS:
        raise UnknownMethod(f"parameters.method: expected one of {', '.join(sorted(METHODS))}, found {name!r}")
    return METHODS[name]

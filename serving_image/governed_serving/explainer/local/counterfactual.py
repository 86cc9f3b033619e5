"""Nearest counterfactuals: the fewest, smallest changes that get the wanted outcome, with what must not change left
alone.

Search by number of changed features (Wachter, Mittelstadt, Russell 2017 for the aim; Karimi et al. 2020 for the
distance): all single changes, then beams of combinations, then each numeric change is drawn back to the decision
boundary by bisection. Distance is Gower's: |change| / range for numbers, 1 for a category, summed over features.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, plain, repeat
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable

__all__ = ["Counterfactual", "Counterfactuals", "Feasible", "Goal", "find_counterfactuals"]

GRID = 24
BEAM = 24
BISECTIONS = 14
MOST = 3
CHANGES = 5


@dataclass(frozen=True)
class Counterfactual:
    """``changes``: feature → (from, to); ``output``: the model's answer for the wanted outcome after the changes."""

    changes: dict[str, tuple[object, object]]
    distance: float
    output: float


@dataclass(frozen=True)
class Counterfactuals:
    """Nearest first; every one was put to the model and got the outcome. ``reached`` says whether the row has it
    already.

    ``stopped``: "complete", or "evaluations" or "budget" where that ended the search.
    """

    found: list[Counterfactual]
    reached: bool
    evaluations: int
    stopped: str

    def as_json(self) -> dict[str, object]:
        return {
            "already": self.reached,
            "counterfactuals": [
                {
                    "changes": [{"feature": f, "from": old, "to": new} for f, (old, new) in changed.changes.items()],
                    "distance": changed.distance,
                    "prediction": changed.output,
                }
                for changed in self.found
            ],
            "evaluations": self.evaluations,
            "stopped": self.stopped,
        }


Cell = str | float
"""What a feature may be set to."""
Change = tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class _Reached:
    """A change that got the outcome, and what the model answered for it."""

    change: Change
    output: float


class _Spent(Exception):
    """The evaluations are used up."""


@dataclass(frozen=True)
class Goal:
    """``output``: the column that should win; of a single output: reach ``threshold`` (default 0.5)."""

    output: int
    threshold: float | None = None


@dataclass(frozen=True)
class Feasible:
    """What may change: nothing in ``fixed`` (protected attributes, free text), numbers within what the background and
    ``ranges`` (feature → least, greatest) span, categories to those of the background and ``categories``.
    ``direction``: number → "increase" or "decrease", the only way in which it may move; ``step``: number → it moves by
    multiples of this (by 1 where its values are whole). A number that is missing may become any."""

    fixed: Collection[str] = ()
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    direction: Mapping[str, str] = field(default_factory=dict)
    step: Mapping[str, float] = field(default_factory=dict)


class _Search:
    def __init__(self, box: BlackBox, row: Columns, goal: Goal, scale: Mapping[str, float], samples: int) -> None:
        self.box, self.row, self.goal = box, row, goal
        self.scale, self.samples, self.evaluations = scale, samples, 0

    def answers(self, changes: Sequence[Change]) -> tuple[Floats, NDArray[np.bool_]]:
        """The wanted outcome's output, and whether it wins, for each set of changes. Raises _Spent, BudgetExhausted."""
        if self.evaluations + len(changes) > self.samples:
            raise _Spent
        return self._judged(changes, self.box)

    def at_first(self) -> bool:
        """Whether the row itself has the outcome; asked whatever the time left."""
        return bool(self._judged([()], self.box.at_least)[1][0])

    def _judged(self, changes: Sequence[Change], ask: Callable[[Columns], Floats]) -> tuple[Floats, NDArray[np.bool_]]:
        columns = {name: values.copy() for name, values in repeat(self.row, len(changes)).items()}
        for index, change in enumerate(changes):
            for feature, value in change:
                columns[feature][index] = value
        self.evaluations += len(changes)
        outputs = ask(columns)
        chosen, threshold = outputs[:, self.goal.output], self.goal.threshold
        if outputs.shape[1] == 1:
            return chosen, chosen >= (0.5 if threshold is None else threshold)
        return chosen, outputs.argmax(axis=1) == self.goal.output

    def distance(self, change: Change) -> float:
        return sum(self._one(feature, value) for feature, value in change)

    def _one(self, feature: str, value: Cell) -> float:
        here = self.row[feature][0]
        if feature in self.scale and not np.isfinite(float(here)):
            return 1.0  # from missing to any number, as from one category to another
        return abs(float(value) - float(here)) / self.scale[feature] if feature in self.scale else float(value != here)


def find_counterfactuals(
    box: BlackBox,
    row: Columns,
    background: Columns,
    goal: Goal,
    feasible: Feasible,
    *,
    samples: int = 2048,
) -> Counterfactuals:
    """Up to three counterfactuals that change different sets of features, by ``samples`` evaluations at most.

    Raises :class:`NotExplainable` when nothing may change.
    """
    ranges = feasible.ranges
    options = {
        name: _options(name, values, row[name][0], feasible)
        for name, values in background.items()
        if name not in feasible.fixed
    }
    options = {name: values for name, values in options.items() if len(values)}
    if not options:
        raise NotExplainable("no feature may change: all are protected, text, or constant in the background")
    scale = {
        name: _scale(background[name], ranges.get(name, (None, None)))
        for name in options
        if background[name].dtype != object
    }
    search = _Search(box, row, goal, scale, samples)
    if search.at_first():
        return Counterfactuals([], True, search.evaluations, "complete")
    reached: dict[frozenset[str], _Reached] = {}
    stopped = "complete"
    try:
        _by_size(search, options, reached)
        for features, candidate in list(reached.items()):
            reached[features] = _nearer(search, candidate, feasible.step)
    except (BudgetExhausted, _Spent) as end:  # what was found is valid as it is, only farther than need be
        stopped = "budget" if isinstance(end, BudgetExhausted) else "evaluations"
    finished = [_told(search, candidate) for candidate in reached.values()]
    finished.sort(key=lambda candidate: (candidate.distance, len(candidate.changes)))
    return Counterfactuals(finished[:MOST], False, search.evaluations, stopped)


def _by_size(search: _Search, options: Mapping[str, list[Cell]], changes: dict[frozenset[str], _Reached]) -> None:
    """All single changes; then beams of more, until enough were found, or the sizes are used up. Raises _Spent,
    BudgetExhausted."""
    beam: list[Change] = [()]
    for _size in range(min(CHANGES, len(options))):
        room = search.samples - search.evaluations
        grown = _grown(beam, options, changes)
        if not grown:
            return
        if room < 1:
            raise _Spent
        grown = grown[:: -(-len(grown) // room)]
        output, reached = search.answers(grown)
        for index in sorted(np.flatnonzero(reached).tolist(), key=lambda i: search.distance(grown[i])):
            changes.setdefault(frozenset(f for f, _ in grown[index]), _Reached(grown[index], float(output[index])))
        if len(changes) >= MOST:
            return
        gain = output / (1 + 0.1 * np.array([search.distance(change) for change in grown]))
        beam = _spread(grown, np.where(reached, -np.inf, gain))


def _spread(grown: list[Change], gain: Floats) -> list[Change]:
    """The best few of each set of features: on a plateau the nearest changes of one feature must not crowd out the
    others."""
    sets = {frozenset(feature for feature, _ in change) for change in grown}
    quota, taken = max(2, BEAM // len(sets)), dict.fromkeys(sets, 0)
    beam: list[Change] = []
    for index in np.argsort(-gain, kind="stable"):
        names = frozenset(feature for feature, _ in grown[index])
        if taken[names] < quota and len(beam) < 2 * BEAM:
            taken[names] += 1
            beam.append(grown[index])
    return beam


def _grown(
    beam: list[Change], options: Mapping[str, list[Cell]], reached: Mapping[frozenset[str], _Reached]
) -> list[Change]:
    """Each change with one more feature; supersets of what is enough already are left out."""
    seen: dict[Change, None] = {}
    for change in beam:
        names = {feature for feature, _ in change}
        for feature, values in options.items():
            if feature in names or any(smaller <= names | {feature} for smaller in reached):
                continue
            for value in values:
                seen[tuple(sorted((*change, (feature, value)), key=lambda item: item[0]))] = None
    return list(seen)


def _nearer(search: _Search, candidate: _Reached, steps: Mapping[str, float]) -> _Reached:
    """Numeric changes drawn back towards the row, one feature after another, as far as the outcome stays."""
    best = candidate
    for feature in sorted(name for name, _ in candidate.change):
        if feature in search.scale and np.isfinite(float(search.row[feature][0])):
            best = _drawn_back(search, best, feature, steps.get(feature))
    return best


def _drawn_back(search: _Search, candidate: _Reached, feature: str, step: float | None) -> _Reached:
    """Raises _Spent and BudgetExhausted, which leave the change as it was before."""
    change = dict(candidate.change)
    near, far = float(search.row[feature][0]), float(change[feature])
    here = near
    unit = step or (1.0 if near.is_integer() and far.is_integer() else None)
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        if unit is not None:  # the same steps as in what is tried, away from the row
            steps = (middle - here) / unit
            middle = _moved(here, float(np.ceil(steps - 1e-9) if far > near else np.floor(steps + 1e-9)), unit)
        if middle in (near, far):
            break
        tried = tuple(sorted({**change, feature: middle}.items()))
        output, reached = search.answers([tried])
        if reached[0]:
            candidate, far = _Reached(tried, float(output[0])), middle
        else:
            near = middle
    return candidate


def _told(search: _Search, candidate: _Reached) -> Counterfactual:
    changes = {f: (plain(search.row[f][0]), plain(value)) for f, value in candidate.change}
    return Counterfactual(changes, search.distance(candidate.change), candidate.output)


def _options(name: str, values: NDArray[np.generic], here: Cell, feasible: Feasible) -> list[Cell]:
    """Values to try: every category, or quantiles of the background and the training range's ends; never "no value",
    which nobody can be advised to have."""
    if values.dtype == object:
        values_seen = dict.fromkeys([*feasible.categories.get(name, ()), *values.tolist()])
        return [value for value in values_seen if value != here and str(value or "").strip()]
    numbers = values.astype(float)
    numbers = numbers[np.isfinite(numbers)]
    ends = [end for end in feasible.ranges.get(name, (None, None)) if end is not None]
    distinct = np.unique(np.concatenate([numbers, ends])) if len(numbers) or ends else np.empty(0)
    if len(distinct) > GRID:
        distinct = np.unique(np.quantile(distinct, np.linspace(0, 1, GRID), method="nearest"))
    return [value for value in _allowed(name, distinct, float(here), feasible) if value != float(here)]


def _allowed(name: str, values: NDArray[np.float64], here: float, feasible: Feasible) -> list[float]:
    """Of values to try those that direction and step leave; what is off the steps goes to the next one towards the
    row."""
    if not np.isfinite(here):
        return list(values.tolist())
    way, step = feasible.direction.get(name), feasible.step.get(name)
    if way is not None:
        values = values[values > here] if way == "increase" else values[values < here]
    if step is None:
        return list(values.tolist())
    return list(
        dict.fromkeys(_moved(here, float(np.trunc((v - here) / step + 1e-9 * np.sign(v - here))), step) for v in values)
    )


def _moved(here: float, steps: float, unit: float) -> float:
    """Rounded, as 0.1 + 0.2 isn't 0.3."""
    return float(round(here + steps * unit, 9))


def _scale(values: NDArray[np.generic], given: tuple[float | None, float | None]) -> float:
    numbers = values.astype(float)
    numbers = numbers[np.isfinite(numbers)]
    low = min([*numbers, *([given[0]] if given[0] is not None else [])], default=0.0)
    high = max([*numbers, *([given[1]] if given[1] is not None else [])], default=0.0)
    return float(high - low) or 1.0

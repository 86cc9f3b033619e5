"""Anchors for tables (Ribeiro, Singh, Guestrin 2018), our own: beam search over predicates with KL bounds.

An anchor is a set of players kept in the explained row's bins; its precision is the share of background-like rows
inside it that get the same outcome: the same class or, where the output is a number, the same side of a threshold. Arms
are pulled as in KL-LUCB (Kaufmann & Kalyanakrishnan 2013), in batches for the whole beam. The bounds hold for all rules
that are tried and at all looks together, for the rule told is the best of many and was looked at until it seemed good.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, row_count
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.local.lime_tabular import bins, quartiles
from governed_serving.explainer.players import Players

__all__ = ["Anchor", "Outcome", "bernoulli_bounds", "find_anchor"]

BATCH = 64
LOOK = BATCH // 2
"""Rows between two looks at a rule at the least."""

BEAM = 4
TOLERANCE = 0.1
"""How much better than the weakest rule of the beam one outside may be, at most, when the beam is chosen."""


@dataclass(frozen=True)
class Anchor:
    """``predicates``: player → condition on each of its features; ``precision`` with its interval; ``coverage`` in the
    background.

    ``certified``: the interval's lower end reaches the threshold; ``precision`` is None where no row was drawn;
    ``stopped``: "certified", "complete" (no longer rule is possible), "evaluations" or "budget".
    """

    predicates: dict[str, dict[str, dict[str, object]]]
    precision: float | None
    interval: tuple[float, float]
    coverage: float
    certified: bool
    threshold: float
    evaluations: int
    confidence: float
    stopped: str

    def as_json(self) -> dict[str, object]:
        return {
            "anchor": [{"player": player, "conditions": conditions} for player, conditions in self.predicates.items()],
            "precision": self.precision,
            "interval": list(self.interval),
            "coverage": self.coverage,
            "certified": self.certified,
            "threshold": self.threshold,
            "confidence": self.confidence,
            "evaluations": self.evaluations,
            "stopped": self.stopped,
        }


def bernoulli_bounds(hits: float, pulls: float, level: float) -> tuple[float, float]:
    """Kullback-Leibler bounds of a Bernoulli mean: all q with ``pulls · KL(hits/pulls, q) ≤ level``."""
    if pulls == 0:
        return 0.0, 1.0
    mean = hits / pulls

    def edge(low: float, high: float, rising: bool) -> float:
        for _ in range(40):
            middle = (low + high) / 2
            inside = _divergence(mean, middle) * pulls <= level
            low, high = (middle, high) if inside == rising else (low, middle)
        return (low + high) / 2

    return edge(0.0, mean, False), edge(mean, 1.0, True)


def _divergence(p: float, q: float) -> float:
    q = min(max(q, 1e-12), 1 - 1e-12)
    first = p * math.log(p / q) if p > 0 else 0.0
    return first + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


@dataclass(frozen=True)
class Outcome:
    """What a rule must keep: the class, or with ``cut`` the side of it on which a single output lies (at least, or
    below)."""

    cut: float | None = None

    def of(self, outputs: Floats) -> NDArray[np.int64]:
        """Shape (rows,): the class's position, or 1 where the output is at least ``cut``."""
        if outputs.shape[1] > 1:
            winners: NDArray[np.int64] = outputs.argmax(axis=1)
            return winners
        if self.cut is None:
            raise NotExplainable(
                "expected an outcome that a rule can keep: a class, or a threshold of the predicted number"
            )
        reached: NDArray[np.int64] = (outputs[:, 0] >= self.cut).astype(np.int64)
        return reached


class _Spent(Exception):
    """The samples are used up."""


class _Sampler:
    """Rows inside a candidate: its players drawn jointly from background rows in the bin, the others from any row."""

    def __init__(self, box: BlackBox, row: Columns, background: Columns, players: Players, drawing: "_Drawing") -> None:
        self.box, self.row, self.background, self.players, self.drawing = box, row, background, players, drawing
        count = row_count(background)
        same = np.ones((count, len(players)), bool)
        for g, members in enumerate(players.members):
            for feature in members:
                same[:, g] &= (
                    bins(background[feature], background[feature]) == bins(row[feature], background[feature])[0]
                )
        self.same = same
        self.inside = [np.flatnonzero(same[:, g]) for g in range(len(players))]
        self.label = int(drawing.outcome.of(box.at_least(row))[0])
        self.pulls: dict[frozenset[int], int] = {}
        self.hits: dict[frozenset[int], int] = {}
        self.tried: dict[frozenset[int], int] = {}
        self.evaluations = 1

    def pull(self, candidates: list[frozenset[int]], count: int) -> None:
        """``count`` more rows for each candidate, or as many as may still be asked for, in one call to the model.

        Raises _Spent where there is none left for each, BudgetExhausted.
        """
        count = min(count, (self.drawing.samples - self.evaluations) // len(candidates))
        if count < 1:
            raise _Spent
        columns: dict[str, list[NDArray[np.generic]]] = {f: [] for members in self.players.members for f in members}
        for candidate in candidates:
            for g, members in enumerate(self.players.members):
                pool = self.inside[g] if g in candidate else np.arange(len(self.same))
                drawn = self.drawing.rng.choice(pool, count) if len(pool) else None
                for feature in members:
                    values = np.repeat(self.row[feature], count) if drawn is None else self.background[feature][drawn]
                    columns[feature].append(values)
        outputs = self.box({feature: np.concatenate(parts) for feature, parts in columns.items()})
        agrees = self.drawing.outcome.of(outputs) == self.label
        self.evaluations += len(agrees)
        for candidate, part in zip(candidates, agrees.reshape(len(candidates), count), strict=True):
            self.tried.setdefault(candidate, len(self.tried) + 1)
            self.pulls[candidate] = self.pulls.get(candidate, 0) + count
            self.hits[candidate] = self.hits.get(candidate, 0) + int(part.sum())

    def mean(self, candidate: frozenset[int]) -> float:
        return self.hits[candidate] / self.pulls[candidate]

    def bounds(self, candidate: frozenset[int]) -> tuple[float, float]:
        """At the confidence asked for, whichever rules are tried and whenever they are looked at: the error is spent as
        1/(k (k + 1)) on the k-th rule tried, and so again on its looks, half of it at either end."""
        if candidate not in self.pulls:
            return 0.0, 1.0
        rule, look = self.tried[candidate], -(-self.pulls[candidate] // LOOK)
        error = (1 - self.drawing.confidence) / (rule * (rule + 1) * look * (look + 1) * 2)
        return bernoulli_bounds(self.hits[candidate], self.pulls[candidate], math.log(1 / error))

    def likely(self, candidate: frozenset[int]) -> tuple[float, float]:
        """As :meth:`bounds`, for one rule at one look: enough to choose what to look at next, and never told."""
        level = math.log(len(self.players) / (1 - self.drawing.confidence))
        return bernoulli_bounds(self.hits[candidate], self.pulls[candidate], level)

    def coverage(self, candidate: frozenset[int]) -> float:
        return float(self.same[:, sorted(candidate)].all(axis=1).mean()) if candidate else 1.0


@dataclass(frozen=True)
class _Drawing:
    """What is asked of a sampler: at most ``samples`` rows in all, the explained one included."""

    rng: np.random.Generator
    samples: int
    confidence: float
    outcome: Outcome


def find_anchor(
    box: BlackBox,
    row: Columns,
    background: Columns,
    players: Players,
    *,
    samples: int,
    seed: np.random.SeedSequence,
    threshold: float = 0.95,
    confidence: float = 0.95,
    outcome: Outcome = Outcome(),
) -> Anchor:
    """The shortest certified rule with the largest coverage; the most precise one found if none is certified within
    ``samples``."""
    drawing = _Drawing(np.random.default_rng(seed), samples, confidence, outcome)
    sampler = _Sampler(box, row, background, players, drawing)
    try:
        best, stopped = _searched(sampler, len(players), threshold)
    except (BudgetExhausted, _Spent) as end:
        best = max(sampler.pulls, key=lambda c: (sampler.bounds(c)[0], sampler.mean(c)), default=frozenset[int]())
        stopped = "budget" if isinstance(end, BudgetExhausted) else "evaluations"
    lower, upper = sampler.bounds(best)
    rule = {players.names[g]: {f: _condition(row[f], background[f]) for f in players.members[g]} for g in sorted(best)}
    return Anchor(
        predicates=rule,
        precision=sampler.mean(best) if best in sampler.pulls else None,
        interval=(lower, upper),
        coverage=sampler.coverage(best),
        certified=lower >= threshold,
        threshold=threshold,
        evaluations=sampler.evaluations,
        confidence=confidence,
        stopped=stopped,
    )


def _searched(sampler: _Sampler, players: int, threshold: float) -> tuple[frozenset[int], str]:
    """The rule, and why the search ended. Raises _Spent, BudgetExhausted."""
    beam, best = [frozenset[int]()], frozenset[int]()
    sampler.pull(beam, BATCH)
    while True:
        for candidate in beam:
            _settle(sampler, candidate, threshold)
        good = [c for c in beam if sampler.bounds(c)[0] >= threshold]
        if good:
            return max(good, key=lambda c: (sampler.coverage(c), sampler.mean(c))), "certified"
        best = max([*beam, best], key=sampler.mean)
        if len(beam[0]) == players:
            return best, "complete"
        beam = _extend(sampler, beam, players)


def _settle(sampler: _Sampler, candidate: frozenset[int], threshold: float) -> None:
    """Pulls until the candidate is above or below the threshold for sure, or clearly not worth more."""
    while True:
        lower, upper = sampler.bounds(candidate)
        if (
            lower >= threshold
            or upper < threshold
            or (sampler.mean(candidate) < threshold - 0.02 and sampler.pulls[candidate] >= 4 * BATCH)
        ):
            return
        sampler.pull([candidate], BATCH)


def _extend(sampler: _Sampler, beam: list[frozenset[int]], players: int) -> list[frozenset[int]]:
    """One more player for each rule of the beam; the best few by KL-LUCB."""
    arms = sorted({c | {g} for c in beam for g in range(players) if g not in c}, key=sorted)
    fresh = [arm for arm in arms if arm not in sampler.pulls]
    if fresh:
        sampler.pull(fresh, LOOK)
    while len(arms) > BEAM:
        ranked = sorted(arms, key=lambda arm: (-sampler.mean(arm), sorted(arm)))
        weakest = min(ranked[:BEAM], key=lambda arm: sampler.likely(arm)[0])
        rival = max(ranked[BEAM:], key=lambda arm: sampler.likely(arm)[1])
        if sampler.likely(rival)[1] - sampler.likely(weakest)[0] <= TOLERANCE:
            break
        sampler.pull([weakest, rival], BATCH)
    return sorted(arms, key=lambda arm: (-sampler.mean(arm), sorted(arm)))[:BEAM]


def _condition(value: NDArray[np.generic], background: NDArray[np.generic]) -> dict[str, object]:
    """The bin as a person reads it: a category, or a range of quartiles (open ends are null)."""
    if background.dtype == object:
        return {"equals": value[0]}
    edges = quartiles(background)
    index = int(bins(value, background)[0])
    if index > len(edges):
        return {"equals": None}
    return {
        "above": float(edges[index - 1]) if index > 0 else None,
        "up_to": float(edges[index]) if index < len(edges) else None,
    }

"""Anchors for tables (Ribeiro, Singh, Guestrin 2018), our own: beam search over predicates with KL bounds.

An anchor is a set of players kept in the explained row's bins; its precision is the share of background-like rows inside it
that get the same prediction. Arms are pulled as in KL-LUCB (Kaufmann & Kalyanakrishnan 2013), in batches for the whole beam.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, row_count
from governed_serving.blackbox.errors import BudgetExhausted
from governed_serving.explainer.local.lime_tabular import bins
from governed_serving.explainer.players import Players

__all__ = ["Anchor", "bernoulli_bounds", "find_anchor"]

BATCH = 64
BEAM = 4


@dataclass(frozen=True)
class Anchor:
    """``predicates``: player → condition on each of its features; ``precision`` with its interval; ``coverage`` in the background.

    ``certified``: the interval's lower end reaches the threshold.
    """

    predicates: dict[str, dict[str, Any]]
    precision: float
    interval: tuple[float, float]
    coverage: float
    certified: bool
    threshold: float
    evaluations: int
    confidence: float

    def as_json(self) -> dict[str, Any]:
        return {
            "anchor": [{"player": player, "conditions": conditions} for player, conditions in self.predicates.items()],
            "precision": self.precision,
            "interval": list(self.interval),
            "coverage": self.coverage,
            "certified": self.certified,
            "threshold": self.threshold,
            "confidence": self.confidence,
            "evaluations": self.evaluations,
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


class _Sampler:
    """Rows inside a candidate: its players drawn jointly from background rows in the bin, the others from any row."""

    def __init__(
        self, box: BlackBox, row: Columns, background: Columns, players: Players, rng: np.random.Generator
    ) -> None:
        self.box, self.row, self.background, self.players, self.rng = box, row, background, players, rng
        count = row_count(background)
        same = np.ones((count, len(players)), bool)
        for g, members in enumerate(players.members):
            for feature in members:
                same[:, g] &= (
                    bins(background[feature], background[feature]) == bins(row[feature], background[feature])[0]
                )
        self.same = same
        self.inside = [np.flatnonzero(same[:, g]) for g in range(len(players))]
        self.label = int(box(row)[0].argmax())
        self.pulls: dict[frozenset[int], int] = {}
        self.hits: dict[frozenset[int], int] = {}
        self.evaluations = 1

    def pull(self, candidates: list[frozenset[int]], count: int) -> None:
        """``count`` more rows for each candidate, in one call to the model."""
        columns: dict[str, list[NDArray[Any]]] = {f: [] for members in self.players.members for f in members}
        for candidate in candidates:
            for g, members in enumerate(self.players.members):
                pool = self.inside[g] if g in candidate else np.arange(len(self.same))
                drawn = self.rng.choice(pool, count) if len(pool) else None
                for feature in members:
                    values = np.repeat(self.row[feature], count) if drawn is None else self.background[feature][drawn]
                    columns[feature].append(values)
        found = (
            self.box({feature: np.concatenate(parts) for feature, parts in columns.items()}).argmax(axis=1)
            == self.label
        )
        self.evaluations += len(found)
        for candidate, part in zip(candidates, found.reshape(len(candidates), count), strict=True):
            self.pulls[candidate] = self.pulls.get(candidate, 0) + count
            self.hits[candidate] = self.hits.get(candidate, 0) + int(part.sum())

    def mean(self, candidate: frozenset[int]) -> float:
        return self.hits[candidate] / self.pulls[candidate]

    def bounds(self, candidate: frozenset[int], level: float) -> tuple[float, float]:
        return bernoulli_bounds(self.hits[candidate], self.pulls[candidate], level)

    def coverage(self, candidate: frozenset[int]) -> float:
        return float(self.same[:, sorted(candidate)].all(axis=1).mean()) if candidate else 1.0


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
) -> Anchor:
    """The shortest certified rule with the largest coverage; the most precise one found if none is certified within ``samples``."""
    sampler = _Sampler(box, row, background, players, np.random.default_rng(seed))
    level = math.log(1 / (1 - confidence)) + math.log(max(len(players), 2))
    beam, best = [frozenset[int]()], frozenset[int]()
    sampler.pull(beam, BATCH)
    try:
        for _size in range(len(players) + 1):
            for candidate in beam:
                _settle(sampler, candidate, threshold, level, samples)
            good = [c for c in beam if sampler.bounds(c, level)[0] >= threshold]
            best = max(
                good or [*beam, best],
                key=lambda c: (sampler.coverage(c), sampler.mean(c)) if good else (sampler.mean(c), 0.0),
            )
            if good or sampler.evaluations >= samples or len(beam[0]) == len(players):
                break
            beam = _extend(sampler, beam, len(players), level, samples)
    except BudgetExhausted:
        best = max(sampler.pulls, key=sampler.mean)
    lower, upper = sampler.bounds(best, level)
    rule = {players.names[g]: {f: _condition(row[f], background[f]) for f in players.members[g]} for g in sorted(best)}
    return Anchor(
        rule,
        sampler.mean(best),
        (lower, upper),
        sampler.coverage(best),
        lower >= threshold,
        threshold,
        sampler.evaluations,
        confidence,
    )


def _settle(sampler: _Sampler, candidate: frozenset[int], threshold: float, level: float, samples: int) -> None:
    """Pulls until the candidate is above or below the threshold for sure, or the samples are used up."""
    while sampler.evaluations < samples:
        lower, upper = sampler.bounds(candidate, level)
        if (
            lower >= threshold
            or upper < threshold
            or (sampler.mean(candidate) < threshold - 0.02 and sampler.pulls[candidate] >= 4 * BATCH)
        ):
            return
        sampler.pull([candidate], BATCH)


def _extend(
    sampler: _Sampler, beam: list[frozenset[int]], players: int, level: float, samples: int
) -> list[frozenset[int]]:
    """One more player for each rule of the beam; the best few by KL-LUCB."""
    arms = sorted({c | {g} for c in beam for g in range(players) if g not in c}, key=sorted)
    fresh = [arm for arm in arms if arm not in sampler.pulls]
    if fresh:
        sampler.pull(fresh, BATCH // 2)
    while sampler.evaluations < samples and len(arms) > BEAM:
        ranked = sorted(arms, key=lambda arm: (-sampler.mean(arm), sorted(arm)))
        weakest = min(ranked[:BEAM], key=lambda arm: sampler.bounds(arm, level)[0])
        rival = max(ranked[BEAM:], key=lambda arm: sampler.bounds(arm, level)[1])
        if sampler.bounds(rival, level)[1] - sampler.bounds(weakest, level)[0] <= 0.1:
            break
        sampler.pull([weakest, rival], BATCH)
    return sorted(arms, key=lambda arm: (-sampler.mean(arm), sorted(arm)))[:BEAM]


def _condition(value: NDArray[Any], background: NDArray[Any]) -> Any:
    """The bin as a person reads it: a category, or a range of quartiles (open ends are null)."""
    if background.dtype == object:
        return {"equals": value[0]}
    numbers = background.astype(float)
    edges = np.unique(np.percentile(numbers[np.isfinite(numbers)], [25, 50, 75]))
    index = int(bins(value, background)[0])
    if index > len(edges):
        return {"equals": None}
    return {
        "above": float(edges[index - 1]) if index > 0 else None,
        "up_to": float(edges[index]) if index < len(edges) else None,
    }

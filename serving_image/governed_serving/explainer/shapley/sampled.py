"""Sampled Shapley values: paired leverage samples in growing rounds, with an interval per player and a stopping
rule."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Booleans, Codes, Game, InterventionalGame, RowGame
from governed_serving.explainer.intervals import level_of_look, student_quantile
from governed_serving.explainer.shapley.coalitions import PairedSample, PairedSampler
from governed_serving.explainer.shapley.gaussian import fit_gaussian
from governed_serving.explainer.shapley.regression import Fit, fit_pairs

__all__ = ["SampledGame", "Stopping", "nothing_sampled", "sampled_rows", "sampled_shapley", "solved_rows"]

Estimator = Callable[[PairedSample, Floats, Floats], Fit]


@dataclass(frozen=True)
class Stopping:
    """When to stop: ``coalitions`` evaluated at most (≥ 4), or intervals narrow enough.

    ``precision``: stop once the widest half-interval is at most this share of the range of the values (Covert & Lee's
    rule); None asks for all coalitions. ``confidence`` is the interval's level: with ``precision`` that of all looks
    together, so that it holds although the width decides when to stop.
    """

    coalitions: int = 2048
    precision: float | None = None
    confidence: float = 0.95


@dataclass(frozen=True)
class SampledGame:
    """Estimate over the game's own players: shapes (players, outputs)."""

    values: Floats
    half_width: Floats
    coalitions: int
    stopped: str
    exact: bool


G = TypeVar("G", bound=SampledGame, covariant=True)
Ends = tuple[Floats, Floats]
"""v(∅) and v(N), shape (outputs,) each."""


class Solver(Protocol[G]):
    """Finds the values of a row's game of at least two players."""

    def __call__(self, row: RowGame, ends: Ends, stream: np.random.SeedSequence) -> G: ...


def sampled_shapley(
    game: Game, total: Floats, seed: np.random.SeedSequence, stopping: Stopping, estimator: Estimator = fit_gaussian
) -> SampledGame:
    """Shapley values of a game of at least two players; ``total`` = v(N) − v(∅), shape (outputs,).

    A function of the game, the seed and the number of coalitions alone: when a budget cut it short, asking for as many
    coalitions as it used gives the same bits. Where not even the first round was possible, every player has an equal
    share of ``total``, and intervals without end.
    """
    sampler = PairedSampler(game.size, max(stopping.coalitions // 2, 2), seed)
    rounds = _rounds(game.size, sampler.most, stopping.precision is not None or game.box.deadline is not None)
    store = _Answers(game, sampler)
    best = nothing_sampled(game.size, total)
    for look, pairs in enumerate(rounds, 1):
        try:
            sample, differences = store.up_to(pairs)
        except BudgetExhausted:
            return replace(best, stopped="budget")
        confidence = stopping.confidence if stopping.precision is None else level_of_look(stopping.confidence, look)
        best = _estimate(sample, differences, total, confidence, estimator)
        if best.exact or _precise(best, stopping):
            return best
    return best


def nothing_sampled(players: int, total: Floats) -> SampledGame:
    """All that is known from ``v(N) − v(∅)`` alone: an equal share each, and intervals without end."""
    share = np.repeat(total[None, :] / players, players, axis=0)
    return SampledGame(share, np.full_like(share, np.inf), 0, "budget", False)


def _rounds(players: int, most: int, many: bool) -> list[int]:
    """Sample sizes in pairs: doubling from the least that a fit needs, so that the last round is never a small part."""
    least = min(max(2 * players, 16), most)
    if not many:
        return [most]
    sizes = [most]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


def _estimate(
    sample: PairedSample, differences: Floats, total: Floats, confidence: float, estimator: Estimator
) -> SampledGame:
    coalitions = 2 * len(sample.masks)
    if sample.complete:
        fit = fit_pairs(sample, differences, total)
        return SampledGame(fit.values, np.zeros_like(fit.values), coalitions, "complete", True)
    fit = estimator(sample, differences, total)
    half_width = student_quantile(confidence, fit.freedom) * fit.error
    return SampledGame(fit.values, half_width, coalitions, "evaluations", False)


def _precise(estimate: SampledGame, stopping: Stopping) -> bool:
    if stopping.precision is None:
        return False
    spread = np.ptp(estimate.values, axis=0)
    return bool((estimate.half_width.max(axis=0) <= stopping.precision * np.maximum(spread, 1e-12)).all())


class _Answers:
    """Pair differences known so far, by stratum, so that a larger sample asks only for what is new."""

    def __init__(self, game: Game, sampler: PairedSampler) -> None:
        self._game, self._sampler = game, sampler
        self._known: list[Floats] = [np.empty((0, 0))] * len(sampler.sizes)

    def up_to(self, pairs: int) -> tuple[PairedSample, Floats]:
        sample = self._sampler.sample(pairs)
        starts = np.concatenate([[0], np.cumsum(sample.drawn)])
        position = np.arange(len(sample.masks)) - starts[sample.stratum]
        lengths = np.array([len(answers) for answers in self._known])
        new = np.flatnonzero(position >= lengths[sample.stratum])
        if len(new):
            self._learn(sample.masks[new], sample.stratum[new])
        parts = [answers[:drawn] for answers, drawn in zip(self._known, sample.drawn, strict=True) if drawn]
        return sample, np.concatenate(parts)

    def _learn(self, masks: Booleans, stratum: Codes) -> None:
        answers = self._game.values(np.concatenate([masks, ~masks]))
        difference = answers[: len(masks)] - answers[len(masks) :]
        for index, coalition in enumerate(self._known):
            mine = difference[stratum == index]
            if len(mine):
                self._known[index] = np.concatenate([coalition, mine]) if len(coalition) else mine


def sampled_rows(
    game: InterventionalGame, seed: np.random.SeedSequence, stopping: Stopping, estimator: Estimator = fit_gaussian
) -> list[Attribution]:
    """One :class:`Attribution` per row of ``game``; players that agree with all of the background get exactly zero."""

    def solve(row: RowGame, ends: Ends, stream: np.random.SeedSequence) -> SampledGame:
        return sampled_shapley(row, ends[1] - ends[0], stream, stopping, estimator)

    return [one for one, _ in solved_rows("sampled", game, solve, seed, stopping.confidence)]


def solved_rows(
    method: str,
    game: InterventionalGame,
    solve: Solver[G],
    seed: np.random.SeedSequence,
    confidence: float,
) -> Iterator[tuple[Attribution, G | None]]:
    """One :class:`Attribution` per row, by ``solve`` of the game among its players that differ from the background;
    the others get exactly zero. With what ``solve`` found: None where fewer than two differ, and all is known."""
    for row, stream in enumerate(seed.spawn(game.rows)):
        yield _row(method, RowGame(game, row), functools.partial(solve, stream=stream), confidence)


def _row(
    method: str, row: RowGame, solve: Callable[[RowGame, Ends], G], confidence: float
) -> tuple[Attribution, G | None]:
    base, prediction = row.game.base, row.game.row_outputs[row.row]
    before = row.box.rows
    values = np.zeros((len(row.game.players), len(base)))
    half = np.zeros_like(values)
    solution: G | None = None
    if row.size == 1:
        values[row.active[0]] = prediction - base
    elif row.size > 1:
        solution = solve(row, (base, prediction))
        values[row.active], half[row.active] = solution.values, solution.half_width
    return Attribution(
        method=method,
        names=row.game.players.names,
        values=values,
        lower=values - half,
        upper=values + half,
        base=base,
        prediction=prediction,
        evaluations=row.box.rows - before,
        coalitions=solution.coalitions if solution else 0,
        confidence=confidence,
        exact=solution.exact if solution else True,
        details={"stopped": solution.stopped if solution else "complete"},
    ), solution

"""Owen values: Shapley values when players come in groups of groups (Owen 1977; Winter 1989 for more than one level).

Orders in which the players of each group stand together are equally likely. So a group's value is its Shapley value in
the game whose players are the groups beside it, and its members' values sum to it. Exact where the coalitions that such
orders pass through are few, else sampled by such orders, each walked both ways.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.attribution import Attribution, GroupValues
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.hierarchy import Node
from governed_serving.explainer.shapley.permutation import estimate, gains_both_ways
from governed_serving.explainer.shapley.sampled import nothing_sampled

__all__ = ["MOST_ENUMERATED", "OwenValues", "coalitions_of", "owen_rows", "owen_values"]

MOST_ENUMERATED = 1 << 14
"""Coalitions up to which exact values may be asked for."""


CHUNK = 64
"""Orders drawn at once."""
ORDERS = 8
"""Orders that are walked before all coalitions are asked for, against a clock."""


@dataclass(frozen=True)
class OwenValues:
    """Values (players, outputs) and those of ``root.groups()`` (groups, outputs), each with its half-width."""

    values: Floats
    half_width: Floats
    groups: Floats
    groups_half: Floats
    coalitions: int
    stopped: str
    exact: bool


def coalitions_of(root: Node) -> int:
    """Most coalitions that orders consistent with the hierarchy pass through."""

    def below(node: Node, contexts: int) -> int:
        own = contexts << len(node.children)
        return own + sum(
            below(child, contexts << (len(node.children) - 1)) for child in node.children if child.player is None
        )

    return below(root, 1)


@dataclass(frozen=True)
class _Plan:
    """``masks`` (coalitions, players) and ``matrix`` (coalitions, players + groups): values are ``matrix.T @ v``."""

    masks: NDArray[np.bool_]
    matrix: Floats


@functools.lru_cache(maxsize=16)
def _plan(root: Node) -> _Plan:
    """Coalitions as sums of bits, with what each weighs for each player and each group."""
    players = len(root.players())
    cells: dict[Node, int] = {group: players + place for place, (group, _) in enumerate(root.groups())}
    weights: dict[int, dict[int, float]] = {}

    def add(coalition: int, cell: int, weight: float) -> None:
        row = weights.setdefault(coalition, {})
        row[cell] = row.get(cell, 0.0) + weight

    def visit(node: Node, contexts: Mapping[int, float]) -> None:
        bits = [sum(1 << player for player in child.players()) for child in node.children]
        for place, child in enumerate(node.children):
            cell = cells[child] if child.player is None else child.player
            inner: dict[int, float] = {}
            for before, weight in _before(bits, place):
                for outside, known in contexts.items():
                    coalition = outside | before
                    inner[coalition] = inner.get(coalition, 0.0) + known * weight
            for coalition, weight in inner.items():
                add(coalition | bits[place], cell, weight)
                add(coalition, cell, -weight)
            if child.player is None:
                visit(child, inner)

    visit(root, {0: 1.0})
    order = sorted(weights)
    matrix = np.zeros((len(order), players + len(cells)))
    for row, coalition in enumerate(order):
        for cell, weight in weights[coalition].items():
            matrix[row, cell] = weight
    masks = np.array([[coalition >> player & 1 for player in range(players)] for coalition in order], bool)
    return _Plan(masks.reshape(len(order), players), matrix)


def _before(bits: list[int], place: int) -> Iterator[tuple[int, float]]:
    """Which siblings may have come before the one at ``place``, with the Shapley weight of that."""
    others = [bit for index, bit in enumerate(bits) if index != place]
    for chosen in range(1 << len(others)):
        size = chosen.bit_count()
        joined = sum(bit for index, bit in enumerate(others) if chosen >> index & 1)
        yield joined, 1 / (len(bits) * math.comb(len(others), size))


def owen_values(
    game: Game,
    ends: tuple[Floats, Floats],
    root: Node,
    coalitions: int,
    seed: np.random.SeedSequence,
    confidence: float = 0.95,
) -> OwenValues:
    """Of a game of at least two players, those of ``root``, from at most ``coalitions`` coalitions: exact where that
    is enough. ``ends`` = (v(∅), v(N)).

    Raises :class:`NotExplainable` where ``coalitions`` allows for no order.
    """
    enumerable = coalitions_of(root) <= min(coalitions, MOST_ENUMERATED)
    if enumerable and game.box.deadline is None:
        return _enumerated(game, root)
    walks = coalitions // (game.size - 1)
    if walks < 2:
        raise NotExplainable(
            f"parameters.max_evaluations: expected at least {2 * (game.size - 1)} for orders of {game.size} players, "
            f"found {coalitions}; allow more or group features"
        )
    # against a clock, exactness comes after what is there in any case
    gains, stopped = _walked(game, ends, root, min(walks // 2, ORDERS) if enumerable else walks // 2, seed)
    if enumerable and stopped != "budget":
        try:
            return _enumerated(game, root)
        except BudgetExhausted:
            stopped = "budget"
    return _estimated(gains, stopped, confidence, root, ends[1] - ends[0])


def _walked(
    game: Game, ends: tuple[Floats, Floats], root: Node, orders: int, seed: np.random.SeedSequence
) -> tuple[list[Floats], str]:
    rng, gains = np.random.default_rng(seed), list[Floats]()
    while len(gains) < orders:
        some = np.array([_order(root, rng) for _ in range(min(orders - len(gains), CHUNK))])
        more, stopped = gains_both_ways(game, some, ends)
        gains += more
        if stopped == "budget":
            return gains, stopped
    return gains, "evaluations"


def _estimated(gains: list[Floats], stopped: str, confidence: float, root: Node, total: Floats) -> OwenValues:
    players = len(root.players())
    member = _membership(root, players)
    if not gains:
        found = nothing_sampled(players, total)
        wide = np.full((len(member), len(total)), np.inf)
        return OwenValues(found.values, found.half_width, member @ found.values, wide, 0, "budget", False)
    own = estimate(gains, stopped, confidence)
    if not len(member):
        none = np.zeros((0, len(total)))
        return OwenValues(own.values, own.half_width, none, none, own.coalitions, stopped, False)
    whole = estimate([np.einsum("gp,wpo->wgo", member, one) for one in gains], stopped, confidence)
    return OwenValues(own.values, own.half_width, whole.values, whole.half_width, own.coalitions, stopped, False)


def _enumerated(game: Game, root: Node) -> OwenValues:
    plan = _plan(root)
    both = plan.matrix.T @ game.values(plan.masks)
    values, groups = both[: game.size], both[game.size :]
    return OwenValues(values, np.zeros_like(values), groups, np.zeros_like(groups), len(plan.masks), "complete", True)


def _order(node: Node, rng: np.random.Generator) -> list[int]:
    if node.player is not None:
        return [node.player]
    return [player for place in rng.permutation(len(node.children)) for player in _order(node.children[place], rng)]


def _membership(root: Node, players: int) -> Floats:
    """Which players each group of ``root.groups()`` has: (groups, players)."""
    groups = root.groups()
    member = np.zeros((len(groups), players))
    for place, (group, _) in enumerate(groups):
        member[place, list(group.players())] = 1
    return member


def owen_rows(
    game: InterventionalGame,
    root: Node,
    coalitions: int,
    seed: np.random.SeedSequence,
    confidence: float = 0.95,
) -> list[Attribution]:
    """One :class:`Attribution` per row, with the values of its groups; additive to rounding."""
    ends = [(game.base, prediction) for prediction in game.row_outputs]
    rows = [RowGame(game, row) for row in range(game.rows)]
    return [
        _row(row, ends[row.row], root, _Sampling(coalitions, stream, confidence))
        for row, stream in zip(rows, seed.spawn(game.rows), strict=True)
    ]


@dataclass(frozen=True)
class _Sampling:
    coalitions: int
    seed: np.random.SeedSequence
    confidence: float


def _row(row: RowGame, ends: tuple[Floats, Floats], root: Node, sampling: _Sampling) -> Attribution:
    before, players = row.box.rows, len(row.game.players)
    base, prediction = ends
    groups = root.groups()
    values, half = np.zeros((2, players, len(base)))
    shares, shares_half = np.zeros((2, len(groups), len(base)))
    used, stopped, exact = 0, "complete", True
    if row.size == 1:
        values[row.active[0]] = prediction - base
        shares = _membership(root, players) @ values
    elif row.size:
        part = root.among({int(player): place for place, player in enumerate(row.active)})
        found = owen_values(row, ends, part, sampling.coalitions, sampling.seed, sampling.confidence)
        values[row.active], half[row.active] = found.values, found.half_width
        at = {group.name: place for place, (group, _) in enumerate(groups)}
        for place, (group, _) in enumerate(part.groups()):
            shares[at[group.name]], shares_half[at[group.name]] = found.groups[place], found.groups_half[place]
        used, stopped, exact = found.coalitions, found.stopped, found.exact
    return Attribution(
        method="owen",
        names=row.game.players.names,
        values=values,
        lower=values - half,
        upper=values + half,
        base=base,
        prediction=prediction,
        evaluations=row.box.rows - before,
        coalitions=used,
        confidence=sampling.confidence,
        exact=exact,
        details={"stopped": stopped},
        groups=GroupValues(root, shares, shares - shares_half, shares + shares_half),
    )

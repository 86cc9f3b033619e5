"""Owen values: Shapley values when players come in groups of groups (Owen 1977; Winter 1989 for more than one level).

Orders in which the players of each group stand together are equally likely. So a group's value is its Shapley value in
the game whose players are the groups beside it, and its members' values sum to it. Exact where the coalitions that such
orders pass through are few, else sampled by such orders, each walked both ways.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.attribution import Attribution, GroupValues
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.hierarchy import Node
from governed_serving.explainer.shapley.permutation import estimate, gains_both_ways
from governed_serving.explainer.shapley.sampled import SampledGame, nothing_sampled, solved_rows

__all__ = ["MOST_ENUMERATED", "OwenValues", "coalitions_of", "owen_rows", "owen_values"]

MOST_ENUMERATED = 1 << 14
"""Coalitions up to which exact values may be asked for."""


CHUNK = 64
"""Orders drawn at once."""
ORDERS = 8
"""Orders that are walked before all coalitions are asked for, against a clock."""


@dataclass(frozen=True)
class OwenValues(SampledGame):
    """With the values of ``root.groups()`` (groups, outputs) and their half-widths."""

    groups: Floats
    groups_half: Floats


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
                for outside, planned in contexts.items():
                    coalition = outside | before
                    inner[coalition] = inner.get(coalition, 0.0) + planned * weight
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
            f"parameters.maxEvaluations: expected at least {2 * (game.size - 1)} for orders of {game.size} players, "
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
        estimated = nothing_sampled(players, total)
        wide = np.full((len(member), len(total)), np.inf)
        return OwenValues(estimated.values, estimated.half_width, 0, "budget", False, member @ estimated.values, wide)
    own = estimate(gains, stopped, confidence)
    if not len(member):
        none = np.zeros((0, len(total)))
        return OwenValues(own.values, own.half_width, own.coalitions, stopped, False, none, none)
    whole = estimate([np.einsum("gp,wpo->wgo", member, gain) for gain in gains], stopped, confidence)
    return OwenValues(own.values, own.half_width, own.coalitions, stopped, False, whole.values, whole.half_width)


def _enumerated(game: Game, root: Node) -> OwenValues:
    plan = _plan(root)
    both = plan.matrix.T @ game.values(plan.masks)
    values, groups = both[: game.size], both[game.size :]
    none, nothing = np.zeros_like(values), np.zeros_like(groups)
    return OwenValues(values, none, len(plan.masks), "complete", True, groups, nothing)


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
    member = _membership(root, len(game.players))

    def solve(row: RowGame, ends: tuple[Floats, Floats], stream: np.random.SeedSequence) -> OwenValues:
        part = root.among({int(player): place for place, player in enumerate(row.active)})
        solution = owen_values(row, ends, part, coalitions, stream, confidence)
        names = [group.name for group, _ in root.groups()]
        at = [names.index(group.name) for group, _ in part.groups()]
        groups, half = np.zeros((2, len(names), len(ends[0])))
        groups[at], half[at] = solution.groups, solution.groups_half
        return replace(solution, groups=groups, groups_half=half)

    rows = solved_rows("owen", game, solve, seed, confidence)
    return [
        replace(attribution, groups=_groups(root, member @ attribution.values, solution))
        for attribution, solution in rows
    ]


def _groups(root: Node, shares: Floats, owen: OwenValues | None) -> GroupValues:
    """``shares``: what the members' values sum to, which is all there is where fewer than two players differ."""
    if owen is None:
        return GroupValues(root, shares, shares, shares)
    return GroupValues(root, owen.groups, owen.groups - owen.groups_half, owen.groups + owen.groups_half)

"""How good an explanation is: fidelity by deletion and insertion, stability, complexity.

Deletion and insertion (Petsiuk, Das, Saenko 2018; Samek et al. 2017), on tables: players leave for the background, or
enter from it, in the order of their attributions; the area is compared with the area over the reverse order, so that 1
is perfect order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.game import Game

__all__ = ["Fidelity", "complexity", "fidelity", "rank_correlation"]


@dataclass(frozen=True)
class Fidelity:
    """``deletion``: mean of v while the most supportive players leave first (low is faithful); ``insertion``: while
    they enter first (high is faithful); ``order``: 0 where the ranking separates no better than its reverse, towards 1
    the further it separates, None where nothing moves the output."""

    deletion: float
    insertion: float
    order: float | None


def fidelity(game: Game, values: Floats, output: int) -> Fidelity:
    """``values``: attributions of the game's players for ``output``, shape (players,). Asks for 2 × (players − 1)
    coalitions or fewer."""
    players = len(values)
    down = np.argsort(-values, kind="stable")
    rank = np.empty(players, np.int64)
    rank[down] = np.arange(players)
    steps = np.arange(players + 1)[:, None]
    inserted = rank[None, :] < steps
    masks = np.concatenate([inserted, ~inserted])
    distinct, inverse = np.unique(masks, axis=0, return_inverse=True)
    v = game.values(distinct)[inverse.reshape(-1), output]
    entering, leaving = _area(v[: players + 1]), _area(v[players + 1 :])
    span = float(np.ptp(v))
    return Fidelity(leaving, entering, (entering - leaving) / span if span > 1e-12 else None)


def _area(curve: Floats) -> float:
    """Trapezoid mean of a curve over equally spaced steps."""
    return float((curve[1:] + curve[:-1]).mean() / 2) if len(curve) > 1 else float(curve[0])


def complexity(values: Floats) -> float:
    """Entropy of the shares of |attribution|, as an effective number of players (Bhatt, Weller, Moura 2020), ≥ 1; 0 if
    all are zero."""
    total = float(np.abs(values).sum())
    if total == 0:
        return 0.0
    share = np.abs(values) / total
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's ρ with mid-ranks; None where either side is constant."""
    if len(a) < 2:
        return None
    x, y = _midranks(a), _midranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / scale) if scale > 0 else None


def _midranks(values: NDArray[np.float64]) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mid: Floats = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return mid

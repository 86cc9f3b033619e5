"""Exact e-processes by betting ("Auditing Fairness by Betting", Chugg et al., NeurIPS 2023), for the order in which
rows came.

The i-th row of a group is paired with the i-th of the reference; their outcomes differ by −1, 0 or 1. Against the null
"group − reference ≤ ε" a bet λ ∈ [0, 1/(1 + ε)) multiplies the wealth by 1 + λ(difference − ε), a martingale at most.
Wealth averaged over a grid of λ depends only on how often each difference occurred: three integers per side, which add
up over replicas. Only the pairing itself depends on the order, hence not the verdict but an exact second opinion.
"""

from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from governed_serving.fairness.inference.intervals import Interval

__all__ = ["LAMBDAS", "PairBetting", "betting_interval", "log_wealth"]

LAMBDAS = np.geomspace(0.02, 0.95, 16)
"""Shares of the largest bet allowed; their mean is the mixture. Drawn once, before any data."""


def log_wealth(pairs: NDArray[np.integer | np.floating], epsilon: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Log e-value against |group − reference| ≤ ``epsilon``.

    ``pairs``: (…, 3) counts of the differences −1, 0, +1; ``epsilon`` broadcasts over the leading axes. Half the stake
    on each side; valid at every time (Ville's inequality).
    """
    n = np.asarray(pairs, np.float64)
    upward = _one_sided(n[..., 0], n[..., 1], n[..., 2], epsilon)
    downward = _one_sided(n[..., 2], n[..., 1], n[..., 0], epsilon)
    return np.logaddexp(upward, downward) - log(2)


def _one_sided(down: ArrayLike, level: ArrayLike, up: ArrayLike, epsilon: ArrayLike) -> NDArray[np.float64]:
    """Log wealth of bets that the mean difference exceeds ``epsilon`` (which may be negative)."""
    e = np.asarray(epsilon, np.float64)[..., None]
    bets = LAMBDAS / (1 + np.abs(e))
    logs = (
        np.asarray(up)[..., None] * np.log1p(bets * (1 - e))
        + np.asarray(level)[..., None] * np.log1p(-bets * e)
        + np.asarray(down)[..., None] * np.log1p(-bets * (1 + e))
    )
    top = logs.max(-1)
    wealth: NDArray[np.float64] = top + np.log(np.exp(logs - top[..., None]).mean(-1))
    return wealth


def betting_interval(pairs: NDArray[np.integer | np.floating], level: float = 0.95, grid: int = 2001) -> Interval:
    """Confidence sequence of the difference: the values against which the two-sided wealth stays below 1/(1 −
    level)."""
    n = np.asarray(pairs, np.float64)
    candidates = np.linspace(-0.999, 0.999, grid)
    upward = _one_sided(n[0], n[1], n[2], candidates)
    downward = _one_sided(n[2], n[1], n[0], -candidates)
    kept = candidates[np.logaddexp(upward, downward) - log(2) < -log(1 - level)]
    return Interval(float(kept[0]), float(kept[-1])) if len(kept) else Interval(np.nan, np.nan)


class PairBetting:
    """Pairs rows of one group with rows of the reference as they come. ``capacity``: unpaired rows kept; beyond, the
    oldest go (counted)."""

    def __init__(self, capacity: int = 65_536):
        self.pairs = np.zeros(3, np.int64)
        self.dropped = 0
        self.capacity = capacity
        self._waiting: tuple[NDArray[np.int8], NDArray[np.int8]] = (np.zeros(0, np.int8), np.zeros(0, np.int8))

    def add(self, group: NDArray[np.integer | np.floating], reference: NDArray[np.integer | np.floating]) -> None:
        """Outcomes (0/1) of new rows of both sides, in order."""
        one = np.concatenate([self._waiting[0], group.astype(np.int8)])
        two = np.concatenate([self._waiting[1], reference.astype(np.int8)])
        m = min(len(one), len(two))
        self.pairs += np.bincount(one[:m] - two[:m] + 1, minlength=3)
        left, right = one[m:], two[m:]
        self.dropped += max(len(left), len(right), self.capacity) - self.capacity
        self._waiting = (left[-self.capacity :], right[-self.capacity :])

    def log_evidence(self, epsilon: float = 0.0) -> float:
        """Log e-value against |difference| ≤ ``epsilon``."""
        return float(log_wealth(self.pairs, epsilon))

    def merge(self, other: "PairBetting") -> "PairBetting":
        """Add another stream's pairs; rows that wait for a partner are paired among both."""
        self.pairs += other.pairs
        self.dropped += other.dropped
        self.add(*other._waiting)
        return self

    def dump(self) -> dict[str, object]:
        """Plain data."""
        waiting = [side.tobytes() for side in self._waiting]
        return {"pairs": self.pairs.tolist(), "dropped": self.dropped, "waiting": waiting}

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> "PairBetting":
        """Inverse of :meth:`dump`."""
        out = cls()
        out.pairs = np.array(dumped["pairs"], np.int64)
        out.dropped = dumped["dropped"]
        left, right = (np.frombuffer(side, np.int8) for side in dumped["waiting"])
        out._waiting = (left, right)
        return out

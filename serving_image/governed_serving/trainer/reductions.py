"""Fair classification as a sequence of weighted classifications (Agarwal, Beygelzimer, Dudík, Langford & Wallach, ICML
2018), with one deterministic network at the end.

A decision h, favourable (1) or not, has for each group g and event e (all rows; or those of one label) the moment

    γ_ge(h) = P(h = 1 | g, e) − P(h = 1 | e).

With multipliers μ the Lagrangian err(h) + Σ μ_ge γ_ge(h) is Σ cᵢ hᵢ plus a constant: deciding 1 costs

    cᵢ = (1 − 2yᵢ)/n + Σ μ_ge (1[i in g, e]/n_ge − 1[i in e]/n_e),

so that a weighted classifier is its best response: weight |cᵢ|, label 1 where cᵢ < 0. The multipliers follow the
moments of what was decided (a subgradient of the dual). The paper mixes all responses at random; here the first one
ships whose moments are small enough on training and validation rows, else the one with the least on validation rows:
one network, whose answers don't depend on chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.metrics.metrics import is_group
from governed_serving.trainer.tables import Column

__all__ = ["LEAST_ROWS", "Constraint", "Moments", "Multipliers", "Weighted", "chosen"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Constraint = Literal["demographicParity", "equalizedOdds"]
Multipliers = Mapping[tuple[str, str, str], float]
"""Attribute, group, event → μ."""
STEP = 1.0
"""How far the multipliers follow the moments, times the share of the rows that a moment is about: a small group's
multiplier moves its costs by as much more."""
LEAST_ROWS = 30
"""Of a group within an event, for a moment."""


@dataclass(frozen=True)
class Weighted:
    """A weighted classification: ``favorable`` and ``weight``, shape (rows,), mean weight 1."""

    favorable: Flags
    weight: NDArray[np.float32]


class Moments:
    """Of rows whose label was ``favorable``, for the groups of protected attributes. ``names``: (attribute, group,
    event) of each moment; ``left_out``: ATTRIBUTE=GROUP of those without one for some event, rising."""

    def __init__(self, constraint: Constraint, favorable: Flags, groups: Mapping[str, Column]) -> None:
        self._favorable = favorable
        whole = np.ones(len(favorable), bool)
        events = {"": whole} if constraint == "demographicParity" else {"favorable": favorable, "other": ~favorable}
        self.names: list[tuple[str, str, str]] = []
        masks, sizes, without = [], [], set[str]()
        for attribute, column in groups.items():
            texts = column.astype(str)
            for group in np.unique(texts).tolist():
                for event, rows in events.items():
                    member = (texts == group) & rows
                    if not is_group(group) or member.sum() < LEAST_ROWS:
                        without.add(f"{attribute}={group}")
                    else:
                        self.names.append((attribute, group, event))
                        masks.append(member / member.sum() - rows / rows.sum())
                        sizes.append(float(member.mean()))
        self.left_out = sorted(without)
        self._sizes: Floats = np.array(sizes, np.float64)
        self._shares: Floats = np.array(masks, np.float64).reshape(len(masks), len(favorable))

    @property
    def constrained(self) -> bool:
        """Whether any two groups are held to each other: of one alone nothing is asked."""
        alike = Counter((attribute, event) for attribute, _, event in self.names)
        return any(groups > 1 for groups in alike.values())

    def of(self, decided: Flags) -> Floats:
        """γ of decisions, shape (moments,)."""
        return np.asarray(self._shares @ decided.astype(np.float64))

    def largest(self, decided: Flags) -> float:
        """|γ| of the group that is farthest from all; 0 without moments."""
        return float(np.abs(self.of(decided)).max(initial=0.0))

    def weighted(self, multipliers: Multipliers) -> Weighted:
        """The classification that these multipliers ask for."""
        weights = np.array([multipliers.get(name, 0.0) for name in self.names])
        cost = np.where(self._favorable, -1.0, 1.0) / len(self._favorable) + weights @ self._shares
        size = np.abs(cost)
        return Weighted(cost < 0, (size * len(size) / size.sum()).astype(np.float32))

    def followed(self, multipliers: Multipliers, decided: Flags) -> Multipliers:
        """The multipliers, a step farther."""
        moved = zip(self.names, self._sizes.tolist(), self.of(decided).tolist(), strict=True)
        return {name: multipliers.get(name, 0.0) + STEP * size * gamma for name, size, gamma in moved}


def chosen(violations: Sequence[tuple[float, float]], most: float) -> int:
    """Which response ships, by (training, validation) violations: the first within ``most`` on both, else the least on
    validation rows."""
    for place, pair in enumerate(violations):
        if max(pair) <= most:
            return place
    return int(np.argmin([validation for _, validation in violations]))

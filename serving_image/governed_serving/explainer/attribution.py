"""What an attribution method hands back, with its own error."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.explainer.hierarchy import Node

__all__ = ["Attribution", "GroupValues", "Interactions"]


@dataclass(frozen=True)
class Interactions:
    """SHAP interaction values of one row (Lundberg et al. 2020; half of Grabisch and Roubens' 1999 index on either
    side of the diagonal).

    Of the symmetric matrix whose rows sum to the Shapley values: ``pairs`` (pairs, outputs) above the diagonal, in the
    order of ``numpy.triu_indices(players, 1)``, and ``main`` (players, outputs) on it: what a player adds alone. Their
    intervals and ``background_error`` as :class:`Attribution` has them.
    """

    pairs: Floats
    lower: Floats
    upper: Floats
    main: Floats
    main_lower: Floats
    main_upper: Floats
    background_error: Floats | None = None

    def unknown(self) -> "Interactions":
        """The same values, of which nothing can be said."""
        wide, wide_main = np.full_like(self.pairs, np.inf), np.full_like(self.main, np.inf)
        return Interactions(self.pairs, -wide, wide, self.main, -wide_main, wide_main)


@dataclass(frozen=True)
class GroupValues:
    """What groups of players have together: shape (groups, outputs), in the order of ``root.groups()``."""

    root: Node
    values: Floats
    lower: Floats
    upper: Floats

    def unknown(self) -> "GroupValues":
        """The same values, of which nothing can be said."""
        wide = np.full_like(self.values, np.inf)
        return GroupValues(self.root, self.values, -wide, wide)


@dataclass(frozen=True)
class Attribution:
    """Attributions of one row to ``names``.

    ``values``, ``lower``, ``upper``: shape (players, outputs); ``base`` and ``prediction``: shape (outputs,).
    The interval is at ``confidence`` for the method's own sampling; it has no width where the method is exact, and
    infinite ends where nothing can be said. ``background_error``: standard error that comes from the background being a
    finite sample, shape (players, outputs), or None. ``halves``: the values against each half of the background alone,
    whose agreement says how stable they are, or None. ``evaluations``: model rows asked for (shared evaluations are
    counted once, for the request), ``coalitions``: coalitions used. ``interactions``, and
    ``groups`` of a hierarchy: where they were asked for.
    """

    method: str
    names: tuple[str, ...]
    values: Floats
    lower: Floats
    upper: Floats
    base: Floats
    prediction: Floats
    evaluations: int
    coalitions: int
    confidence: float = 0.95
    exact: bool = False
    background_error: Floats | None = None
    halves: tuple[Floats, Floats] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    interactions: Interactions | None = None
    groups: GroupValues | None = None

    @property
    def residual(self) -> Floats:
        """``prediction − base − Σ values``: zero where additivity holds, shape (outputs,)."""
        residual: Floats = self.prediction - self.base - np.sum(self.values, axis=0)
        return residual

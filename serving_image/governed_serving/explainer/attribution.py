"""What an attribution method hands back, with its own error."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from governed_serving.blackbox.columns import Floats

__all__ = ["Attribution"]


@dataclass(frozen=True)
class Attribution:
    """Attributions of one row to ``names``.

    ``values``, ``lower``, ``upper``: shape (players, outputs); ``base`` and ``prediction``: shape (outputs,).
    The interval is at ``confidence`` for the method's own sampling; it has no width where the method is exact, and
    infinite ends where nothing can be said. ``background_error``: standard error that comes from the background being a
    finite sample, shape (players, outputs), or None. ``halves``: the values against each half of the background alone,
    whose agreement says how stable they are, or None. ``evaluations``: model rows asked for (shared evaluations are
    counted once, for the request), ``coalitions``: coalitions used.
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

    @property
    def residual(self) -> Floats:
        """``prediction − base − Σ values``: zero where additivity holds, shape (outputs,)."""
        residual: Floats = self.prediction - self.base - np.sum(self.values, axis=0)
        return residual

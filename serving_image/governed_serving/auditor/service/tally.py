"""What one replica has counted, as the others need it; and the sum over all of them, which a verdict is a function of.

Counts are integers, so that their sum is the same in whatever order and whoever adds them up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.coverage import CoverageCounts
from governed_serving.fairness.counts.windows import Window
from governed_serving.fairness.metrics.corrections import Corrected
from governed_serving.fairness.metrics.roster import Roster, agreed
from governed_serving.fairness.monitoring.alarms import Alarm

__all__ = ["SharedMonitoringState", "Tally", "Whole", "add_up"]


class SharedMonitoringState(msgspec.Struct, frozen=True):
    """The mergeable part of what is watched beside the verdict."""

    drift: dict[str, list[int]] = {}
    """Column → histogram of the last whole window."""
    attributions: list[Any] = []
    """:meth:`AttributionSums.table`."""
    flips: dict[str, list[int]] = {}
    """What was swapped → rows, flipped."""
    inputs: dict[str, list[float]] = {}
    """:meth:`InputDrift.sums` of the last look."""
    flips_since: dict[str, float] = {}
    """What was swapped → since when, seconds since the epoch; of an earlier version: not said."""


class Tally(msgspec.Struct, frozen=True):
    """The mergeable part of a fold. ``window``: :meth:`Window.dump`."""

    window: dict[str, Any]
    requests: int
    rows: int
    unusable: int
    joined: int
    absent: list[str]
    alarm: Alarm
    beside: SharedMonitoringState = SharedMonitoringState()
    roster: Roster = Roster()
    coverage: dict[str, dict[str, list[int]]] = {}
    """:meth:`CoverageCounts.dump`."""
    corrected: int = 0
    """Rows whose label was replaced."""
    first_coverage: dict[str, dict[str, list[int]]] = {}
    """Likewise as if none had been; empty where none was."""


@dataclass(frozen=True)
class Whole:
    """All replicas together."""

    cells: Cells
    rows: int
    joined: int
    unusable: int
    absent: frozenset[str]
    roster: Roster
    coverage: dict[str, dict[str, list[int]]]
    corrected: Corrected | None
    """None: no label was."""
    first_coverage: dict[str, dict[str, list[int]]] | None
    """As if none had been; None: likewise."""


def add_up(own: Tally, others: Sequence[Tally]) -> Whole:
    """The sum. A label may be known to one replica before the count of its prediction has come from another: never
    below zero."""
    every = [own, *others]
    window = Window.load(own.window)
    for other in others:
        window.merge(Window.load(other.window))
    cells = window.total()
    first = window.total(first=True) if window.amended else cells
    if others:
        for table in [*cells.counts.values(), *first.counts.values()]:
            table.clip(0, out=table)
    joined, corrected = sum(t.joined for t in every), sum(t.corrected for t in every)
    return Whole(
        cells,
        sum(t.rows for t in every),
        joined,
        sum(t.unusable for t in every),
        frozenset(name for t in every for name in t.absent),
        agreed([t.roster for t in every]),
        CoverageCounts.sum_of(t.coverage for t in every),
        Corrected(first, corrected, joined) if corrected else None,
        CoverageCounts.sum_of(t.first_coverage if t.corrected else t.coverage for t in every) if corrected else None,
    )

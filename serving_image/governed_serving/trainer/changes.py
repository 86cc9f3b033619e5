"""What compression changes, on the same held-out rows: who gains and who loses the favourable outcome, by group."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import Cells, coded
from governed_serving.fairness.inference.intervals import Interval, mover, paired
from governed_serving.fairness.metrics.metrics import LEAST_REFERENCE, LEAST_SHARE, is_group, reference_groups
from governed_serving.trainer.audit import favorable
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.evaluation import Predictions

__all__ = ["AttributeChange", "GroupChange", "attribute_changes", "correctness_change"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Flow:
    """Of ``rows`` rows, how many have an outcome before, and how many gained and lost it."""

    rows: int
    before: int
    gained: int
    lost: int

    @classmethod
    def of(cls, before: Flags, after: Flags) -> "Flow":
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        return cls(len(before), int(before.sum()), gained, lost)

    @property
    def change(self) -> float:
        """Of the rate, after − before."""
        return (self.gained - self.lost) / self.rows

    def interval(self, level: float) -> Interval:
        """Of the change."""
        return paired(self.gained, self.lost, self.rows, level)


@dataclass(frozen=True)
class GroupChange:
    """Statistical parity difference of a group against the reference, before compression and its ``change`` by it."""

    group: str
    before: float
    change: float
    interval: Interval

    @property
    def after(self) -> float:
        return self.before + self.change

    @property
    def harm(self) -> float:
        """How much farther from 0 the difference is; all of it where it changed sides. Negative: nearer."""
        return _farther(self.before, self.change)

    @property
    def limit(self) -> float:
        """The most harm that the interval of the change allows, with the difference before taken as it is."""
        return max(_farther(self.before, end) for end in self.interval)


def _farther(before: float, change: float) -> float:
    after = before + change
    return abs(after) - (abs(before) if after * before >= 0 else 0.0)


@dataclass(frozen=True)
class AttributeChange:
    """``judged``: groups with support; ``unsupported``: groups with fewer rows, and rows that are no group."""

    judged: list[GroupChange]
    unsupported: list[str]

    @property
    def worst(self) -> GroupChange | None:
        """The group with the most harm; None: no group is judged."""
        return max(self.judged, key=lambda change: change.harm, default=None)

    @property
    def limit(self) -> float:
        """The most harm to any judged group that the intervals allow."""
        return max((change.limit for change in self.judged), default=0.0)


def attribute_changes(bias: Bias, rows: Dataset, before: Predictions, after: Predictions) -> dict[str, AttributeChange]:
    """Protected attribute → changes of its groups against the reference, which is the one before compression."""
    was, now = (favorable(bias, p.decided, rows.classes) for p in (before, after))
    return {
        a.name: _attribute(rows.groups[a.name].astype(str), was, now, a.privileged, bias.confidence_level)
        for a in bias.protected_attributes
    }


def _attribute(
    groups: NDArray[np.str_], was: Flags, now: Flags, privileged: list[str], level: float
) -> AttributeChange:
    cells = Cells(("group",))
    cells.add({"group": coded(groups.astype(object))}, was, None)
    table = cells.by("group")
    base = reference_groups(table, privileged)
    least = max(LEAST_REFERENCE, LEAST_SHARE * len(groups))
    reference = np.isin(groups, base)
    changes = AttributeChange([], [])
    if reference.sum() < least:
        return AttributeChange([], list(table.groups))
    pooled = Flow.of(was[reference], now[reference])
    for name in table.groups:
        if name in base:
            continue
        member = groups == name
        if member.sum() < least or not is_group(name):
            changes.unsupported.append(name)
            continue
        own = Flow.of(was[member], now[member])
        spd = own.before / own.rows - pooled.before / pooled.rows
        interval = mover(own.change, own.interval(level), pooled.change, pooled.interval(level))
        changes.judged.append(GroupChange(name, spd, own.change - pooled.change, interval))
    return changes


def correctness_change(before: Predictions, after: Predictions, rows: Dataset) -> Interval:
    """95 % interval of the accuracy that compression costs, on the same rows."""
    flow = Flow.of(before.decided == rows.label, after.decided == rows.label)
    gain = flow.interval(0.95)
    return Interval(-gain.upper, -gain.lower)

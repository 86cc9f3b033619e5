"""Which groups are compared, with whom, and at which part of the level: decided once, so that what is promised holds
for ever.

A group is enrolled when it has support, at most ``MOST_GROUPS`` per attribute; smaller ones are shown, tighten nobody's
level and hold nobody's verdict up. Each comparison's part of the level depends on the places of its two groups in that
order, never on how many there are by now: whatever groups appear later, the parts sum to at most 1. Without a named one
the reference is chosen once, among groups with support. Replicas that enrolled the same groups apart agree: the
earliest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi

import msgspec

from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import OTHER, Cells, GroupTable, Key
from governed_serving.fairness.counts.columns import joint_name
from governed_serving.fairness.counts.grouping import MISSING
from governed_serving.fairness.metrics.metrics import LEAST_SHARE, is_group, reference_groups

__all__ = [
    "MOST_GROUPS",
    "SMALLEST_GROUP",
    "Panel",
    "Roster",
    "agreed",
    "enrolled",
    "has_support",
    "panel_of",
    "place_share",
    "pooled",
    "subjects_of",
]

SMALLEST_GROUP = 10
"""Groups with fewer rows are neither compared nor shown (small-cell suppression)."""
LARGE_GROUP = 500
"""Rows with which a group has support however small its share is."""
MOST_GROUPS = 50
"""Groups of one attribute that are compared; values beyond are counted together."""
MOST_SMALL = 20
"""Groups without support that are counted by name, the largest; the others are counted together."""


def has_support(rows: int, total: int) -> bool:
    """Whether a group is judged: ``SMALLEST_GROUP`` rows and ``LEAST_SHARE`` of all, or ``LARGE_GROUP`` rows."""
    return rows >= SMALLEST_GROUP and (rows >= LEAST_SHARE * total or rows >= LARGE_GROUP)


class Roster(msgspec.Struct, frozen=True):
    """Kept with the counts. ``groups``: subject → group → seconds since the epoch at which it was enrolled;
    ``references``: subject → (group, the same)."""

    groups: dict[str, dict[str, float]] = {}
    references: dict[str, tuple[str, float]] = {}

    def order(self, subject: str) -> tuple[str, ...]:
        """Groups as they were enrolled."""
        since = self.groups.get(subject, {})
        return tuple(sorted(since, key=lambda group: (since[group], group)))


def subjects_of(bias: Bias) -> list[tuple[tuple[str, ...], list[str]]]:
    """(axes, privileged groups) of everything whose groups are compared."""
    subjects: list[tuple[tuple[str, ...], list[str]]] = [((a.name,), a.privileged) for a in bias.protected_attributes]
    if bias.intersections and len(subjects) > 1:
        subjects.append((tuple(a.name for a in bias.protected_attributes), []))
    return subjects


def enrolled(roster: Roster, bias: Bias, cells: Cells, now: float = 0.0) -> Roster:
    """The roster with the groups that have support by now, and the references that there are enough rows to choose."""
    groups, references = dict(roster.groups), dict(roster.references)
    enough = cells.rows >= bias.least_samples
    for axes, privileged in subjects_of(bias):
        subject, table = joint_name(axes), cells.by(*axes)
        shares = groups[subject] = _with_support(groups.get(subject, {}), table, now)
        if enough and not privileged and subject not in references and len(shares) > 1:
            among = _of(table, shares)
            references[subject] = (reference_groups(among)[0], now)
    for stratum in bias.strata:  # for subgroups alone: within strata nobody is a reference
        if stratum not in {a.name for a in bias.protected_attributes}:
            groups[stratum] = _with_support(groups.get(stratum, {}), cells.by(stratum), now)
    return Roster(groups, references)


def _with_support(shares: Mapping[str, float], table: GroupTable, now: float) -> dict[str, float]:
    """``shares`` and the groups that have support by now, the largest first, as far as there is room."""
    total = int(table.rows.sum())
    rows = sorted(zip((-table.rows).tolist(), table.groups, strict=True))
    new = [g for n, g in rows if g not in shares and is_group(g) and has_support(-n, total)]
    return dict(shares) | dict.fromkeys(new[: MOST_GROUPS - len(shares)], now)


def agreed(rosters: Sequence[Roster]) -> Roster:
    """What all replicas hold: each group since the earliest enrolment, each reference as it was first chosen."""
    groups: dict[str, dict[str, float]] = {}
    references: dict[str, tuple[str, float]] = {}
    for roster in rosters:
        for subject, since in roster.groups.items():
            mine = groups.setdefault(subject, {})
            for group, when in since.items():
                mine[group] = min(when, mine.get(group, when))
        for subject, (group, when) in roster.references.items():
            references[subject] = min(references.get(subject, (group, when)), (group, when), key=lambda r: (r[1], r[0]))
    return Roster(groups, references)


def pooled(cells: Cells, bias: Bias, roster: Roster) -> tuple[Cells, dict[str, int]]:
    """The counts with rare values of protected attributes together under "(other)"; attribute → how many values that
    are.

    Own lines keep what is enrolled or named, rows without a value, and the ``MOST_SMALL`` largest of the others.
    """
    kept: dict[int, set[str]] = {}
    gone: dict[str, int] = {}
    for attribute in bias.protected_attributes:
        table = cells.by(attribute.name)
        own = {*roster.groups.get(attribute.name, {}), *attribute.privileged, MISSING, OTHER}
        rest = sorted((-n, g) for n, g in zip(table.rows.tolist(), table.groups, strict=True) if g not in own)
        if len(rest) > MOST_SMALL:
            kept[cells.axes.index(attribute.name)] = own | {g for _, g in rest[:MOST_SMALL]}
            gone[attribute.name] = len(rest) - MOST_SMALL
    if not kept:
        return cells, {}
    out = Cells(cells.axes, len(cells.counts) + 1)
    out.scores, out.overflow = cells.scores, cells.overflow
    for key, counts in cells.counts.items():
        out.put(_pooled_key(key, kept), counts)
    return out, gone


def _pooled_key(key: Key, kept: Mapping[int, set[str]]) -> Key:
    return tuple(v if i not in kept or v in kept[i] else OTHER for i, v in enumerate(key))


def _of(table: GroupTable, names: Mapping[str, float] | Sequence[str] | set[str]) -> GroupTable:
    places = [i for i, group in enumerate(table.groups) if group in names]
    return GroupTable([table.groups[i] for i in places], table.counts[places])


@dataclass(frozen=True)
class Panel:
    """The groups of one subject as they are compared. ``table``: all lines, judged or only shown; ``base``: the
    reference."""

    subject: str
    axes: tuple[str, ...]
    table: GroupTable
    base: tuple[str, ...]
    order: tuple[str, ...]
    named: bool
    total: int

    @property
    def judged(self) -> GroupTable:
        """Groups that are enrolled and have support now."""
        rows = dict(zip(self.table.groups, self.table.rows.tolist(), strict=True))
        return _of(self.table, [g for g in self.order if g in rows and has_support(rows[g], self.total)])

    @property
    def small(self) -> tuple[str, ...]:
        """Groups that aren't judged."""
        judged = set(self.judged.groups)
        return tuple(group for group in self.table.groups if group not in judged and group not in self.base)

    def share(self, group: str, other: str | None = None) -> float:
        """Part of the level for ``group`` alone, against a named reference, or for the pair of it and ``other``; all
        sum to ≤ 1."""
        if other is None:
            return place_share(_place(self.order, group))
        if self.named and other in self.base:
            return place_share(_place([g for g in self.order if g not in self.base], group))
        later = max(_place(self.order, group), _place(self.order, other)) - 1
        return place_share(max(later, 1)) / max(later, 1)


def _place(order: Sequence[str], group: str) -> int:
    """From 1; of a group that isn't enrolled: the next."""
    return order.index(group) + 1 if group in order else len(order) + 1


def place_share(place: int) -> float:
    """Sums to 1 over all places: 6/(π² place²)."""
    return 6 / (pi * place) ** 2


def panel_of(cells: Cells, axes: Sequence[str], privileged: Sequence[str], roster: Roster | None = None) -> Panel:
    """``roster`` None: as if these counts were seen for the first time."""
    table, subject = cells.by(*axes), joint_name(axes)
    total = int(table.rows.sum())
    if roster is None:
        listed = zip(table.groups, table.rows.tolist(), strict=True)
        supported = [g for g, n in listed if is_group(g) and has_support(n, total)]
        roster = Roster({subject: dict.fromkeys(supported, 0.0)})
    chosen = roster.references.get(subject)
    base = tuple(privileged) or ((chosen[0],) if chosen and chosen[0] in table.groups else ())
    base = reference_groups(table, base)
    return Panel(subject, tuple(axes), table, base, roster.order(subject), bool(privileged), total)

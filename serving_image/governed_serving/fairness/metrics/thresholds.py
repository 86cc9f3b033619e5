"""Randomised thresholds by group (Hardt, Price & Srebro, NeurIPS 2016), as fairlearn's ThresholdOptimizer fits them.

Each threshold of a group's score is a point: how often it favours (or favours those who deserve it), and how good its
decisions are. A draw between two thresholds reaches every point between theirs, so that of a group the upper convex
hull can be had. All groups are put at the same abscissa of a grid, where the objective over all rows is greatest:

demographicParity   selection rate against the objective
equalOpportunity    true positive rate against the objective
equalizedOdds       false positive rate against true positive rate, of all groups the lowest curve; a group above it
                    ignores its score with some chance, and is favoured as often as the common false positive rate
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["EVERYBODY", "GRID", "NOBODY", "Constraint", "Objective", "RandomisedThreshold", "fit"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Group = TypeVar("Group")
Constraint = Literal["demographicParity", "equalOpportunity", "equalizedOdds"]
Objective = Literal["accuracy", "balancedAccuracy"]

GRID = 1000
"""Steps of the common rate, as fairlearn's default."""
NOBODY, EVERYBODY = 2.0, -1.0
"""Thresholds that no probability is above, and that each is."""


@dataclass(frozen=True)
class RandomisedThreshold:
    """Favoured with chance ignored · chance + (1 − ignored) · (upper_share · [score > upper] + lower_share · [score >
    lower])."""

    upper: float
    upper_share: float
    lower: float
    lower_share: float
    ignored: float = 0.0
    chance: float = 0.0

    @property
    def base(self) -> float:
        """Chance of a score above neither."""
        return self.ignored * self.chance

    @property
    def weights(self) -> tuple[float, float]:
        """What a score above ``upper``, and one above ``lower``, adds to it."""
        return (1 - self.ignored) * self.upper_share, (1 - self.ignored) * self.lower_share

    def chances(self, score: Floats) -> Floats:
        """Of being favoured, shape (rows,)."""
        upper, lower = self.weights
        return np.asarray(np.clip(self.base + upper * (score > self.upper) + lower * (score > self.lower), 0.0, 1.0))


class _Curve(NamedTuple):
    """The hull of a group's points, from left to right."""

    x: Floats
    y: Floats
    threshold: Floats

    def at(self, grid: Floats) -> "_Between":
        """Each point of ``grid`` as a mixture of the two of the hull beside it."""
        left = np.searchsorted(self.x, grid, side="right") - 1
        left[1:] -= grid[1:] == self.x[left[1:]]
        ahead, width = self.x[left + 1] - grid, self.x[left + 1] - self.x[left]
        share = ahead / width
        y = share * self.y[left] + (1 - share) * self.y[left + 1]
        return _Between(y, share, self.threshold[left], self.threshold[left + 1])


class _Between(NamedTuple):
    """Along the grid: the ordinate, and the share of the upper threshold (at less of the abscissa) of two."""

    y: Floats
    share: Floats
    upper: Floats
    lower: Floats


def fit(
    score: Floats,
    deserved: Flags,
    groups: Mapping[Group, Flags],
    constraint: Constraint,
    objective: Objective = "accuracy",
    *,
    apart: float = 0.0,
) -> dict[Group, RandomisedThreshold]:
    """Thresholds of each group (name → its rows, shape (rows,)), which together are all rows that count.

    ``score``: of the favourable outcome, 0 to 1; ``deserved``: the label is favourable. No threshold is between scores
    that differ by ``apart`` or less: rounding may have put them apart. Each group needs a row of each label, but for
    demographicParity with accuracy.
    """
    grid = np.linspace(0, 1, GRID + 1)
    curves = {
        name: _curve(score[rows], deserved[rows], constraint, objective, apart).at(grid)
        for name, rows in groups.items()
    }
    if constraint == "equalizedOdds":
        counted = np.any(list(groups.values()), axis=0)
        return _odds(curves, grid, float(deserved[counted].mean()), objective)
    sizes = {name: int(rows.sum()) for name, rows in groups.items()}
    whole = np.zeros(len(grid))
    for name, curve in curves.items():
        whole = whole + sizes[name] / sum(sizes.values()) * curve.y
    best = int(whole.argmax())
    return {name: _threshold(curve, best) for name, curve in curves.items()}


def _threshold(curve: _Between, place: int, ignored: float = 0.0, chance: float = 0.0) -> RandomisedThreshold:
    share = float(curve.share[place])
    upper, lower = float(curve.upper[place]), float(curve.lower[place])
    return RandomisedThreshold(upper, share, lower, 1 - share, min(max(ignored, 0.0), 1.0), chance)


def _odds(
    curves: Mapping[Group, _Between], grid: Floats, positive: float, objective: Objective
) -> dict[Group, RandomisedThreshold]:
    """At the best point of the lowest curve; ``positive``: share of rows with a favourable label."""
    lowest: Floats = np.min([curve.y for curve in curves.values()], axis=0)
    weight = positive if objective == "accuracy" else 0.5
    best = int(np.around(weight * lowest + (1 - weight) * (1 - grid), 15).argmax())
    by_name = {}
    for name, curve in curves.items():
        above = float(curve.y[best] - grid[best])  # the diagonal, which ignoring the score leads to
        ignored = float(curve.y[best] - lowest[best]) / above if above else 0.0
        by_name[name] = _threshold(curve, best, ignored, float(grid[best]))
    return by_name


def _curve(score: Floats, deserved: Flags, constraint: Constraint, objective: Objective, apart: float) -> _Curve:
    favoured, right, threshold = _cuts(score, deserved, apart)
    rows, positive = len(score), int(deserved.sum())
    negative, wrong = rows - positive, favoured - right
    with np.errstate(divide="ignore", invalid="ignore"):
        hits, alarms = right / positive, wrong / negative
    if constraint == "equalizedOdds":
        return _hull(alarms, hits, threshold)
    good = (right + negative - wrong) / rows if objective == "accuracy" else 0.5 * hits + 0.5 * (1 - alarms)
    return _hull(favoured / rows if constraint == "demographicParity" else hits, good, threshold)


def _cuts(score: Floats, deserved: Flags, apart: float) -> tuple[Floats, Floats, Floats]:
    """Thresholds from above, and how many rows are above each: all, and those that deserve it."""
    order = np.argsort(-score, kind="stable")
    ordered, hits = score[order], np.cumsum(deserved[order])
    last, top = [], ordered[0]
    for place in range(len(ordered) - 1):  # the last row of each cluster, which spans no more than 2 · apart
        below = ordered[place + 1]
        if ordered[place] - below > apart or (top - below > 2 * apart and ordered[place] != below):
            last.append(place)
            top = below
    ends = np.array([*last, len(ordered) - 1], np.int64)
    between = (ordered[ends[:-1]] + ordered[ends[:-1] + 1]) / 2
    return (
        np.append(0, ends + 1).astype(np.float64),
        np.append(0, hits[ends]).astype(np.float64),
        np.concatenate([[NOBODY], between, [EVERYBODY]]),
    )


def _hull(x: Floats, y: Floats, threshold: Floats) -> _Curve:
    """The upper hull, by Andrew's monotone chain."""
    kept: list[int] = []
    for place in np.lexsort((y, x)).tolist():
        while len(kept) >= 2:
            first, middle = kept[-2:]
            rise = (y[middle] - y[first]) * (x[place] - x[first])
            if rise > (y[place] - y[first]) * (x[middle] - x[first]):
                break
            kept.pop()
        kept.append(place)
    return _Curve(x[kept], y[kept], threshold[kept])

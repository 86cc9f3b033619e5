"""What is watched beside the verdict, as folds of constant memory: drift per window, fresh rows, attributions per
group; and hysteresis."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan, pi, sqrt
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.bounded import Sample, difference_sequence
from governed_serving.fairness.metrics.sequences import DIFFERENCES, mixture_radius
from governed_serving.fairness.monitoring.drift import (
    alarm_threshold,
    kolmogorov_tail,
    log_evidence,
    population_stability,
)
from governed_serving.fairness.monitoring.reference import Distribution

__all__ = [
    "AttributionSums",
    "ColumnDrift",
    "DriftMonitor",
    "FreshRows",
    "Gap",
    "Hysteresis",
    "gaps_of",
    "shares_by_arrival",
]

K = TypeVar("K", bound=Hashable)

Seen = Mapping[str, tuple[NDArray[np.generic], Sequence[str] | None]]
"""Column → numbers and None, or codes and the words that they stand for; shape (rows,)."""


class Hysteresis(msgspec.Struct):
    """An alarm per subject: raised by ``patience`` breaches in a row, ended by as many calm sights; what lies between
    changes nothing."""

    patience: int = 2
    raised: dict[str, float] = {}
    """Subject → since when."""
    streaks: dict[str, int] = {}
    """Breaches in a row (positive) or calm sights (negative)."""

    def observe(self, subject: str, *, breach: bool, calm: bool, now: float) -> str:
        """``raised`` or ``ended`` when that happens now, otherwise nothing."""
        before = self.streaks.get(subject, 0)
        self.streaks[subject] = max(before, 0) + 1 if breach else min(before, 0) - 1 if calm else 0
        if subject not in self.raised and self.streaks[subject] >= self.patience:
            self.raised[subject] = now
            return "raised"
        if subject in self.raised and self.streaks[subject] <= -self.patience:
            del self.raised[subject]
            return "ended"
        return ""


@dataclass(frozen=True)
class ColumnDrift:
    """One column of a window against training. ``ks``: Kolmogorov–Smirnov distance at the borders of the bins; NaN for
    words.

    ``p_value`` is of this look alone; ``log_evidence`` that there is drift, ``shown`` where it suffices for all looks
    together.
    """

    column: str
    psi: float
    ks: float
    p_value: float
    log_evidence: float
    shown: bool


class DriftMonitor:
    """Histograms over the bins of ``reference``, in windows of at least ``window`` rows, one after another."""

    def __init__(self, reference: Mapping[str, Distribution], window: int = 2000):
        self.reference = dict(reference)
        self.window = window
        self.rows = 0
        self.windows = 0
        self.last: dict[str, NDArray[np.int64]] = {}
        """Histograms of the last whole window."""
        self._open = {name: np.zeros_like(column.counts) for name, column in self.reference.items()}

    def add(self, columns: Seen, rows: int) -> bool:
        """Fold a frame; True when a window has closed with it."""
        for name, (values, words) in columns.items():
            if name in self.reference:
                self._open[name] += self.reference[name].count(values, words)
        self.rows += rows
        if self.rows < self.window:
            return False
        self.last = {name: counts.copy() for name, counts in self._open.items() if counts.any()}
        self.windows += 1
        self.rows = 0
        for counts in self._open.values():
            counts[:] = 0
        return True

    def compared(self, others: Iterable[Mapping[str, Sequence[int]]] = ()) -> list[ColumnDrift]:
        """The last whole window against training, the largest PSI first; ``others``: last windows of other replicas,
        added to ours."""
        whole = {name: counts.copy() for name, counts in self.last.items()}
        for other in others:
            for name, counts in other.items():
                if name in whole and len(counts) == len(whole[name]):
                    whole[name] += counts
        return sorted((self._compared(*one) for one in whole.items()), key=lambda one: -one.psi)

    def _compared(self, name: str, counts: NDArray[np.int64]) -> ColumnDrift:
        expected = self.reference[name].counts
        psi = population_stability(expected, counts)
        evidence = float(log_evidence(expected, counts))
        shown = evidence >= alarm_threshold(len(self.reference))
        if self.reference[name].edges is None:
            return ColumnDrift(name, psi, nan, nan, evidence, shown)
        m, n = int(expected.sum()), int(counts.sum())
        distance = float(np.abs(expected.cumsum() / m - counts.cumsum() / n).max())
        p_value = kolmogorov_tail(sqrt(m * n / (m + n)) * distance)
        return ColumnDrift(name, psi, distance, p_value, evidence, shown)

    def dump(self) -> dict[str, object]:
        """Plain data."""
        counts = _plain(self._open)
        return {"open": counts, "rows": self.rows, "windows": self.windows, "last": self.last_window()}

    def last_window(self) -> dict[str, list[int]]:
        """Column → histogram of the last whole window: plain data."""
        return _plain(self.last)

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Inverse of :meth:`dump`; for another reference nothing is loaded."""
        loaded = {name: np.array(counts, np.int64) for name, counts in dumped["open"].items()}
        if {n: len(c) for n, c in loaded.items()} != {n: len(c) for n, c in self._open.items()}:
            return
        self._open, self.rows, self.windows = loaded, dumped["rows"], dumped["windows"]
        self.last = {name: np.array(counts, np.int64) for name, counts in dumped.get("last", {}).items()}


def _plain(counts: Mapping[str, NDArray[np.int64]]) -> dict[str, list[int]]:
    return {name: numbers.tolist() for name, numbers in counts.items()}


class FreshRows:
    """A uniform sample of at most ``most`` of the rows since it was last taken: those with the smallest random
    numbers."""

    def __init__(self, most: int = 500, seed: int = 0):
        self.most = most
        self.seen = 0
        self._rng = np.random.default_rng(seed)
        self._kept: list[tuple[float, dict[str, str | float]]] = []
        self._bar = 1.0

    def add(self, columns: Seen, rows: int) -> None:
        """Offer the rows of a frame."""
        drawn = self._rng.random(rows)
        self.seen += rows
        for row in np.flatnonzero(drawn < self._bar).tolist():
            cells = {n: v[row].item() if w is None else w[int(v[row])] for n, (v, w) in columns.items()}
            self._kept.append((float(drawn[row]), cells))
            if len(self._kept) >= 2 * self.most:
                self._trim()

    def take(self) -> dict[str, NDArray[np.generic]]:
        """The sample as columns (float32, or objects that hold str), and begin anew."""
        self._trim()
        cells = [row for _, row in self._kept]
        self.seen, self._kept, self._bar = 0, [], 1.0
        names = list(cells[0]) if cells else []
        return {name: _array([row.get(name) for row in cells]) for name in names}

    def _trim(self) -> None:
        self._kept = sorted(self._kept, key=lambda one: one[0])[: self.most]
        if len(self._kept) == self.most:
            self._bar = self._kept[-1][0]


def _array(values: Sequence[str | float | None]) -> NDArray[np.generic]:
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, np.float32)
    out = np.empty(len(values), object)
    out[:] = ["" if value is None else str(value) for value in values]
    return out


@dataclass(frozen=True)
class Gap:
    """Mean attribution to ``feature``: rows of ``group`` minus all others, with an interval for all times; ``scale``:
    pooled deviation; ``exact``: whether the interval holds at any number of rows, or only of many."""

    attribute: str
    group: str
    feature: str
    difference: float
    lower: float
    upper: float
    scale: float
    rows: int
    exact: bool = False


MOST_EXACT = 40
"""Gaps whose exact interval is sought, the largest by their deviation; of the others no more is said than what is so
in any case."""


class AttributionSums:
    """Sums of attributions per attribute, group and feature; at most ``limit`` of them, further ones are counted in
    ``dropped``.

    ``bound``: what an attribution can't exceed either way, known before any data; larger ones count as it, and are
    counted in ``clipped``. None: unknown.
    """

    def __init__(self, limit: int = 20_000, bound: float | None = None):
        self.limit, self.bound = limit, bound
        self.rows = 0
        self.dropped = 0
        self.clipped = 0
        self._sums: dict[tuple[str, str, str], NDArray[np.float64]] = {}
        self._since: dict[tuple[str, str, str], float] = {}

    def add(self, groups: Mapping[str, str], attributions: Mapping[str, float], now: float = 0.0) -> None:
        """One explained row: attribute → its group, feature → attribution; ``now``: seconds since the epoch."""
        self.rows += 1
        for attribute, group in groups.items():
            for feature, value in attributions.items():
                key = (attribute, group, feature)
                if key not in self._sums and len(self._sums) >= self.limit:
                    self.dropped += 1
                    continue
                if self.bound is not None and abs(value) > self.bound:
                    value, self.clipped = max(-self.bound, min(value, self.bound)), self.clipped + 1
                self._since.setdefault(key, now)
                self._sums.setdefault(key, np.zeros(3))[:] += (1.0, value, value * value)

    def gaps(self, level: float, least: int, others: Iterable[Sequence[Any]] = ()) -> list[Gap]:
        """All gaps with at least ``least`` explained rows on both sides, the largest first; each at a part of the level
        that no group or feature that comes later changes (:func:`shares_by_arrival`).

        ``others``: tables of other replicas; added up in an order of their own, so that every replica finds the same
        bits.
        """
        return gaps_of([self.table(), *others], level, least, self.bound)

    def dump(self) -> list[object]:
        """Plain data."""
        return [self.rows, self.dropped, self.table(), self.clipped]

    def table(self) -> list[list[object]]:
        """Attribute, group, feature, rows, sum, sum of squares, since when it is known: plain data."""
        return [[*key, *sums.tolist(), self._since[key]] for key, sums in sorted(self._sums.items())]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of :meth:`dump`."""
        self.rows, self.dropped, sums, *clipped = dumped
        self.clipped = clipped[0] if clipped else 0
        self._sums = {(a, g, f): np.array(loaded[:3], np.float64) for a, g, f, *loaded in sums}
        self._since = {(a, g, f): loaded[3] if len(loaded) > 3 else 0.0 for a, g, f, *loaded in sums}


def gaps_of(tables: Sequence[Sequence[Any]], level: float, least: int, bound: float | None) -> list[Gap]:
    """:meth:`AttributionSums.gaps` of tables that were taken before: exact intervals take tens of milliseconds each."""
    every, since = _added(list(tables))
    shares = shares_by_arrival(since)
    wholes: dict[tuple[str, str], NDArray[np.float64]] = {}
    for (attribute, _, feature), sums in every.items():
        wholes[attribute, feature] = wholes.get((attribute, feature), np.zeros(3)) + sums
    pairs = [(key, own, wholes[key[0], key[2]] - own) for key, own in sorted(every.items())]
    kept = [(key, own, rest) for key, own, rest in pairs if min(own[0], rest[0]) >= least]
    gaps = [_gap(key, own, rest, (1 - level) * shares[key]) for key, own, rest in kept]
    if bound is not None:
        order = sorted(range(len(gaps)), key=lambda place: -abs(gaps[place].difference) / gaps[place].scale)
        for rank, place in enumerate(order):
            key, own, rest = kept[place]
            alpha = (1 - level) * shares[key] if rank < MOST_EXACT else None
            gaps[place] = _exactly(gaps[place], own, rest, bound, alpha)
    return sorted(gaps, key=lambda gap: -abs(gap.difference))


def _exactly(gap: Gap, own: NDArray[np.float64], rest: NDArray[np.float64], bound: float, alpha: float | None) -> Gap:
    """With the interval of :mod:`...inference.bounded`, or without ``alpha`` with all that is possible."""
    if alpha is None:
        return replace(gap, lower=-2 * bound, upper=2 * bound, exact=True)
    one, other = (_sample(sums, bound) for sums in (own, rest))
    interval = difference_sequence(one, other, alpha)
    return replace(gap, lower=interval.lower, upper=interval.upper, exact=True)


def _sample(sums: NDArray[np.float64], bound: float) -> Sample:
    n, total, squares = sums.tolist()
    mean = max(-bound, min(total / n, bound))  # sums of an earlier version weren't clipped
    return Sample(int(n), mean, max(squares / n - mean * mean, 0.0), -bound, bound)


def _added(
    tables: list[Sequence[Any]],
) -> tuple[dict[tuple[str, str, str], NDArray[np.float64]], dict[tuple[str, str, str], float]]:
    """Sums, and since when each is known. Floats don't add up to the same whatever the order: one order for all, by
    what is added. Tables of an earlier version don't say since when."""
    added: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    since: dict[tuple[str, str, str], float] = {}
    for attribute, group, feature, *sums in sorted(row for table in tables for row in table):
        key, when = (attribute, group, feature), sums[3] if len(sums) > 3 else 0.0
        added[key] = added.get(key, np.zeros(3)) + sums[:3]
        since[key] = min(when, since.get(key, when))
    return added, since


def shares_by_arrival(since: Mapping[K, float]) -> dict[K, float]:
    """The part of a level that each of ``since`` has: 6/(π² k²) goes to those that arrived at the k-th moment, equally.

    Whatever arrives later, what is there keeps its part, and all sum to at most 1. Replicas that hear of each other
    late agree on the earliest moment.
    """
    moments = sorted(set(since.values()))
    together = Counter(since.values())
    parts = {moment: 6 / (pi * place) ** 2 / together[moment] for place, moment in enumerate(moments, 1)}
    return {key: parts[moment] for key, moment in since.items()}


def _gap(key: tuple[str, str, str], own: NDArray[np.float64], rest: NDArray[np.float64], alpha: float) -> Gap:
    (n1, m1, v1), (n0, m0, v0) = _moments(own), _moments(rest)
    scale = sqrt(((n1 - 1) * v1 + (n0 - 1) * v0) / (n1 + n0 - 2)) or 1e-12
    variance = max(v1 / n1 + v0 / n0, 1e-24) / scale**2
    radius = scale * mixture_radius(variance, alpha, DIFFERENCES)
    attribute, group, feature = key
    return Gap(attribute, group, feature, m1 - m0, m1 - m0 - radius, m1 - m0 + radius, scale, int(n1))


def _moments(sums: NDArray[np.float64]) -> tuple[float, float, float]:
    n, total, squares = sums.tolist()
    mean = total / n
    return n, mean, max((squares - n * mean * mean) / (n - 1), 0.0)

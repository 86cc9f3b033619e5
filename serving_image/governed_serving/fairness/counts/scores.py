"""Statistics of scores per group that add up exactly: moments as whole numbers, distributions as counts of nearby
floats.

A float32 is a whole number of 2⁻¹⁷³ at most 24 bits wide, so that sums of values and of squares are Python integers: no
split, no order and no restart changes a bit of them, and a row can be taken back. The distribution is kept exactly for
up to 2,048 different scores, and at 8 bits of mantissa beyond that (values within 0.4 % share a count), the calibration
in ten bins of [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.columns import OTHER, CodedColumn, Subject, joint, joint_name

__all__ = ["BINS", "GroupScores", "Limits", "Moments", "ScoreTable", "plain_subject", "read_subject"]

Floats = NDArray[np.float32]
Limits = tuple[float, float]
"""Least and greatest score, known before any data."""

BINS = 10
"""Of equal width over [0, 1], for calibration (Guo et al. 2017)."""
_UNIT = 173
MOST_EXACT = 2048
"""Different scores of a group that are counted exactly. Whether there were more doesn't depend on split or order."""
_COARSE_BITS = 15
_LIMIT = 1000


@dataclass
class Moments:
    """``n`` values; ``total``: their sum in 2⁻¹⁷³, ``squares``: the sum of squares in 2⁻³⁴⁶."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def add(self, other: "Moments", sign: int = 1) -> None:
        """Add to these, or (``sign`` −1) take back."""
        self.n += sign * other.n
        self.total += sign * other.total
        self.squares += sign * other.squares

    @property
    def mean(self) -> float:
        """NaN without values."""
        return self.total / (self.n << _UNIT) if self.n > 0 else float("nan")

    @property
    def variance(self) -> float:
        """Of the sample, n − 1 in the denominator; NaN below two values."""
        if self.n < 2:
            return float("nan")
        return (self.n * self.squares - self.total**2) / ((self.n * (self.n - 1)) << (2 * _UNIT))

    @property
    def mean_square(self) -> float:
        """Mean of the squares; NaN without values."""
        return self.squares / (self.n << (2 * _UNIT)) if self.n > 0 else float("nan")

    def dump(self) -> list[object]:
        return [self.n, f"{self.total:x}", f"{self.squares:x}"]

    @classmethod
    def load(cls, dumped: Sequence[Any]) -> "Moments":
        return cls(int(dumped[0]), int(dumped[1], 16), int(dumped[2], 16))


@dataclass
class GroupScores:
    """One group. ``error``: score − truth of rows with a label, ``absolute`` and ``square`` of it; ``bins``: [rows,
    favourable] each."""

    score: Moments = field(default_factory=Moments)
    error: Moments = field(default_factory=Moments)
    absolute: Moments = field(default_factory=Moments)
    square: Moments = field(default_factory=Moments)
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros((BINS, 2), np.int64))
    binned: list[int] = field(default_factory=lambda: [0] * BINS)
    """Sum of the scores in each bin, in 2⁻¹⁷³."""
    near: dict[int, int] = field(default_factory=dict)
    """Code of a float → rows; codes are ordered as the floats are."""
    coarse: bool = False
    """Codes are of floats with 8 bits of mantissa: there were more than ``MOST_EXACT`` different ones."""

    def add(self, other: "GroupScores") -> None:
        """Add another's."""
        for name in ("score", "error", "absolute", "square"):
            getattr(self, name).add(getattr(other, name))
        self.bins += other.bins
        self.binned = [a + b for a, b in zip(self.binned, other.binned, strict=True)]
        codes = np.fromiter(other.near, np.int64, len(other.near))
        self.count(codes, np.fromiter(other.near.values(), np.int64, len(other.near)), coarse=other.coarse)

    def count(self, codes: NDArray[np.int64], rows: NDArray[np.int64], *, coarse: bool = False) -> None:
        """Add ``rows`` (n,) of floats by their codes (n,), each once; ``coarse``: codes of 8 bits of mantissa."""
        if coarse or len(codes) > MOST_EXACT:
            self.coarsen()
        if self.coarse and not coarse:
            codes, rows = _coarse(codes, rows)
        for code, times in zip(codes.tolist(), rows.tolist(), strict=True):
            self.near[code] = self.near.get(code, 0) + times
        if len(self.near) > MOST_EXACT:
            self.coarsen()

    def coarsen(self) -> None:
        """Keep 8 bits of mantissa from here on."""
        if not self.coarse:
            codes = np.fromiter(self.near, np.int64, len(self.near))
            coarse = _coarse(codes, np.fromiter(self.near.values(), np.int64, len(self.near)))
            self.near, self.coarse = dict(zip(*(part.tolist() for part in coarse), strict=True)), True

    def within(self, low: float, high: float) -> bool:
        """Whether all scores lie between these, as far as nearby floats are told apart (up to .4 % beyond)."""
        first, last = (_ordered(np.array([low, high], np.float32)) >> _COARSE_BITS).tolist()
        return all(
            first <= code <= last for code, rows in zip(self._shorter(), self.near.values(), strict=True) if rows
        )

    def most_fourth_power(self, centre: float) -> float:
        """What the mean of (x − centre)⁴ is at most; NaN without any."""
        counts = np.array([*self.near.values()], np.float64)
        ends = np.array([(code, code + 1) for code in self._shorter()], np.int64).reshape(-1, 2)
        values = _floats(ends << _COARSE_BITS).astype(np.float64)
        rows = float(counts.sum())
        return float((counts * (np.abs(values - centre).max(1) ** 4)).sum() / rows) if rows > 0 else float("nan")

    def _shorter(self) -> list[int]:
        """The codes of :attr:`near` with 8 bits of mantissa, in its order; several may be alike."""
        return [code if self.coarse else code >> _COARSE_BITS for code in self.near]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean over rows of |mean score − rate of the favourable label| in their bin."""
        rows = int(self.bins[:, 0].sum())
        if rows <= 0:
            return float("nan")
        gaps = [abs(s - (int(k) << _UNIT)) for s, k in zip(self.binned, self.bins[:, 1].tolist(), strict=True)]
        return sum(gaps) / (rows << _UNIT)

    def mean_in(self, place: int) -> float:
        """Mean score of the labelled rows in a bin; NaN without any."""
        rows = int(self.bins[place, 0])
        return self.binned[place] / (rows << _UNIT) if rows > 0 else float("nan")

    def dump(self) -> list[object]:
        moments = [m.dump() for m in (self.score, self.error, self.absolute, self.square)]
        near = sorted(self.near.items())
        binned = [f"{s:x}" for s in self.binned]
        return [*moments, self.bins.ravel().tolist(), binned, [c for c, _ in near], [n for _, n in near], self.coarse]

    @classmethod
    def load(cls, dumped: Sequence[Any]) -> "GroupScores":
        *moments, bins, binned, codes, rows, coarse = dumped if isinstance(dumped[-1], bool) else [*dumped, True]
        table = np.array(bins, np.int64).reshape(BINS, 2)
        sums = [int(s, 16) for s in binned]
        score, error, absolute, square = (Moments.load(m) for m in moments)
        return cls(score, error, absolute, square, table, sums, dict(zip(codes, rows, strict=True)), coarse)


class ScoreTable:
    """Scores by group of each of ``subjects``; beyond 1,000 groups of a subject they are counted under ``OTHER``.

    ``limits``: scores and truths that lie outside count as the nearer end, and in ``outside`` and ``outside_truths``.
    """

    def __init__(self, subjects: Sequence[Subject], limits: Limits | None = None):
        self.subjects = tuple(subjects)
        self.limits = limits
        self.outside = self.outside_truths = 0
        self.groups: dict[tuple[Subject, str], GroupScores] = {}

    def add(self, columns: Mapping[str, CodedColumn], score: NDArray[np.floating]) -> None:
        """Fold the scores of rows; those that aren't finite are left out. ``columns``: one per axis of the subjects."""
        values = np.asarray(score, np.float32)
        kept = np.isfinite(values)
        values = values[kept]
        if not len(values):
            return
        if self.limits is not None:
            inside = np.clip(values, *np.array(self.limits, np.float32))
            self.outside += int((inside != values).sum())
            values = inside
        near = _ordered(values)
        for subject in self.subjects:
            codes, groups = joint(columns, subject)
            rows = codes[kept].astype(np.int64)
            moments = _moments(rows, len(groups), values)
            keys, counts = np.unique((rows << 32) | near, return_counts=True)
            present, starts = np.unique(keys >> 32, return_index=True)
            parts = zip(np.split(keys & 0xFFFFFFFF, starts[1:]), np.split(counts, starts[1:]), strict=True)
            for place, (floats, times) in zip(present.tolist(), parts, strict=True):
                scores = self.group(subject, groups[place])
                scores.score.add(moments[place])
                scores.count(floats, times)

    def learn(self, values: Mapping[str, str], score: float, truth: float, *, back: bool = False) -> None:
        """The truth about one row with ``values`` of the axes has come (or, ``back``, is taken back)."""
        sign = -1 if back else 1
        score, inside = self._inside(score), self._inside(truth)
        error = np.float32(score) - np.float32(inside)
        if not np.isfinite(error):
            return
        self.outside_truths += sign * (inside != float(np.float32(truth)))
        truth = inside
        errors = [_single(v) for v in (error, abs(error), np.float32(error) * np.float32(error))]
        within = 0 <= score <= 1
        place = min(int(score * BINS), BINS - 1) if within else 0
        for subject in self.subjects:
            scores = self.group(subject, joint_name(values[axis] for axis in subject))
            for moments, value in zip((scores.error, scores.absolute, scores.square), errors, strict=True):
                moments.add(value, sign)
            if within:
                scores.bins[place] += (sign, sign * int(truth >= 0.5))
                scores.binned[place] += sign * _single(np.float32(score)).total

    def _inside(self, value: float) -> float:
        """A float32, within the limits."""
        if self.limits is None:
            return float(np.float32(value))
        low, high = np.array(self.limits, np.float32)
        return float(min(max(np.float32(value), low), high))

    def group(self, subject: Subject, name: str) -> GroupScores:
        """Scores of a group, made if need be."""
        key = (subject, name)
        if key not in self.groups and sum(one == subject for one, _ in self.groups) >= _LIMIT:
            key = (subject, OTHER)
        return self.groups.setdefault(key, GroupScores())

    def of(self, subject: Subject, names: Sequence[str]) -> GroupScores:
        """Pooled scores of the named groups."""
        pooled = GroupScores()
        for name in names:
            if (subject, name) in self.groups:
                pooled.add(self.groups[subject, name])
        return pooled

    def merge(self, other: "ScoreTable") -> None:
        """Add another's."""
        self.outside, self.outside_truths = self.outside + other.outside, self.outside_truths + other.outside_truths
        for (subject, name), scores in sorted(other.groups.items()):
            self.group(subject, name).add(scores)

    def dump(self) -> list[object]:
        """Plain data; equal statistics give equal bytes."""
        groups = [
            [plain_subject(subject), name, scores.dump()] for (subject, name), scores in sorted(self.groups.items())
        ]
        limits = [] if self.limits is None else [[*self.limits, self.outside, self.outside_truths]]
        return [[plain_subject(subject) for subject in self.subjects], groups, *limits]

    @classmethod
    def load(cls, dumped: Sequence[Any]) -> "ScoreTable":
        """Inverse of :meth:`dump`."""
        table = cls([read_subject(subject) for subject in dumped[0]])
        if len(dumped) > 2:
            low, high, table.outside, table.outside_truths = dumped[2]
            table.limits = (low, high)
        for subject, name, scores in dumped[1]:
            table.groups[read_subject(subject), name] = GroupScores.load(scores)
        return table


def plain_subject(subject: Subject) -> str | list[str]:
    """For documents: the name of an axis, or the names of several."""
    return subject[0] if len(subject) == 1 else list(subject)


def read_subject(plain: str | Sequence[str]) -> Subject:
    """Inverse of :func:`plain_subject`."""
    return (plain,) if isinstance(plain, str) else tuple(plain)


def _moments(codes: NDArray[np.int64], size: int, values: Floats) -> list[Moments]:
    """Exact moments per code. Weights of bincount stay below 2⁵³ for up to 2²⁹ rows, so that nothing is rounded."""
    fraction, exponent = np.frexp(values)
    whole = np.abs(fraction.astype(np.float64) * (1 << 24)).astype(np.int64)
    low = int(exponent.min())
    span = int(exponent.max()) - low + 1
    place = codes * span + (exponent - low)
    square = whole * whole
    signed = np.where(fraction < 0, -whole, whole)
    parts = [
        np.bincount(place, weights, minlength=size * span).reshape(size, span).astype(np.int64)
        for weights in (signed, square >> 24, square & 0xFFFFFF)
    ]
    counts = np.bincount(codes, minlength=size).tolist()
    shift = low - 24 + _UNIT
    moments = []
    for n, total, high, rest in zip(counts, *(p.tolist() for p in parts), strict=True):
        sums = sum(t << (shift + i) for i, t in enumerate(total))
        squares = sum(((h << 24) + r) << (2 * (shift + i)) for i, (h, r) in enumerate(zip(high, rest, strict=True)))
        moments.append(Moments(n, sums, squares))
    return moments


def _single(value: float | np.floating) -> Moments:
    return _moments(np.zeros(1, np.int64), 1, np.array([value], np.float32))[0]


def _ordered(values: Floats) -> NDArray[np.int64]:
    """32 bits of each float, in the order of the floats; −0 is 0."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def _floats(codes: NDArray[np.int64]) -> Floats:
    """Inverse of :func:`_ordered`."""
    bits = np.where(codes >> 31 > 0, codes & 0x7FFFFFFF, ~codes & 0xFFFFFFFF)
    floats: Floats = bits.astype(np.uint32).view(np.float32)
    return floats


def _coarse(codes: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """17 bits of each code, rising: sign, exponent, 8 bits of mantissa."""
    short = codes >> _COARSE_BITS
    if (short[1:] < short[:-1]).any():
        order = np.argsort(short, kind="stable")
        short, rows = short[order], rows[order]
    starts = np.flatnonzero(np.concatenate([[True], short[1:] != short[:-1]])[: len(short)])
    return short[starts], np.add.reduceat(rows, starts) if len(starts) else rows

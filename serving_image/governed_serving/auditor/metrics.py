"""Group fairness metrics from counts.

Two conventions, named: ``signed`` is AIF360's, group minus (or over) reference; ``spread`` is fairlearn's, max − min (or min/max)
over all groups. Definitions: Barocas, Hardt & Narayanan, "Fairness and Machine Learning", ch. 3; four-fifths rule: 29 CFR 1607.4(D).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.auditor.cells import Cells

__all__ = [
    "METRICS",
    "Comparison",
    "Confusion",
    "chi_square",
    "compare",
    "impact_ratios",
    "reference",
    "simpson",
    "spread",
]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """Counts of one group. ``rows``, ``favourable``: all rows; ``tp, fp, tn, fn``: those with a label."""

    rows: int
    favourable: int
    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0

    @classmethod
    def of(cls, counts: Counts) -> "Confusion":
        """From cells of shape (outcome 2, label 3)."""
        return cls(
            int(counts.sum()), int(counts[1].sum()),
            tp=int(counts[1, 2]), fp=int(counts[1, 1]), tn=int(counts[0, 1]), fn=int(counts[0, 2]),
        )  # fmt: skip

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(*(a + b for a, b in zip(self.tuple, other.tuple, strict=True)))

    @property
    def tuple(self) -> tuple[int, ...]:
        return (self.rows, self.favourable, self.tp, self.fp, self.tn, self.fn)

    @property
    def selection(self) -> tuple[int, int]:
        """(favourable, rows)."""
        return self.favourable, self.rows

    @property
    def true_positive(self) -> tuple[int, int]:
        return self.tp, self.tp + self.fn

    @property
    def false_positive(self) -> tuple[int, int]:
        return self.fp, self.fp + self.tn

    @property
    def precision(self) -> tuple[int, int]:
        return self.tp, self.tp + self.fp


Rate = tuple[int, int]
"""k of n."""


@dataclass(frozen=True)
class Metric:
    """A metric as rates and what is made of them; ``combine`` gets (group, reference) per rate."""

    name: str
    rates: tuple[Callable[[Confusion], Rate], ...]
    combine: Callable[[Sequence[tuple[float, float]]], float]
    labelled: bool

    def value(self, group: Confusion, against: Confusion) -> float:
        """Signed value; nan where a rate isn't defined."""
        return self.combine([(_rate(r(group)), _rate(r(against))) for r in self.rates])


def _rate(rate: Rate) -> float:
    return rate[0] / rate[1] if rate[1] else nan


def _difference(pairs: Sequence[tuple[float, float]]) -> float:
    return pairs[0][0] - pairs[0][1]


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return pairs[0][0] / pairs[0][1] if pairs[0][1] else nan


def _average(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(a - b for a, b in pairs) / len(pairs)


def _worst(pairs: Sequence[tuple[float, float]]) -> float:
    gaps = [abs(a - b) for a, b in pairs]
    return nan if any(g != g for g in gaps) else max(gaps)


_SELECTION, _TPR, _FPR, _PPV = (
    (lambda c: c.selection),
    (lambda c: c.true_positive),
    (lambda c: c.false_positive),
    (lambda c: c.precision),
)
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("statisticalParityDifference", (_SELECTION,), _difference, False),
        Metric("disparateImpactRatio", (_SELECTION,), _ratio, False),
        Metric("equalOpportunityDifference", (_TPR,), _difference, True),
        Metric("averageOddsDifference", (_TPR, _FPR), _average, True),
        Metric("equalizedOddsDifference", (_TPR, _FPR), _worst, True),
        Metric("predictiveParityDifference", (_PPV,), _difference, True),
    )
}


@dataclass(frozen=True)
class Comparison:
    """One metric of one group against the reference."""

    metric: str
    group: str
    reference: str
    value: float
    group_counts: Confusion
    reference_counts: Confusion


def reference(groups: Mapping[str, Confusion], privileged: Sequence[str]) -> list[str]:
    """Reference groups: those named and seen, otherwise the one with the highest favourable rate."""
    named = [g for g in privileged if g in groups]
    seen = [g for g in groups if groups[g].rows]
    return named or ([max(seen, key=lambda g: (_rate(groups[g].selection), g))] if seen else [])


def compare(groups: Mapping[str, Confusion], privileged: Sequence[str], metrics: Sequence[str]) -> list[Comparison]:
    """Every group against the reference groups taken together, for every metric."""
    base = reference(groups, privileged)
    if not base:
        return []
    against = sum((groups[g] for g in base[1:]), start=groups[base[0]])
    return [
        Comparison(name, group, "+".join(base), METRICS[name].value(counts, against), counts, against)
        for name in metrics
        for group, counts in groups.items()
        if group not in base
    ]


def spread(groups: Mapping[str, Confusion], metric: str) -> float:
    """fairlearn's convention: greatest minus least group rate (ratios: least over greatest; odds: the worse of TPR and FPR)."""
    chosen = METRICS[metric]
    gaps = []
    for rate in chosen.rates:
        rates = [_rate(rate(c)) for c in groups.values()]
        ratio = chosen.combine is _ratio
        gaps.append(min(rates) / max(rates) if ratio and max(rates) > 0 else max(rates) - min(rates))
    return sum(gaps) / len(gaps) if chosen.combine is _average else max(gaps)


def impact_ratios(groups: Mapping[str, Confusion], least_share: float = 0.0) -> dict[str, float | None]:
    """NYC Local Law 144 (6 RCNY § 5-300): selection rate over that of the most selected category; None below ``least_share`` of rows."""
    total = sum(c.rows for c in groups.values())
    kept = {g: _rate(c.selection) for g, c in groups.items() if c.rows and c.rows >= least_share * total}
    best = max(kept.values(), default=0.0)
    return {g: kept[g] / best if g in kept and best else None for g in groups}


def chi_square(groups: Mapping[str, Confusion]) -> float:
    """Pearson's χ² of group × outcome, uncorrected; 0 where a margin is empty."""
    table = np.array([[c.favourable, c.rows - c.favourable] for c in groups.values()], np.float64)
    if not table.size or not table.sum():
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum()) if (expected > 0).all() else 0.0


def simpson(cells: Cells, attribute: str, stratum: str, privileged: Sequence[str]) -> list[dict[str, Any]]:
    """Per group: SPD over all, SPD within strata, and adjusted for them (Mantel-Haenszel weights n₁n₀/(n₁+n₀)); does it turn?"""
    whole = {g: Confusion.of(c) for g, c in cells.table(attribute).items()}
    base = reference(whole, privileged)
    out = []
    for one in compare(whole, base, ["statisticalParityDifference"]):
        within, total, weights = {}, 0.0, 0.0
        for value in cells.values_of(stratum):
            groups = {g: Confusion.of(c) for g, c in cells.table(attribute, {stratum: value}).items()}
            pool = [groups[g] for g in base if g in groups]
            mine = groups.get(one.group)
            if mine is None or not pool:
                continue
            against = sum(pool[1:], start=pool[0])
            gap = _rate(mine.selection) - _rate(against.selection)
            weight = mine.rows * against.rows / (mine.rows + against.rows)
            within[value], total, weights = gap, total + weight * gap, weights + weight
        if weights:
            adjusted = total / weights
            turns = abs(one.value) > 0.01 and adjusted * one.value <= 0
            out.append(
                {"group": one.group, "reference": one.reference, "stratum": stratum, "spd": one.value, "within": within,
                 "adjustedSpd": adjusted, "reverses": turns}
            )  # fmt: skip
    return out

"""Anytime-valid intervals and e-values for live monitoring, as functions of counts alone: no order, no split, no
restart changes them.

Rates are judged by the exact e-processes of :mod:`..inference.contrasts`, at every sample size; so are entropy indices
(:mod:`..inference.shares`) and what is asked about probabilities (:mod:`.score_sequences`). Scores without a range
known beforehand, those of a regression, have asymptotic ones: normal-mixture confidence sequences with the variance
estimated from the counts (Robbins 1970; Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals of Statistics 2024), and
findings say which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log, log1p, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.contrasts import log_evidence, lower_end
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.metrics import METRICS

__all__ = [
    "DIFFERENCES",
    "Form",
    "Mixture",
    "Question",
    "RateContrast",
    "e_benjamini_hochberg",
    "evidences",
    "intervals",
    "metric_question",
    "mixture_evidence",
    "mixture_radius",
]

Array = NDArray[np.integer | np.floating]
"""Counts, or figures made of them."""
Floats = NDArray[np.float64]


# ---- rates: exact ----


class RateContrast(NamedTuple):
    """``cases`` of ``rows``: of a group, of its reference, and so on in turn. ``weights``: of a difference Σ wᵢ pᵢ;
    None: ratio of two."""

    cases: tuple[float, ...]
    rows: tuple[float, ...]
    weights: tuple[float, ...] | None = (1.0, -1.0)

    @property
    def range(self) -> tuple[float, float]:
        """What is possible: of the difference, or of the ratio's logarithm as far as it is looked at."""
        if self.weights is None:
            return -_WIDEST, _WIDEST
        return sum(min(w, 0.0) for w in self.weights), sum(max(w, 0.0) for w in self.weights)


_WIDEST = 25.0
"""Ratios are looked at from e⁻²⁵ to e²⁵."""

Form = Literal["difference", "ratio", "largestDifference", "leastRatio"]


@dataclass(frozen=True)
class Question:
    """What is asked of rates: the value of one contrast, or the largest size (for ratios: the least ratio, either way)
    of several.

    ``shares``: which part of alpha goes to each contrast; their sum is at most 1.
    """

    parts: tuple[RateContrast, ...]
    form: Form
    shares: tuple[float, ...] = (1.0,)


def intervals(questions: Sequence[Question], alphas: Sequence[float]) -> list[Interval]:
    """Confidence sequences at level 1 − alpha each, all solved together."""
    parts = [part for question in questions for part in question.parts]
    shared = [alpha * share for question, alpha in zip(questions, alphas, strict=True) for share in question.shares]
    ends = iter(_ends(parts, shared))
    return [_joined(question.form, [next(ends) for _ in question.parts]) for question in questions]


def _joined(form: Form, ends: list[tuple[float, float]]) -> Interval:
    if form == "difference":
        return Interval(*ends[0])
    if form == "ratio":
        low, high = ends[0]
        return Interval(0.0 if low <= -_WIDEST else exp(low), inf if high >= _WIDEST else exp(high))
    least = max((max(low, -high, 0.0) for low, high in ends), default=0.0)
    most = max((max(-low, high) for low, high in ends), default=inf)
    if form == "largestDifference":
        return Interval(least, min(most, 1.0))
    return Interval(0.0 if most >= _WIDEST else exp(-most), exp(-least))


def _ends(parts: Sequence[RateContrast], alphas: Sequence[float]) -> list[tuple[float, float]]:
    """Both ends of each contrast, half of alpha each; the whole range where a rate has no rows."""
    ranges = [part.range for part in parts]
    for places in _alike(parts).values():
        some = [parts[i] for i in places]
        batch = _Batch(some + some, [1.0] * len(some) + [-1.0] * len(some))
        thresholds = np.log(2 / np.array([alphas[i] for i in places] * 2))
        ends = batch.lower_ends(thresholds)
        for place, low, high in zip(places, ends[: len(some)].tolist(), ends[len(some) :].tolist(), strict=True):
            ranges[place] = (low, -high)
    return ranges


def evidences(questions: Sequence[Question], bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Log e-values against "the value lies within the bounds", all solved together; −inf where nothing speaks against
    it."""
    sides: list[tuple[int, float, RateContrast, float, float]] = []
    for place, (question, (low, high)) in enumerate(zip(questions, bounds, strict=True)):
        below, above = _on_contrasts(question.form, low, high)
        for part, share in zip(question.parts, question.shares, strict=True):
            sides += [(place, share, part, 1.0, above)] if above < inf else []
            sides += [(place, share, part, -1.0, -below)] if below > -inf else []
    values = np.full(len(sides), -inf)
    for places in _alike([side[2] for side in sides]).values():
        batch = _Batch([sides[i][2] for i in places], [sides[i][3] for i in places])
        values[places] = batch.evidence(np.array([sides[i][4] for i in places]))
    best = [-inf] * len(questions)
    for (place, share, *_), value in zip(sides, values.tolist(), strict=True):
        # Half on each side, shared among the parts: any one term of a weighted mean of e-values is below an e-value.
        best[place] = max(best[place], value + log(share / 2))
    return best


def _on_contrasts(form: Form, low: float, high: float) -> tuple[float, float]:
    """Bounds of a question as bounds of each of its contrasts."""
    if form == "difference":
        return low, high
    if form == "ratio":
        return log(low) if low > 0 else -inf, log(high) if 0 < high < inf else inf
    if form == "largestDifference":
        return (-high, high) if high < inf else (-inf, inf)
    return (log(low), -log(low)) if 0 < low <= 1 else (-inf, inf)


def _alike(parts: Sequence[RateContrast]) -> dict[int, list[int]]:
    """Places by number of rates, of contrasts in which every rate has rows."""
    alike: dict[int, list[int]] = {}
    for place, part in enumerate(parts):
        if min(part.rows) > 0:
            alike.setdefault(len(part.rows), []).append(place)
    return alike


class _Batch:
    """Contrasts of equally many rates, each looked at from above (``signs`` 1) or from below (−1)."""

    def __init__(self, parts: Sequence[RateContrast], signs: Sequence[float]):
        self.k = np.array([part.cases for part in parts], np.float64)
        self.n = np.array([part.rows for part in parts], np.float64)
        self.sign = np.array(signs)
        self.ratio = np.array([part.weights is None for part in parts])
        plain = (1.0, -1.0)
        self.weights = np.array([plain if part.weights is None else part.weights for part in parts])
        ranges = np.array([part.range for part in parts])
        self.least = np.where(self.sign > 0, ranges[:, 0], -ranges[:, 1])

    def _half_spaces(self, t: Floats, rows: Array) -> tuple[Floats, Floats]:
        sign, ratio = self.sign[rows], self.ratio[rows]
        weights = self.weights[rows].copy()
        weights[ratio, 1] = -np.exp(sign[ratio] * t[ratio])
        return sign[:, None] * weights, np.where(ratio, 0.0, t)

    def evidence(self, t: Floats) -> Floats:
        """Log e-values against "sign × contrast ≤ t"."""
        return self._evidence_of(t, np.arange(len(t)))

    def _evidence_of(self, t: Floats, rows: Array) -> Floats:
        return log_evidence(self.k[rows], self.n[rows], *self._half_spaces(t, rows))

    def lower_ends(self, thresholds: Floats) -> Floats:
        """Of sign × contrast."""
        rate = (self.k + 0.5) / (self.n + 1)
        spread = rate * (1 - rate) / (self.n + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = (self.weights * self.k / self.n).sum(1)
            logs = np.log(self.k / self.n)
            observed[self.ratio] = (logs[:, 0] - logs[:, 1])[self.ratio]
            scale = np.where(self.ratio, (spread / rate**2).sum(1), (self.weights**2 * spread).sum(1))
        undefined = np.isnan(observed)
        most = np.clip(self.sign * np.where(undefined, 0.0, observed), self.least, -self.least)
        most[undefined] = self.least[undefined]
        return lower_end(self._evidence_of, self.least, most, np.sqrt(scale), thresholds)


def metric_question(name: str, u: Array, p: Array) -> Question:
    """METRICS[name] of counts (2, 3) of a group and its reference, as a question."""
    pairs = []
    for rate in METRICS[name].rates:
        (k1, n1), (k0, n0) = rate(u), rate(p)
        pairs.append(((float(k1), float(k0)), (float(n1), float(n0))))
    if name == "averageOddsDifference":
        cases, rows = (tuple(x for pair in pairs for x in pair[i]) for i in (0, 1))
        return Question((RateContrast(cases, rows, (0.5, -0.5) * len(pairs)),), "difference")
    if name == "disparateImpactRatio":
        return Question((RateContrast(*pairs[0], None),), "ratio")
    parts = tuple(RateContrast(*pair) for pair in pairs)
    if len(parts) == 1:
        return Question(parts, "difference")
    return Question(parts, "largestDifference", (1 / len(parts),) * len(parts))


# ---- means and what is made of them: asymptotic ----


class Mixture(NamedTuple):
    """Which disparities the bets are on: those near ``centre`` on either side, normal with ``deviation``; all others
    count a little."""

    centre: float
    deviation: float


DIFFERENCES = Mixture(0.1, 0.04)
"""For differences of scores, in units of their deviation or of a probability."""


def mixture_evidence(distance: Any, variance: Any, mixture: Mixture) -> Any:
    """Log e-value against a point null at ``distance`` from an estimate with this sampling ``variance``; broadcasts.
    Asymptotic.

    The likelihood of what was seen, averaged over the mixture, over that under the null.
    """
    whole = variance + mixture.deviation**2
    near, far = (-((distance + side) ** 2) / (2 * whole) for side in (-mixture.centre, mixture.centre))
    scale = 0.5 * np.log(variance / whole) + distance**2 / (2 * variance)
    return scale + np.logaddexp(near, far) - log(2)


def mixture_radius(variance: float, alpha: float, mixture: Mixture) -> float:
    """Half-width of the (1 − ``alpha``) confidence sequence: the distance at which the evidence reaches 1/``alpha``.

    The same formula as :func:`mixture_evidence`, for plain floats, inverted by bisection.
    """
    centre, whole = mixture.centre, variance + mixture.deviation**2
    aim = -log(alpha) + log(2) - 0.5 * log(variance / whole)

    def short(distance: float) -> bool:
        near, far = -((distance - centre) ** 2) / (2 * whole), -((distance + centre) ** 2) / (2 * whole)
        return distance**2 / (2 * variance) + near + log1p(exp(far - near)) < aim

    low, high = 0.0, sqrt(2 * variance)
    while short(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return high


def e_benjamini_hochberg(log_values: Mapping[str, float] | Sequence[float], level: float) -> list[Any]:
    """Keys (or places) of the hypotheses rejected with false discovery rate ≤ 1 − ``level``, under any dependence (Wang
    & Ramdas 2022)."""
    items = list(log_values.items()) if isinstance(log_values, Mapping) else list(enumerate(log_values))
    ranked = sorted(items, key=lambda item: -item[1])
    alpha = 1 - level
    kept = [k for k, (_, value) in enumerate(ranked, 1) if value >= log(len(items) / (alpha * k))]
    return [key for key, _ in ranked[: max(kept)]] if kept else []

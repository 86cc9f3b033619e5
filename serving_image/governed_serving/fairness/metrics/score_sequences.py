"""Exact confidence sequences of what is asked about scores in a known range, from sums that add up: n, Σx, Σx² of
scores, errors and their squares.

A probability lies in [0, 1] before any data, and so do its errors' sizes and squares; so do scores of a regression with
a declared range, which are cut to it. Means of such values have exact sequences (:mod:`..inference.bounded`). What is
made of several means (a root, a standardised difference, a calibration error) takes the extremes that their sequences
allow, each at its part of alpha. Predictions of a regression without a declared range stay asymptotic.
"""

from collections.abc import Callable, Mapping
from math import exp, inf, log, sqrt
from typing import NamedTuple

import numpy as np

from governed_serving.fairness.counts.scores import BINS, GroupScores, Limits, Moments
from governed_serving.fairness.inference.bounded import (
    Sample,
    difference_evidence,
    difference_sequence,
    mean_sequence,
)
from governed_serving.fairness.inference.intervals import Interval

__all__ = ["PROBABILITIES", "Answers", "Span", "calibration_answers", "difference_answers", "span_of"]


class Span(NamedTuple):
    """Where scores and truths lie, before any data."""

    low: float
    high: float
    truth_low: float
    truth_high: float

    @property
    def size(self) -> float:
        """Of an error, at most; errors are rounded as float32."""
        widest = max(self.high - self.truth_low, self.truth_high - self.low)
        return max(widest, float(np.float32(widest)))


PROBABILITIES = Span(0.0, 1 + 2**-8, 0.0, 1.0)
"""Scores are kept apart to .4 %: what counts as 1 may be so much more."""


def span_of(limits: Limits) -> Span:
    """Of scores and truths that were cut to ``limits`` as float32."""
    low, high = np.array(limits, np.float32).tolist()
    return Span(low, high, low, high)


Sequence = Callable[[float], Interval]
"""Alpha → confidence sequence."""


class Answers(NamedTuple):
    """``sequence(level)`` and ``evidence(lower, upper)``, as :class:`~.measures.MetricValue` has them."""

    sequence: Callable[[float], Interval]
    evidence: Callable[[float, float], float]


def _sample(moments: Moments, low: float, high: float) -> Sample:
    if moments.n < 1:
        return Sample(0, 0.0, 0.0, low, high)
    mean = moments.mean
    variance = moments.variance * (moments.n - 1) / moments.n if moments.n > 1 else 0.0
    return Sample(moments.n, mean, variance, low, high)


def _scores(g: GroupScores, span: Span) -> Sample:
    return _sample(g.score, span.low, span.high)


def _errors(g: GroupScores, span: Span) -> Sample:
    return _sample(g.error, span.low - span.truth_high, span.high - span.truth_low)


def _sizes(g: GroupScores, span: Span) -> Sample:
    return _sample(g.absolute, 0.0, span.size)


_MEANS: Mapping[str, Callable[[GroupScores, Span], Sample]] = {
    "scoreMeanDifference": _scores,
    "meanErrorDifference": _errors,
    "meanAbsoluteErrorDifference": _sizes,
}


def difference_answers(name: str, own: GroupScores, pooled: GroupScores, span: Span = PROBABILITIES) -> Answers:
    """Of the difference ``name`` between two groups whose scores lie in ``span``."""
    if name in _MEANS:
        one, other = _MEANS[name](own, span), _MEANS[name](pooled, span)
        return Answers(
            lambda level: difference_sequence(one, other, 1 - level),
            lambda lower, upper: difference_evidence(one, other, lower, upper),
        )
    if name == "rootMeanSquaredErrorDifference":
        return _answers(
            lambda alpha: _gap(_root_mean_square(own, alpha / 2, span), _root_mean_square(pooled, alpha / 2, span))
        )
    if name == "calibrationDifference":
        return _answers(lambda alpha: _gap(_calibration(own, alpha / 2), _calibration(pooled, alpha / 2)))
    return _answers(lambda alpha: _standardized(own, pooled, alpha, span))


def calibration_answers(own: GroupScores) -> Answers:
    """Of a group's own calibration error."""
    return _answers(lambda alpha: _calibration(own, alpha))


def _gap(interval: Interval, other: Interval) -> Interval:
    return Interval(interval.lower - other.upper, interval.upper - other.lower)


def _root_mean_square(g: GroupScores, alpha: float, span: Span) -> Interval:
    top = max(span.size**2, float(np.float32(span.size) * np.float32(span.size)))
    squares = mean_sequence(_sample(g.square, 0.0, top), alpha)
    return Interval(sqrt(max(squares.lower, 0.0)), sqrt(squares.upper))


def _calibration(g: GroupScores, alpha: float) -> Interval:
    """The error is the largest mean of ±(score − label) over all choices of a sign per bin.

    Each choice has the squares that the error itself has; at alpha ÷ 2^BINS all hold at once, and their largest ends
    are those of the choice that was observed.
    """
    n, error = g.error.n, g.calibration_error
    if n < 1 or error != error:
        return Interval(0.0, 1.0)
    variance = max(g.error.mean_square - error * error, 0.0)
    interval = mean_sequence(Sample(n, error, variance, -PROBABILITIES.size, PROBABILITIES.size), alpha / 2**BINS)
    return Interval(max(interval.lower, 0.0), min(interval.upper, 1.0))


_CENTRES = (0.2, 0.5, 0.8)
"""Parts of the span."""


def _standardized(own: GroupScores, pooled: GroupScores, alpha: float, span: Span) -> Interval:
    """Half of alpha for the difference, a quarter for each variance."""
    rows = own.score.n + pooled.score.n
    if min(own.score.n, pooled.score.n) < 1:
        return Interval(-inf, inf)
    difference = difference_sequence(_scores(own, span), _scores(pooled, span), alpha / 2)
    low, high = (
        sum(g.score.n * max(end, 0.0) for g, end in zip((own, pooled), ends, strict=True))
        for ends in zip(*(_variance(g, alpha / 4, span) for g in (own, pooled)), strict=True)
    )
    least, most = sqrt(low / rows), sqrt(high / rows)
    return Interval(_over(difference.lower, least, most), -_over(-difference.upper, least, most))


def _variance(g: GroupScores, alpha: float, span: Span) -> Interval:
    """E(x − c)² − (μ − c)², for a few c chosen before any data; half of alpha for the mean μ."""
    mean, ends = mean_sequence(_scores(g, span), alpha / 2), []
    for part in _CENTRES:
        centre = span.low + part * (span.truth_high - span.low)
        square = _mean_square(g, centre, alpha / 2 / len(_CENTRES), span)
        far = max(abs(mean.lower - centre), abs(mean.upper - centre))
        near = 0.0 if mean.lower <= centre <= mean.upper else min(abs(mean.lower - centre), abs(mean.upper - centre))
        ends.append(Interval(square.lower - far * far, square.upper - near * near))
    return Interval(max(e.lower for e in ends), min(e.upper for e in ends))


def _mean_square(g: GroupScores, centre: float, alpha: float, span: Span) -> Interval:
    """Of E(x − centre)². The squares' own squares are bounded from the distribution; evidence falls as they grow: it
    stays exact."""
    mean = g.score.mean_square - 2 * centre * g.score.mean + centre * centre
    top = max(centre - span.low, span.high - centre) ** 2
    return mean_sequence(Sample(g.score.n, mean, g.most_fourth_power(centre) - mean * mean, 0.0, top), alpha)


def _over(lower: float, least: float, most: float) -> float:
    """The least quotient of a numerator from ``lower`` on and a deviation in [``least``, ``most``]."""
    scale = most if lower >= 0 else least
    return lower / scale if scale > 0 else (-inf if lower < 0 else inf if lower > 0 else 0.0)


def _answers(sequence: Sequence) -> Answers:
    return Answers(lambda level: sequence(1 - level), lambda lower, upper: _evidence(sequence, lower, upper))


_MOST = 64.0


def _evidence(sequence: Sequence, lower: float, upper: float) -> float:
    """Log e-value against the bounds: of the smallest alpha p at which the sequence lies outside them, ½ p^(−½) (Vovk &
    Wang 2021)."""

    def outside(aim: float) -> bool:
        interval = sequence(exp(-aim))
        return interval.lower > upper or interval.upper < lower

    if not outside(2 * log(2)):
        return -inf
    excluded, kept = 2 * log(2), _MOST
    while kept - excluded > 2.0:
        middle = (excluded + kept) / 2
        excluded, kept = (middle, kept) if outside(middle) else (excluded, middle)
    return excluded / 2 - log(2)

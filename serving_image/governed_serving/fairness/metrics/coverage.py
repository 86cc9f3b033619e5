"""Whether prediction sets or intervals hold the truth as often as was promised, on labelled rows that were served.

Each rate has an exact confidence sequence (:func:`binomial_sequence`); half the level is for all rows, the other half
is shared among attributes and, by the order in which they were enrolled, their groups: all intervals hold together, at
all looks, of the rows that have labels.

What is promised is a chance over calibration rows and the new row. Of one calibration set of n rows, and as many rows
served as one likes, the share that is covered follows a law at or above Beta(n + 1 − l, l), l = ⌊(n + 1)(1 − promise)⌋
(Vovk 2012; ties only raise it): about √(c(1 − c)/n) beside the promise, below it every other time. So where n is known
Fail needs an interval below what that law leaves, each with half of the part of the level: were the rows like the
calibration rows, any Fail is told with a chance of 1 − confidenceLevel at most. Of several thresholds (by group) all
rows together have at least the least of their laws.

Labels that were corrected count in figures and intervals; Pass and Fail need that the first labels show the same, as in
:mod:`.corrections`: a correction that was chosen after a look takes one away and makes none.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

from governed_api.evidence import ConformalEvaluation
from governed_api.governance import Bias
from governed_api.verdict import CoverageFinding, SetCoverage, VerdictWord
from governed_serving.fairness.counts.coverage import ALL
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.inference.special import beta_quantile
from governed_serving.fairness.metrics.roster import Roster, place_share

__all__ = ["Calibration", "calibration_of", "set_coverage"]

Calibration = Mapping[str, Mapping[str, Sequence[int]]]
"""Attribute ("": all rows) → group → calibration rows of the thresholds that its rows have; of whom is promised."""


def calibration_of(told: ConformalEvaluation | None) -> Calibration:
    """Whom the artefact's evaluation says that it promises to: everybody, or each group that has a threshold of its
    own."""
    if told is None:
        return {}
    if not told.group_conditional:
        return {"": {ALL: [told.overall.calibration_rows]}}
    every = [group.calibration_rows for groups in told.groups.values() for group in groups]
    own = {
        name: {group.group: [group.calibration_rows] for group in groups if group.own}
        for name, groups in told.groups.items()
    }
    return {"": {ALL: sorted(set(every))}, **own}


def set_coverage(
    bias: Bias,
    promised: float,
    counts: Mapping[str, Mapping[str, Sequence[int]]],
    roster: Roster,
    calibration: Calibration | None = None,
    first: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> SetCoverage:
    """``counts``: attribute ("": all rows) → group → (covered, rows); of groups those that are enrolled.
    ``calibration`` None: of an artefact that doesn't say. ``first``: as if no label had been corrected; None: none
    was."""
    told = _shown(bias, promised, counts, roster, calibration)
    return told if first is None else _withheld(told, _shown(bias, promised, first, roster, calibration))


def _withheld(told: SetCoverage, before: SetCoverage) -> SetCoverage:
    """Unknown where the first labels don't show what the corrected ones do."""

    def held(finding: CoverageFinding, was: CoverageFinding | None) -> CoverageFinding:
        agreed = was is not None and was.verdict == finding.verdict
        return finding if agreed else finding.model_copy(update={"verdict": "Unknown"})

    groups = {
        attribute: [
            held(finding, next((was for was in before.groups.get(attribute, []) if was.group == finding.group), None))
            for finding in listed
        ]
        for attribute, listed in told.groups.items()
    }
    return told.model_copy(update={"overall": held(told.overall, before.overall), "groups": groups})


def _shown(
    bias: Bias,
    promised: float,
    counts: Mapping[str, Mapping[str, Sequence[int]]],
    roster: Roster,
    calibration: Calibration | None,
) -> SetCoverage:
    calibrated = calibration or {}
    alpha = (1 - bias.confidence_level) / 2
    part = alpha / len(bias.protected_attributes)
    groups = {}
    for attribute in bias.protected_attributes:
        by_group = counts.get(attribute.name, {})
        listed = [
            _finding(
                group,
                by_group[group],
                promised,
                part * place_share(place),
                calibrated.get(attribute.name, {}).get(group, ()),
            )
            for place, group in enumerate(roster.order(attribute.name), 1)
            if group in by_group
        ]
        if listed:
            groups[attribute.name] = listed
    overall = counts.get("", {}).get(ALL, (0, 0))
    everybody = _finding(ALL, overall, promised, alpha, calibrated.get("", {}).get(ALL, ()))
    return SetCoverage(promised=promised, overall=everybody, groups=groups)


def _finding(
    group: str, counted: Sequence[int], promised: float, alpha: float, calibration: Sequence[int] = ()
) -> CoverageFinding:
    covered, rows = counted
    least = _least(promised, calibration, alpha / 2)
    ends = binomial_sequence(covered, rows, 1 - alpha / (1 if least is None else 2))
    bound = promised if least is None else least
    word: VerdictWord = "Fail" if ends.upper < bound else "Pass" if ends.lower >= promised else "Unknown"
    return CoverageFinding(
        group=group,
        rows=rows,
        covered=covered,
        coverage=covered / rows if rows else None,
        lower=ends.lower,
        upper=ends.upper,
        verdict=word,
        least=least,
    )


def _least(promised: float, calibration: Sequence[int], alpha: float) -> float | None:
    """Below what share of all rows served a calibration of so many rows leads with a chance of ``alpha``; None: it
    isn't known."""
    beyond = {n: floor((n + 1) * (1 - Fraction(str(promised)))) for n in calibration}
    laws = [(n + 1 - short, short) for n, short in beyond.items() if short]
    return min((beta_quantile(alpha / len(laws), a, b) for a, b in laws), default=None)

"""Whether prediction sets or intervals hold the truth as often as was promised, on labelled rows that were served.

Each rate has an exact confidence sequence (:func:`binomial_sequence`); half the level is for all rows, the other half
is shared among attributes and, by the order in which they were enrolled, their groups: all intervals hold together, at
all looks, of the rows that have labels.
"""

from collections.abc import Mapping, Sequence

from governed_api.governance import Bias
from governed_api.verdict import CoverageFinding, SetCoverage, VerdictWord
from governed_serving.fairness.counts.coverage import ALL
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.metrics.roster import Roster, place_share

__all__ = ["set_coverage"]


def set_coverage(
    bias: Bias, promised: float, counts: Mapping[str, Mapping[str, Sequence[int]]], roster: Roster
) -> SetCoverage:
    """``counts``: attribute ("": all rows) → group → (covered, rows); of groups those that are enrolled."""
    alpha = (1 - bias.confidence_level) / 2
    part = alpha / len(bias.protected_attributes)
    groups = {}
    for attribute in bias.protected_attributes:
        known = counts.get(attribute.name, {})
        listed = [
            _finding(group, known[group], promised, part * place_share(place))
            for place, group in enumerate(roster.order(attribute.name), 1)
            if group in known
        ]
        if listed:
            groups[attribute.name] = listed
    overall = counts.get("", {}).get(ALL, (0, 0))
    return SetCoverage(promised=promised, overall=_finding(ALL, overall, promised, alpha), groups=groups)


def _finding(group: str, counted: Sequence[int], promised: float, alpha: float) -> CoverageFinding:
    covered, rows = counted
    ends = binomial_sequence(covered, rows, 1 - alpha)
    word: VerdictWord = "Fail" if ends.upper < promised else "Pass" if ends.lower >= promised else "Unknown"
    return CoverageFinding(
        group=group,
        rows=rows,
        covered=covered,
        coverage=covered / rows if rows else None,
        lower=ends.lower,
        upper=ends.upper,
        verdict=word,
    )

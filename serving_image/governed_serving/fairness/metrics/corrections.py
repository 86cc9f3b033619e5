"""What corrected labels do to a verdict that holds at any time.

Counts, values and intervals take the corrected labels alone. Pass and Fail need more: that the first labels show the
same. Why: let F be the chance law of first labels. Their counts, look after look, have confidence sequences that all
hold together with a chance of 1 − α or more (:mod:`.verdict`), whoever looks how often; nobody can change them after a
look. A Pass or Fail that is told lies within what they show, so that some false one is ever told with a chance of α at
most, whatever was corrected, by whom, how often and after which looks. (Without that rule it isn't so: the labels that
a look uses would be chosen by earlier looks, of which no martingale remains; each row corrected after a look may move a
count by one.) And the corrected labels have to show it too: where they are the right ones, and were chosen without
regard to verdicts, theirs are confidence sequences of the right rates.

So corrections can take a Pass or Fail away, never make one. Where many labels were wrong in one direction, it stays
Unknown until the rows leave the window or a revision begins; the verdict says which it would be.
"""

from collections.abc import Sequence
from typing import NamedTuple

from governed_api.verdict import LabelCorrections, MetricFinding
from governed_serving.fairness.counts.cells import Cells

__all__ = ["Corrected", "corrections_of", "withheld"]


class Corrected(NamedTuple):
    """``first``: the window's counts as if no label had been corrected; since the revision began, rows whose label was
    replaced (each time), and rows that have a label."""

    first: Cells
    rows: int
    labelled: int


def withheld(metrics: Sequence[MetricFinding], before: Sequence[MetricFinding]) -> list[MetricFinding]:
    """``metrics`` by the corrected labels, Unknown where they aren't what ``before``, by the first ones, shows."""
    first = {(one.attribute, one.group, one.name): one for one in before}
    held_back = []
    for metric in metrics:
        was = first.get((metric.attribute, metric.group, metric.name))
        word = was.verdict if was is not None and was.judged else "Unknown"
        told: dict[str, object] = {"discovered": metric.discovered and was is not None and was.discovered}
        if metric.verdict not in ("Unknown", word):
            why = f"{metric.verdict} by corrected labels, {word} by the first ones: corrections decide nothing"
            told |= {"verdict": "Unknown", "message": why}
            told |= {"within_margin": False} if metric.within_margin else {}
        elif metric.within_margin is False and was is not None and was.within_margin and metric.verdict == "Pass":
            told |= {"within_margin": True}
        held_back.append(metric.model_copy(update=told))
    return held_back


def corrections_of(
    corrected: Corrected, metrics: Sequence[MetricFinding], told: Sequence[MetricFinding]
) -> LabelCorrections:
    """What the verdict says of them; ``told``: :func:`withheld` of ``metrics``."""
    return LabelCorrections(
        corrected=corrected.rows,
        labelled=corrected.labelled,
        withheld=sum(a.verdict != b.verdict for a, b in zip(metrics, told, strict=True)),
    )

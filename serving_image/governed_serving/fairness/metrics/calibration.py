"""Calibration curves of groups: how often the favourable outcome came true, by what was predicted, with bands.

In each bin of [0, 1] the share of favourable labels has an exact confidence sequence; the level is shared among
attributes, groups and bins, so that all bands hold together, at all looks. A band is about the rows that have labels.
"""

import numpy as np

from governed_api.governance import Bias
from governed_api.verdict import CalibrationBin, CalibrationCurve
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.scores import BINS, GroupScores
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.metrics.roster import SMALLEST_GROUP, Panel

__all__ = ["MOST_CURVES", "calibration_curve", "calibration_curves"]

MOST_CURVES = 8
"""Groups of an attribute that have a curve: those that were enrolled first."""


def calibration_curves(
    bias: Bias, cells: Cells, panels: dict[str, Panel], alpha: float
) -> dict[str, list[CalibrationCurve]]:
    """Attribute → a curve per group that is judged; of probabilities alone, and where scores are counted."""
    if cells.scores is None or bias.favorable_outcome.label is None:
        return {}
    by_attribute = {}
    for attribute in bias.protected_attributes:
        panel, part = panels[attribute.name], alpha / len(bias.protected_attributes)
        groups = panel.judged.groups[:MOST_CURVES]
        curves = [
            calibration_curve(group, cells.scores.of((attribute.name,), [group]), part * panel.share(group))
            for group in groups
        ]
        if any(curve.bins for curve in curves):
            by_attribute[attribute.name] = curves
    return by_attribute


def calibration_curve(group: str, own: GroupScores, alpha: float) -> CalibrationCurve:
    """Of the bins with at least ``SMALLEST_GROUP`` labelled rows; all bands together miss with chance ≤ ``alpha``."""
    edges, bins = np.linspace(0, 1, BINS + 1), []
    for place, (rows, favorable) in enumerate(own.bins.tolist()):
        if rows < SMALLEST_GROUP:
            continue
        band = binomial_sequence(favorable, rows, 1 - alpha / BINS)
        bins.append(
            CalibrationBin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                rows=rows,
                score=own.mean_in(place),
                rate=favorable / rows,
                lower=band.lower,
                upper=band.upper,
            )
        )
    return CalibrationCurve(group=group, bins=bins)

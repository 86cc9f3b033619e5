"""Do explanations differ between groups? Mean attribution of a feature per group, against the others, with corrected p-values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.hypotheses import holm
from governed_serving.fairness.inference.special import normal_tail

__all__ = ["AttributionGap", "attribution_gaps"]


@dataclass(frozen=True)
class AttributionGap:
    """``difference`` of the mean attribution to ``feature``: rows of ``group`` minus all others; ``p_value`` after Holm."""

    feature: str
    group: str
    difference: float
    p_value: float


def attribution_gaps(attributions: NDArray[Any], features: list[str], groups: NDArray[Any]) -> list[AttributionGap]:
    """``attributions``: (rows, features); ``groups``: (rows,). Welch's z per feature and group, smallest p first.

    Groups (or rests) of fewer than ten rows are left out.
    """
    found: list[tuple[str, str, float, float]] = []
    for group in np.unique(groups).tolist():
        own = groups == group
        one, rest = attributions[own], attributions[~own]
        if min(len(one), len(rest)) < 10:
            continue
        gap = one.mean(0) - rest.mean(0)
        error = np.sqrt(one.var(0, ddof=1) / len(one) + rest.var(0, ddof=1) / len(rest))
        for feature, g, e in zip(features, gap.tolist(), error.tolist(), strict=True):
            p = 2 * normal_tail(abs(g) / e) if e > 0 else float(g == 0)
            found.append((feature, str(group), g, p))
    adjusted = holm([p for *_, p in found])
    gaps = [AttributionGap(f, g, d, float(p)) for (f, g, d, _), p in zip(found, adjusted, strict=True)]
    return sorted(gaps, key=lambda gap: gap.p_value)

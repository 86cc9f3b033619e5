"""Quantiles for intervals, without scipy."""

import math
from statistics import NormalDist

__all__ = ["student_quantile"]

_NORMAL = NormalDist()


def student_quantile(confidence: float, freedom: float) -> float:
    """Two-sided Student t quantile: half-width of the interval at ``confidence`` in standard errors.

    Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5), within 0.3 % for ``freedom`` ≥ 5; infinite freedom gives the normal's.
    """
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    if math.isinf(freedom):
        return z
    n = max(freedom, 3.0)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))

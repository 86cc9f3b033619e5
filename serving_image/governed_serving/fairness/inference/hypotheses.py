"""Tests for closed windows (one look). Live monitoring uses :mod:`.contrasts` and
:mod:`.bounded`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.special import chi_square_tail

__all__ = ["TestResult", "chi_square"]

Table = NDArray[np.integer | np.floating] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class TestResult:
    """``statistic`` and two-sided ``p_value``."""

    __test__ = False  # not a test case, whatever its name makes pytest think

    statistic: float
    p_value: float


def chi_square(table: Table) -> TestResult:
    """Pearson's χ² of independence, without continuity correction. ``table``: counts (groups, outcomes); empty margins
    are left out."""
    counts = np.asarray(table, np.float64)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    if min(counts.shape) < 2:
        return TestResult(0.0, 1.0)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return TestResult(statistic, chi_square_tail(statistic, (counts.shape[0] - 1) * (counts.shape[1] - 1)))

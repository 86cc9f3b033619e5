"""Tests for closed windows (one look), and corrections for many of them. Live monitoring uses :mod:`.sequences` and :mod:`.betting`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.special import chi_square_tail, log_choose

__all__ = ["TestResult", "benjamini_hochberg", "chi_square", "fisher_exact", "holm", "permutation_test"]

Table = NDArray[Any] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class TestResult:
    """``statistic`` and two-sided ``p_value``."""

    __test__ = False  # not a test case, whatever its name makes pytest think

    statistic: float
    p_value: float


def chi_square(table: Table) -> TestResult:
    """Pearson's χ² of independence, without continuity correction. ``table``: counts (groups, outcomes); empty margins are left out."""
    counts = np.asarray(table, np.float64)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    if min(counts.shape) < 2:
        return TestResult(0.0, 1.0)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return TestResult(statistic, chi_square_tail(statistic, (counts.shape[0] - 1) * (counts.shape[1] - 1)))


def fisher_exact(table: Table) -> TestResult:
    """Fisher's exact test of a 2 × 2 table: odds ratio, and the probability of all tables no likelier than this one."""
    (a, b), (c, d) = ((int(x) for x in row) for row in np.asarray(table).tolist())
    row, column, total = a + b, a + c, a + b + c + d
    odds = a * d / (b * c) if b * c else float("inf" if a * d else "nan")
    if min(row, column) == 0 or total in (row, column):
        return TestResult(odds, 1.0)
    first, last = max(0, column - (c + d)), min(row, column)
    whole = log_choose(total, column)
    logs = np.array([log_choose(row, k) + log_choose(total - row, column - k) - whole for k in range(first, last + 1)])
    seen = logs[a - first]
    # Equal probabilities may differ in the last bits: scipy's relative slack of 1e-7.
    return TestResult(odds, min(1.0, float(np.exp(logs[logs <= seen + 1e-7]).sum())))


def permutation_test(k1: int, n1: int, k0: int, n0: int, *, draws: int = 9999, seed: int = 0) -> TestResult:
    """Difference of two rates when group labels are shuffled: draws come from the hypergeometric law of the counts directly.

    p = (1 + draws at least as extreme) / (1 + draws) (Phipson & Smyth 2010).
    """
    difference = k1 / n1 - k0 / n0
    rng = np.random.default_rng(seed)
    first = rng.hypergeometric(k1 + k0, n1 + n0 - k1 - k0, n1, draws)
    differences = first / n1 - (k1 + k0 - first) / n0
    extreme = int((np.abs(differences) >= abs(difference) - 1e-12).sum())
    return TestResult(difference, (1 + extreme) / (1 + draws))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values, family-wise error (Holm 1979); shape and order as given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values, false discovery rate (Benjamini & Hochberg 1995); shape and order as given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    out = np.empty_like(p)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return out

"""Drift of one column: how far recent values are from the reference. Histograms and counts merge like everything else
here.

**Alarms over time.** A look raises an alarm only on an e-value E of ``PROMISED_LOOKS`` ÷ ``ALARM_CHANCE`` or more
(times the columns, where each has its own). Without drift E has a mean of at most 1, training's own sampling included;
so in any ``PROMISED_LOOKS`` looks the chance of a false alarm is at most ``ALARM_CHANCE``, and the first comes on
average after half of that quotient or more. It is a sum over looks: that all of them share one sample of training, and
are wrong together when it is an unlucky one, changes nothing.
"""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.contrasts import log_gamma

__all__ = [
    "ALARM_CHANCE",
    "PROMISED_LOOKS",
    "alarm_threshold",
    "kolmogorov_tail",
    "log_dirichlet_multinomial",
    "log_evidence",
    "population_stability",
    "quantile_edges",
]

Floats = NDArray[np.float64]

PROMISED_LOOKS = 10_000
ALARM_CHANCE = 0.05


def alarm_threshold(columns: int = 1) -> float:
    """Log evidence from which on one of ``columns`` that are looked at together may raise an alarm."""
    return log(PROMISED_LOOKS * max(columns, 1) / ALARM_CHANCE)


def log_evidence(expected: NDArray[np.integer | np.floating], found: NDArray[np.integer | np.floating]) -> Floats:
    """Log e-value against "both histograms are of one distribution", exact at every sample size; counts (…, places) →
    (…).

    The product of Dirichlet(½) mixtures of both over the likelihood of both under the one distribution that fits them
    best (universal inference, Wasserman, Ramdas & Balakrishnan 2020): below Q/L under the true one, whose mean is 1.
    Where the borders are quantiles of ``expected`` it is smaller still: the places' probabilities then scatter as
    Dirichlet's do.
    """
    c, d = (np.asarray(h, np.float64) for h in (expected, found))
    together = c + d
    total = together.sum(-1, keepdims=True)
    best = (together * np.log(np.where(together > 0, together, 1.0) / np.maximum(total, 1.0))).sum(-1)
    half = np.full(c.shape[-1], 0.5)
    evidence: Floats = log_dirichlet_multinomial(half, c) + log_dirichlet_multinomial(half, d) - best
    return evidence


def log_dirichlet_multinomial(parts: Floats, counts: NDArray[np.integer | np.floating]) -> Floats:
    """Log probability of a sequence with these ``counts`` where the shares have Dirichlet's law with ``parts`` (½ or
    more), (…, places) → (…)."""
    total = parts.sum(-1)
    places = (log_gamma(parts + counts) - log_gamma(parts)).sum(-1)
    evidence: Floats = places + log_gamma(total) - log_gamma(total + np.sum(counts, -1))
    return evidence


def quantile_edges(reference: NDArray[np.integer | np.floating], bins: int = 10) -> Floats:
    """Inner borders that cut ``reference`` into about equal parts; fewer where values repeat."""
    inner = np.quantile(np.asarray(reference, np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(inner)


def population_stability(
    expected: NDArray[np.integer | np.floating], found: NDArray[np.integer | np.floating]
) -> float:
    """PSI of two histograms over the same bins (counts): Σ (q − p) log(q/p), half a case added to every bin.

    Common reading: below .1 stable, above .25 shifted (Siddiqi 2006).
    """
    p, q = (np.asarray(h, np.float64) + 0.5 for h in (expected, found))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_tail(x: float) -> float:
    """P(K > x) of Kolmogorov's law."""
    if x < 0.2:
        return 1.0
    total = 2 * sum((-1) ** (k - 1) * exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(max(total, 0.0), 1.0))

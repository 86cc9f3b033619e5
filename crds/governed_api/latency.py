"""Latencies as counts per bucket: what replicas report adds up exactly, and the median comes from the sum.

Four geometric steps within each bucket of the server's Prometheus histogram: a value is known to within 26 % at worst,
and interpolation inside the bucket brings the median to a few per cent. The bounds are part of the contract: other
bounds would need a field of another name.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, zip_longest

STEPS = 4
"""Buckets per Prometheus bucket."""
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds as Prometheus sees them."""


def _divided(bounds: Sequence[float]) -> Iterable[float]:
    yield bounds[0]
    for low, high in pairwise(bounds):
        yield from (low * (high / low) ** (k / STEPS) for k in range(1, STEPS))
        yield high


BOUNDS = tuple(_divided(SECONDS))
"""Upper bounds in seconds, the last bucket's (above all) left out."""


def added(counts: Iterable[Sequence[int]]) -> list[int]:
    """Sum over replicas; each may be shorter than the others."""
    return [sum(column) for column in zip_longest(*counts, fillvalue=0)]


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds below which ``share`` of the requests stayed, interpolated within its bucket; None without requests."""
    total = sum(counts)
    if not total:
        return None
    wanted, below = min(max(share, 0.0), 1.0) * total, 0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            low = BOUNDS[place - 1] if place else 0.0
            high = BOUNDS[place] if place < len(BOUNDS) else low
            return low + (high - low) * (wanted - below) / count
        below += count
    return BOUNDS[-1]


def median_interval(counts: Sequence[int]) -> tuple[float, float] | None:
    """Distribution-free 95 % interval of the median, from the ranks n/2 ± 0.98 √n (Conover, Practical Nonparametric
    Statistics, 3.2).

    None below six requests, for which there is no such interval.
    """
    total = sum(counts)
    if total < 6:
        return None
    reach = 0.98 / math.sqrt(total)
    low, high = quantile(counts, 0.5 - reach), quantile(counts, 0.5 + reach)
    assert low is not None
    assert high is not None
    return low, high

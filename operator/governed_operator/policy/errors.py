"""Evidence that a canary fails more requests than it may: functions of counts, valid however often one looks. Pure.

Both are e-values: under the null hypothesis the chance that one ever reaches 1/level is at most level (Ville 1939;
Ramdas, Grünwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference"). Requests are taken
as independent given the revision that answered.
"""

import math
from dataclasses import dataclass

LEVEL = 0.05
"""Chance that a canary which keeps its budget, or fails no more than the stable revision, is ever rejected."""
MIN_FAILURES = 3
"""Fewer never reject: one client that repeats a request which can't be answered makes one or two."""
MIN_REQUESTS = 30
"""Answers before a step ends after its interval, and of the stable revision before it is compared with: 30 without a
failure leave less than 10 % at 95 % confidence (rule of three, Hanley and Lippman-Hand 1983)."""
ODDS = tuple(10 ** (k / 16) for k in range(1, 17))
"""Alternatives to the budget: its odds times up to ten."""


@dataclass(frozen=True)
class Failures:
    """Failed requests of all."""

    failed: int
    requests: int

    @property
    def share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


def shown_worse(canary: Failures, stable: Failures, budget: float) -> bool:
    """The canary's share of failures is above ``budget`` beyond doubt, and above the stable revision's, where that has
    MIN_REQUESTS to compare with: requests that no revision can answer are not the canary's fault."""
    if canary.failed < MIN_FAILURES or evidence_above(canary, budget) < math.log(1 / LEVEL):
        return False
    return stable.requests < MIN_REQUESTS or evidence_worse(canary, stable) >= math.log(1 / LEVEL)


def evidence_above(seen: Failures, budget: float) -> float:
    """Logarithm of the e-value against "at most ``budget``, in [0, 1], of the requests fail": the mean likelihood ratio
    over ODDS. Each ratio is a supermartingale under every share up to the budget (Wald 1945), so their mean is."""
    if budget >= 1:
        return -math.inf
    if budget <= 0:
        return math.inf if seen.failed else 0.0
    # a share whose odds are t times the budget's is b · t / (1 + b (t − 1)): it and its complement, over the budget's
    ratios = [seen.failed * math.log(t) - seen.requests * math.log1p(budget * (t - 1)) for t in ODDS]
    top = max(ratios)
    return top + math.log(sum(math.exp(r - top) for r in ratios) / len(ratios))


def evidence_worse(canary: Failures, stable: Failures) -> float:
    """Logarithm of the e-value against "the canary fails no more often than the stable revision": the likelihood of
    each under a Beta(½, ½) mixture over the greatest that the null hypothesis allows (universal inference: Wasserman,
    Ramdas, Balakrishnan 2020, PNAS 117(29), section 8)."""
    both = Failures(canary.failed + stable.failed, canary.requests + stable.requests)
    apart = _greatest(canary) + _greatest(stable)
    null = _greatest(both) if canary.share > stable.share else apart
    return _mixed(canary) + _mixed(stable) - null


def _mixed(seen: Failures) -> float:
    """Logarithm of B(failed + ½, good + ½) / B(½, ½)."""
    good = seen.requests - seen.failed
    top = math.lgamma(seen.failed + 0.5) + math.lgamma(good + 0.5)
    return top - math.lgamma(seen.requests + 1) - math.log(math.pi)


def _greatest(seen: Failures) -> float:
    """Logarithm of the likelihood at the observed share."""
    counts = (seen.failed, seen.requests - seen.failed)
    return sum(n * math.log(n / seen.requests) for n in counts if n)

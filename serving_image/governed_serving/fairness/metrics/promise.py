"""What a verdict promises over all its looks, and the part of it that each beginning of a window may spend.

**Whole window**: one confidence sequence per comparison, begun once; the chance of any false Pass or Fail, ever, is at
most 1 − level.

**Sliding window**: whenever the window begins anew, so does a confidence sequence over the rows from there on (Howard &
Ramdas 2021). None may be wrong with more than α' = (1 − level) / m, where m is how many beginnings there are while
``PROMISED_WINDOWS`` windows of samples pass, those included that are open when they start to. So, from whatever moment
on and however often one looks,

- the chance of any false Pass or Fail while that many windows pass is at most 1 − level (union bound);
- the first one comes, on average, after PROMISED_WINDOWS ÷ (1 − level) windows or more: the sum of the e-processes
begun so far is an
  e-detector, and exceeds 1/α' whenever one of them does (Shin, Ramdas & Rinaldo, NEJSDS 2024).

Nothing is carried from one beginning to the next, so that a verdict stays a function of the window's counts, and a Fail
ends when the rows that showed it have left. It is a promise about rates that stay what they are while a window passes,
and about rows whose arrival doesn't depend on decisions to come.
"""

from typing import NamedTuple

from governed_api.governance import Bias
from governed_serving.fairness.counts.windows import STARTS

__all__ = ["PROMISED_WINDOWS", "Promise", "alpha_of", "promise_of"]

PROMISED_WINDOWS = 1000


class Promise(NamedTuple):
    """``chance`` of any false Pass or Fail while ``within_rows`` predictions pass (None: ever); rows before one, on
    average at least."""

    chance: float
    within_rows: int | None = None
    average_rows: int | None = None


def promise_of(bias: Bias) -> Promise:
    """Of all verdicts by these rules."""
    chance = round(1 - bias.confidence_level, 12)
    if bias.window.type == "whole":
        return Promise(chance)
    within = PROMISED_WINDOWS * bias.window.samples
    return Promise(chance, within, int(within / chance))


def alpha_of(bias: Bias) -> float:
    """Chance of a false verdict that one beginning of the window may take, all comparisons together."""
    chance = 1 - bias.confidence_level
    if bias.window.type == "whole":
        return chance
    return chance / (STARTS * (PROMISED_WINDOWS + 1) + 1)

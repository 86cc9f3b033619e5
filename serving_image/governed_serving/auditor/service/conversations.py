"""Fresh conversations for counterfactuals: a bounded uniform sample of the prompts in which words that name a group can
be swapped."""

import random
from typing import NamedTuple

import msgspec

from governed_serving.completions.generated import PROMPT, Asked, put_again, swapped
from governed_serving.fairness.monitoring.counterfactuals import swap_words
from governed_serving.journal import strings
from governed_serving.records import PredictionFrame

__all__ = ["MAX_CHARACTERS", "Conversations", "Twins", "again"]

MAX_CHARACTERS = 32_768
"""Of a prompt that is sampled."""


class Twins(NamedTuple):
    """A request as it was put, and with its words swapped."""

    asked: Asked
    other: Asked


def again(frame: PredictionFrame) -> Asked | None:
    """The request of a completion, to be replayed; None when it can't be: too long, several prompts, parameters that
    aren't JSON."""
    try:
        return put_again(frame) if len(strings(frame.features[PROMPT])[0]) <= MAX_CHARACTERS else None
    except (KeyError, ValueError, TypeError, msgspec.DecodeError):
        return None


class Conversations:
    """At most ``most`` of the conversations since they were last taken (reservoir sampling, Vitter's algorithm R)."""

    def __init__(self, most: int = 16, seed: int = 0):
        self.most = most
        self.seen = 0
        self.passed_over = 0
        """Prompts that can't be replayed: too long, several at once, or with parameters that aren't JSON."""
        self._kept: list[Twins] = []
        self._random = random.Random(seed)

    def add(self, frame: PredictionFrame) -> None:
        """Offer a completion's request."""
        twins = self._twins(frame)
        if twins is None:
            return
        self.seen += 1
        if len(self._kept) < self.most:
            self._kept.append(twins)
        elif (place := self._random.randrange(self.seen)) < self.most:
            self._kept[place] = twins

    def take(self) -> list[Twins]:
        """The sample; begins anew."""
        kept, self._kept, self.seen = self._kept, [], 0
        return kept

    def _twins(self, frame: PredictionFrame) -> Twins | None:
        asked = again(frame)
        if asked is None:
            self.passed_over += 1
            return None
        other = swapped(asked, swap_words)
        return Twins(asked, other) if other is not None else None

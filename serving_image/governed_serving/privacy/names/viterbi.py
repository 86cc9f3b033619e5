"""The best path through a linear-chain CRF (Lafferty, McCallum, Pereira 2001), decoded exactly (Viterbi 1967).

Changing the label of one character changes two transitions, by at most twice their range in all. So a label whose
emission is further than that below the best one of its character is on no best path: mostly one label is left, and
what is undecided lies in short stretches.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_path"]


def best_path(emissions: NDArray[np.float32], transitions: NDArray[np.float32]) -> list[int]:
    """The labels of ``emissions`` (characters, labels) under ``transitions`` (from, to); no start or end scores."""
    if not len(emissions):
        return []
    bound = 2 * (float(transitions.max()) - float(transitions.min())) + 1e-4
    likely = emissions >= emissions.max(axis=1, keepdims=True) - bound
    best: list[int] = emissions.argmax(axis=1).tolist()
    open_ = np.flatnonzero(likely.sum(axis=1) > 1).tolist()
    done = -1
    for place in open_:
        if place <= done:
            continue
        first = last = place
        while last + 1 < len(emissions) and likely[last + 1].sum() > 1:
            last += 1
        low, high = max(first - 1, 0), min(last + 1, len(emissions) - 1)
        choices = [np.flatnonzero(likely[k]).tolist() for k in range(low, high + 1)]
        best[low : high + 1] = _stretch(emissions[low : high + 1], transitions, choices)
        done = last
    return best


def _stretch(
    emissions: NDArray[np.float32], transitions: NDArray[np.float32], choices: Sequence[Sequence[int]]
) -> list[int]:
    """Among ``choices`` for each character."""
    scores = {label: float(emissions[0, label]) for label in choices[0]}
    back: list[dict[int, int]] = []
    for place in range(1, len(choices)):
        came: dict[int, int] = {}
        following: dict[int, float] = {}
        for label in choices[place]:
            came[label], score = max(
                ((one, scores[one] + float(transitions[one, label])) for one in scores), key=_score
            )
            following[label] = score + float(emissions[place, label])
        back.append(came)
        scores = following
    path = [max(scores.items(), key=_score)[0]]
    for came in reversed(back):
        path.append(came[path[-1]])
    return path[::-1]


def _score(reached: tuple[int, float]) -> float:
    return reached[1]

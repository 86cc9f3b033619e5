"""Counterfactual flips: the same rows with the protected attribute swapped; how often does the decision change?

For text the words that name a group are swapped, in Chinese and English. A flip shows direct dependence alone: proxies
stay as they are.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.intervals import Interval, clopper_pearson

__all__ = ["GENDER_WORDS", "Flips", "attribute_flips", "swap_words", "text_flips"]

Columns = Mapping[str, NDArray[np.generic]]
Decide = Callable[[dict[str, NDArray[np.generic]]], NDArray[np.bool_]]
"""Columns (rows,) → decisions (rows,)."""

G = TypeVar("G", bound=Hashable)

GENDER_WORDS: tuple[tuple[str, str], ...] = (
    ("he", "she"), ("him", "her"), ("his", "her"), ("himself", "herself"), ("man", "woman"), ("men", "women"),
    ("male", "female"), ("boy", "girl"), ("father", "mother"), ("son", "daughter"), ("husband", "wife"),
    ("brother", "sister"), ("mr", "ms"), ("他", "她"), ("先生", "女士"), ("男性", "女性"), ("男士", "女士"),
    ("男人", "女人"), ("男孩", "女孩"), ("父亲", "母亲"), ("儿子", "女儿"), ("丈夫", "妻子"), ("爸爸", "妈妈"),
    ("男", "女"),
)  # fmt: skip
"""Pairs that are swapped both ways; where a word has two partners (her: him, his) the first one counts."""

_LETTER = r"[A-Za-z\u00c0-\u024f]"
"""Of a Latin word: beside one, a word of a pair is only a part of another."""


@dataclass(frozen=True)
class Flips:
    """``rows`` were changed, ``flipped`` of them decided otherwise; ``interval`` of the rate (exact, 95 %)."""

    rows: int
    flipped: int
    interval: Interval

    @property
    def rate(self) -> float:
        return self.flipped / self.rows if self.rows else 0.0


def attribute_flips(decide: Decide, columns: Columns, attribute: str, groups: Sequence[G]) -> dict[G, Flips]:
    """Group (a word, or a number of the column's dtype) → flips when every other row is made a member of it."""
    before = decide(dict(columns))
    return {group: _changed(decide, columns, attribute, before, group) for group in groups}


def _changed(decide: Decide, columns: Columns, attribute: str, before: NDArray[np.bool_], group: object) -> Flips:
    others = columns[attribute] != group
    if not others.any():
        return _flips(0, 0)
    rows = {name: values[others] for name, values in columns.items()}
    rows[attribute] = np.full(int(others.sum()), group, columns[attribute].dtype)
    return _flips(int(others.sum()), int((decide(rows) != before[others]).sum()))


def text_flips(decide: Decide, columns: Columns, field: str, pairs: Sequence[tuple[str, str]] = GENDER_WORDS) -> Flips:
    """Flips when the words of ``pairs`` are swapped in a text column; rows without such words are left out."""
    swapped = np.array([swap_words(str(text), pairs) for text in columns[field]], object)
    touched = swapped != columns[field]
    if not touched.any():
        return _flips(0, 0)
    rows = {name: values[touched] for name, values in columns.items()}
    before = decide(rows)
    return _flips(int(touched.sum()), int((decide({**rows, field: swapped[touched]}) != before).sum()))


def swap_words(text: str, pairs: Sequence[tuple[str, str]] = GENDER_WORDS) -> str:
    """Every word of a pair becomes the other one, all at once; English whole words keep their capitals."""
    partner: dict[str, str] = {}
    for one, two in pairs:
        partner.setdefault(one, two)
        partner.setdefault(two, one)
    words = sorted(partner, key=len, reverse=True)
    pattern = "|".join(rf"(?<!{_LETTER}){re.escape(w)}(?!{_LETTER})" if w.isascii() else re.escape(w) for w in words)

    def other(match: re.Match[str]) -> str:
        written = match.group()
        word = partner[written.lower()]
        if written.isascii() and written.isupper() and len(written) > 1:
            return word.upper()
        return word.capitalize() if written[0].isascii() and written[0].isupper() else word

    return re.sub(pattern, other, text, flags=re.IGNORECASE | re.ASCII)  # else ſ counts as s, and ı and İ as i


def _flips(rows: int, flipped: int) -> Flips:
    return Flips(rows, flipped, clopper_pearson(flipped, rows))

"""From a column to named groups: words as they are; numbers by themselves when there are few, otherwise in bands.

One rule for the trainer's audit and gates, the live verdict and the report. The bands of an attribute are those that
the manifest declares; else, of a numeric column with more than 16 values in the training data, five with about as many
training rows each. The trainer derives them once and the artefact carries them (model.json: ``bands``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.artefact import Manifest
from governed_serving.fairness.counts.cells import CodedColumn

__all__ = ["MISSING", "Grouping", "default_bands", "groupings", "number_in", "outcomes"]

Numbers = NDArray[np.bool_ | np.integer | np.floating]
"""Values of a column, or codes into its words."""
MISSING = "(missing)"
BANDS = 5
FEW = 16
"""A numeric column with at most so many values in training has a group for each."""
_WHOLE = 2.0**53


@dataclass(frozen=True)
class Grouping:
    """One axis. ``edges``: inner borders of bands, ascending; empty: every value is a group.

    A value on a border belongs to the band above it. Values and borders are compared as float32, which is what a
    served model is told of a number.
    """

    name: str
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, low: float | None = None, high: float | None = None) -> "Grouping":
        """Bands of equal width over the training range, unless that holds at most 16 whole numbers: for artefacts that
        carry no bands."""
        if low is None or high is None or (float(low).is_integer() and float(high).is_integer() and high - low < FEW):
            return cls(name)
        width = (high - low) / BANDS
        return cls(name, tuple(float(f"{low + width * i:.4g}") for i in range(1, BANDS)))

    def encode(self, values: Numbers, words: Sequence[str] | None) -> CodedColumn:
        """``values``: codes into ``words``, or numbers when ``words`` is None; shape (rows,).

        With bands, a word that is a number is taken as that number; one that is none is a group of its own.
        """
        if words is not None:
            places = values.astype(np.int32, copy=False)
            return (
                self._read(places, words) if self.edges else (places, [word or MISSING for word in words] or [MISSING])
            )
        if not self.edges:
            distinct, codes = np.unique(values, return_inverse=True)
            return codes, [_named(value) for value in distinct]
        return self._places(values), self._names()

    def _places(self, values: Numbers) -> NDArray[np.int64]:
        with np.errstate(over="ignore"):
            numbers, edges = values.astype(np.float32), np.array(self.edges).astype(np.float32)
        codes = np.searchsorted(edges, numbers, side="right")
        missing = np.isnan(numbers)
        return np.where(missing, len(self.edges) + 1, codes) if missing.any() else codes

    def _read(self, values: NDArray[np.integer], words: Sequence[str]) -> CodedColumn:
        names = self._names()
        parsed = [number_in(word) for word in words]
        numbers = np.array([np.nan if number is None else number for number in parsed], np.float64)
        places = self._places(numbers)
        for at, (word, number) in enumerate(zip(words, parsed, strict=True)):
            if number is None and word:
                places[at] = len(names)
                names.append(word)
        return places[values], names

    def _names(self) -> list[str]:
        texts = [_named(edge) for edge in self.edges]
        between = [f"[{low}, {high})" for low, high in pairwise(texts)]
        return [f"< {texts[0]}", *between, f"≥ {texts[-1]}", MISSING]


def _named(value: float | np.bool_) -> str:
    """A number, so that the same one has the same name in every type: whole ones without a decimal point."""
    if isinstance(value, np.bool_ | bool):
        return str(bool(value))
    if value != value:
        return MISSING
    return str(int(value)) if abs(value) <= _WHOLE and value == int(value) else str(value)


def number_in(word: str) -> float | None:
    """The finite number that a word is; None for any other, such as a date."""
    try:
        number = float(word)
    except ValueError:
        return None
    return number if isfinite(number) else None


def default_bands(values: NDArray[np.floating]) -> tuple[float, ...]:
    """Borders of bands with about as many rows each, taken from ``values`` (numbers, NaN: missing; shape (rows,)).

    None for at most ``FEW`` values. One that fills a band or more has it to itself, and the others share the rest.
    """
    distinct, counts = np.unique(values[~np.isnan(values)].astype(np.float64), return_counts=True)
    if len(distinct) <= FEW:
        return ()
    ends, edges, done = np.cumsum(counts), [], 0
    for bands in range(BANDS, 1, -1):
        target = done + (ends[-1] - done) / bands
        place = int(np.searchsorted(ends, target))  # of the value with which the band is full
        if place == 0 or ends[place - 1] <= done or ends[place] - target < target - ends[place - 1]:
            place += 1  # it belongs to the band
        if place >= len(distinct):
            break
        edges.append(float(distinct[place]))
        done = ends[place - 1]
    return tuple(edges)


def groupings(bias: Bias, manifest: Manifest | None) -> list[Grouping]:
    """How protected attributes, then strata, are grouped.

    By the artefact's bands, as its training was audited; of an artefact without any by those that ``bias`` declares,
    else by the training range.
    """
    declared = {a.name: a.edges for a in bias.protected_attributes}
    features = {f.name: f for f in manifest.features} if manifest else {}
    made = manifest.bands if manifest else {}

    def one(name: str) -> Grouping:
        if name in made or declared.get(name):
            return Grouping(name, tuple(made.get(name, declared.get(name, ()))))
        feature = features.get(name)
        return Grouping.of(name, feature.min, feature.max) if feature else Grouping(name)

    return [one(name) for name in dict.fromkeys([*declared, *bias.strata])]


def outcomes(
    values: Numbers,
    words: Sequence[str] | None,
    label: str | None,
    threshold: float | None,
) -> NDArray[np.bool_]:
    """Whether each output favours its person: class ``label``, or a score at or above ``threshold``; shape (rows,)."""
    if threshold is not None:
        return np.asarray(values >= threshold)
    if words is not None:
        wanted = np.array([word == label for word in words] or [False])
        return np.asarray(wanted[values])
    names, codes = np.unique(values, return_inverse=True)
    texts = [str(int(n)) if float(n).is_integer() else str(n) for n in names.tolist()]
    return np.asarray(np.array([text == label for text in texts])[codes])

"""Late labels as counts and scores take them: what a person was told of a request, read against the favourable
outcome."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

import msgspec

from governed_api.governance import FavorableOutcome
from governed_serving.artefact import class_meant
from governed_serving.completions.generated import searcher
from governed_serving.decoding import decode_json

__all__ = [
    "SHOWN_CHARACTERS",
    "PostedLabel",
    "RowTruths",
    "Scalar",
    "label_of",
    "places_of",
    "posted",
    "read_truth",
    "word_of",
]


Scalar = str | int | float | bool
SHOWN, SHOWN_CHARACTERS = 10, 60
"""Classes in a message, and characters of a text that is none."""


class PostedLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was told of a request: a value, or one per row. As JSON it is the body of a label event, validated once,
    when it was posted. ``correct``: it takes the place of the label ``was``, for ``reason``."""

    id: str = ""
    label: Scalar | list[Scalar]
    correct: bool = False
    was: Scalar | list[Scalar] | None = None
    reason: str = ""

    @property
    def values(self) -> list[Scalar]:
        """One per row."""
        return self.label if isinstance(self.label, list) else [self.label]

    @property
    def before(self) -> "PostedLabel":
        """Of a correction: the label that it replaces. Raises ValueError where it names none."""
        if self.was is None:
            raise ValueError("expected the label that is corrected, as was")
        return PostedLabel(id=self.id, label=self.was)


class RowTruths(NamedTuple):
    """Of each row of a request: whether it deserved the favourable outcome, and the number to hold its score
    against."""

    labels: list[int]
    numbers: list[float]


def posted(body: bytes) -> PostedLabel:
    """A label event's body. Raises msgspec.DecodeError."""
    return decode_json(body, type=PostedLabel)


def read_truth(outcome: FavorableOutcome, label: PostedLabel, classes: Mapping[str, int] | None = None) -> RowTruths:
    """A posted label against the favourable outcome; the number is the value itself for a threshold, else 0 or 1.
    ``classes``: of the model, which a class must be one of → places; none: they aren't known. Raises ValueError."""
    if outcome.label is not None and classes:
        for value in label.values:
            _check_class(value, classes)
    labels = label_of(outcome, label.values)
    if outcome.threshold is None:
        return RowTruths(labels, [float(truth) for truth in labels])
    return RowTruths(labels, [_number(value) for value in label.values])


def places_of(outcome: FavorableOutcome, label: PostedLabel, classes: Mapping[str, int]) -> list[int]:
    """Place of each row's class among the model's; −1: it is none, or not known."""
    if outcome.label is None:
        return [-1] * len(label.values)
    return [classes.get(word_of(value), -1) for value in label.values]


def label_of(outcome: FavorableOutcome, value: Scalar | Sequence[Scalar]) -> list[int]:
    """Late label(s) as 0/1: is it the favourable class, at or above the threshold, or (true or false, or the right
    text) with the pattern in it? Raises ValueError."""
    values = [value] if isinstance(value, str | int | float) else list(value)
    if outcome.threshold is not None:
        return [int(_number(v) >= outcome.threshold) for v in values]
    if outcome.pattern is not None:
        return _told(outcome.pattern, values)
    if any(isinstance(v, str) and not v.strip() for v in values):  # it would count as unfavourable
        raise ValueError("expected a class, found an empty text; post no label while none is known")
    return [int(word_of(v) == outcome.label) for v in values]


def _check_class(value: Scalar, classes: Mapping[str, int]) -> None:
    """What names no class would count as unfavourable. Raises ValueError."""
    word = word_of(value)
    if word in classes:
        return
    listed = ", ".join(sorted(classes)[:SHOWN]) + (f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else "")
    alike = class_meant(word, classes)
    meant = "" if alike is None else f"; did you mean {alike!r}?"
    raise ValueError(f"expected a class of the model ({listed}), found {word[:SHOWN_CHARACTERS]!r}{meant}")


def _number(value: Scalar) -> float:
    if isinstance(value, bool):  # it would count as 1 or 0, whatever the scale
        raise ValueError(f"expected a number, found {str(value).lower()}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"expected a number within float64, found one of {len(str(value))} digits") from error
    if not isfinite(number):  # the text "nan" would count as below every threshold
        raise ValueError(f"expected a finite number, found {value!r}")
    return number


def word_of(value: object) -> str:
    """A class as the model names it, whatever its type in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _told(pattern: str, values: Sequence[Scalar]) -> list[int]:
    search = searcher(pattern)
    odd = [v for v in values if not isinstance(v, bool | str)]
    if odd:
        raise ValueError(f"expected true, false or the right text, found {odd[0]!r}")
    return [int(v if isinstance(v, bool) else search(str(v))) for v in values]

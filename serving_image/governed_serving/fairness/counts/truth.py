"""Late labels as counts and scores take them: what a person was told of a request, read against the favourable outcome."""

from typing import Any

from governed_api.governance import FavorableOutcome
from governed_serving.completions.generated import searcher

__all__ = ["label_of", "truth_of", "word_of"]


def label_of(outcome: FavorableOutcome, value: Any) -> list[int]:
    """Late label(s) as 0/1: is it the favourable class, at or above the threshold, or (true or false, or the right text) with the
    pattern in it? Raises ValueError."""
    values = value if isinstance(value, list) else [value]
    if outcome.threshold is not None:
        return [int(float(v) >= outcome.threshold) for v in values]
    if outcome.pattern is not None:
        return _told(outcome.pattern, values)
    return [int(word_of(v) == outcome.label) for v in values]


def truth_of(outcome: FavorableOutcome, value: Any) -> list[float]:
    """Late label(s) as numbers to hold scores against: themselves for a threshold, 0 or 1 for a class."""
    if outcome.threshold is None:
        return [float(label) for label in label_of(outcome, value)]
    return [float(v) for v in (value if isinstance(value, list) else [value])]


def word_of(value: Any) -> str:
    """A class as the model names it, whatever its type in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _told(pattern: str, values: list[Any]) -> list[int]:
    search = searcher(pattern)
    odd = [v for v in values if not isinstance(v, bool | str)]
    if odd:
        raise ValueError(f"expected true, false or the right text, found {odd[0]!r}")
    return [int(v if isinstance(v, bool) else search(v)) for v in values]

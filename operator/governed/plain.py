"""Values of a notebook as JSON has them: numbers of numpy, days, typed parts of a spec. No library of theirs is
imported."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real

from governed_api.base import Part
from governed_api.json_types import Json, Scalar

__all__ = ["plain", "scalar"]

_DEEPEST = 64
"""Levels; no manifest has a third of them, and what holds itself has no end."""

_WHOLE = 1e21
"""Below it a whole number is an integer to ``kubectl``, however it is written."""


def plain(value: object, place: str, deepest: int = _DEEPEST) -> Json:
    """``value`` as JSON: mappings, sequences and arrays unfolded, a part of a spec as the fields that were set. Raises
    TypeError or ValueError, which begin with ``place``, for what JSON has no form for."""
    if deepest == 0:
        raise ValueError(f"{place}: expected at most {_DEEPEST} levels, found more: does it hold itself?")
    if isinstance(value, Part):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    if isinstance(value, Mapping):
        strange = next((key for key in value if not isinstance(key, str)), None)
        if strange is not None:
            raise TypeError(f"{place}: expected texts as names, found {strange!r}")
        return {key: plain(item, f"{place}.{key}" if place else key, deepest - 1) for key, item in value.items()}
    if not isinstance(value, str) and hasattr(value, "tolist"):  # an array of numpy's, of any shape
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item, f"{place}[{n}]", deepest - 1) for n, item in enumerate(value)]
    found = scalar(value, place)
    if isinstance(found, float) and not isfinite(found):
        raise ValueError(f"{place}: expected a finite number, found {found}")
    return int(found) if isinstance(found, float) and found.is_integer() and abs(found) < _WHOLE else found


def scalar(value: object, place: str) -> Scalar:
    """One value as JSON: a number of numpy's, a Decimal or a Fraction as a number, a day as ISO 8601 has it. Raises
    TypeError for what is none, ValueError for a text that UTF-8 has no form for; both begin with ``place``."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{place}: expected a text, found half of a surrogate pair in {value!r}") from None
        return str(value)
    if value is None or type(value) in (bool, int, float):
        return value  # type: ignore[return-value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return scalar(item(), place)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        return float(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{place}: expected a text, a number, a boolean or None, found {type(value).__name__}")

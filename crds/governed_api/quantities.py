"""Kubernetes quantities and the short durations of the spec."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
DURATION = r"^[1-9][0-9]*(s|m|h|d)$"

Quantity = Annotated[
    int | Annotated[str, Field(pattern=QUANTITY, max_length=32)], Field(json_schema_extra={"x-int-or-string": QUANTITY})
]
"""A Kubernetes quantity: 2, "500m", "1Gi"."""

Duration = Annotated[str, Field(pattern=DURATION, max_length=16)]
"""A whole number with a unit: 30s, 15m, 24h, 90d."""

_DECIMAL = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
_DECIMAL |= {"T": Decimal(10**12), "P": Decimal(10**15)}
_SUFFIX = _DECIMAL | {f"{u}i": Decimal(1024**n) for n, u in enumerate("KMGTP", 1)}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def quantity(text: int | str) -> Decimal:
    """Value of a quantity in its base unit (cores, bytes, count). Raises ValueError."""
    if isinstance(text, int):
        return Decimal(text)
    if not re.match(QUANTITY, text):
        raise ValueError(f"{text!r} is not a quantity: expected a number with an optional unit, such as 500m, 2 or 1Gi")
    number = text.rstrip("imkKMGTP")
    return Decimal(number) * _SUFFIX[text[len(number) :]]


def whole_bytes(text: int | str) -> int:
    """Bytes of a size such as ``64Mi``. Raises ValueError for what is no quantity, or no whole number of bytes."""
    size = quantity(text)
    if size != size.to_integral_value():
        raise ValueError(f"{text!r} is not a size: expected a whole number of bytes, such as 64Mi")
    return int(size)


def seconds(duration: str) -> int:
    """Seconds of a duration such as ``15m``. Raises ValueError."""
    if not re.match(DURATION, duration):
        raise ValueError(f"{duration!r} is not a duration: expected a whole number with s, m, h or d, such as 15m")
    return int(duration[:-1]) * _SECONDS[duration[-1]]

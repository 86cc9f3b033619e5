"""Quantities as the API server writes them, so that what we ask for and what it stores compare equal."""

from functools import lru_cache

from governed_api.quantities import quantity

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
DECIMAL = ("m", "", "k", "M", "G", "T", "P")


@lru_cache(maxsize=1024)
def canonical(text: int | str) -> str:
    """Canonical form (apimachinery resource.Quantity): no fraction, the largest suffix that divides. 0.5 → 500m, 1024Mi
    → 1Gi."""
    value = quantity(text)
    if isinstance(text, str) and text.endswith("i") and value == int(value):
        return _with_suffix(int(value), 1024, BINARY)
    thousandths = value * 1000
    whole = int(thousandths)
    return _with_suffix(whole + (thousandths > whole), 1000, DECIMAL)


def _with_suffix(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    if number == 0:
        return "0"
    power = 0
    while power + 1 < len(suffixes) and number % base == 0:
        number //= base
        power += 1
    return f"{number}{suffixes[power]}"

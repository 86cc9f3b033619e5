"""What people write into a record: bounded, and without control characters."""

import unicodedata

__all__ = ["text_fault"]

_LINES = frozenset("\n\r\t")


def text_fault(value: str, most: int, *, lines: bool = True) -> str:
    """What is wrong with a text; "" when nothing is. ``lines``: it may have several."""
    if not 0 < len(value) <= most:
        return f"expected 1 to {most} characters, found {len(value)}"
    # Not str.isprintable: joiners and marks of direction belong to Persian, Hindi or Arabic texts.
    allowed = _LINES if lines else frozenset[str]()
    bad = next((c for c in value if unicodedata.category(c) == "Cc" and c not in allowed), "")
    return f"expected text without control characters, found U+{ord(bad):04X}" if bad else ""

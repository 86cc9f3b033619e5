"""Text that came from elsewhere, made fit for a terminal or a log: nothing in it moves the cursor, clears the screen,
begins a line or turns one round."""

import unicodedata

__all__ = ["printable"]

_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of what acts instead of showing, and of halves of characters, which can't be written at all."""
_JOINERS = "\u200c\u200d"
"""Persian, Hindi and emoji need them, and they do no harm."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, keep: str = "") -> str:
    """``text`` with each acting character but those of ``keep`` as a JSON escape, so that JSON stays what it was."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c in _JOINERS or not _acts(c) else _escape(c) for c in text)


def _acts(char: str) -> bool:
    return unicodedata.category(char) in _ACTING


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return _SHORT.get(char) or "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

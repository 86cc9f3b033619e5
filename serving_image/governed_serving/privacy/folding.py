"""Folding: characters that look like ASCII become ASCII before anything is searched, and offsets lead back.

Unicode's NFKC of every single character that has ASCII letters, digits or joining punctuation in it (full-width １３８, ①,
², mathematical 𝟙), digits of any form (١, ⒈, ❶), dashes to ``-``, spaces to a space; what shows nothing of its own to
nothing: combining marks, formats (bidirectional controls among them), fillers, controls but tabs and line ends. What is
which is told by Unicode's categories, not by a list. Other characters stay as they are: NFKC may compose them, but no
recogniser of numbers looks at them.
"""  # noqa: E501

import unicodedata
from functools import cache

__all__ = ["CONTROLS", "JOINERS", "PUNCTUATION", "fold", "fold_table", "offsets"]

_MATTERS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@._+-")
_LAST = 0x20000
"""Ideographs beyond hold no ASCII."""
_VARIANTS = range(0xE0000, 0xE1000)
"""Tags and variation selectors, those that aren't assigned yet too."""
_FILLERS = (0x115F, 0x1160, 0x3164, 0xFFA0)
"""Letters that show nothing."""
_BLANK = 0x2800
_SHAPED = (0x1F150, 0x1F170, 0x1F1E6)
"""🅐, 🅰, 🇦 and the letters behind them: in a shape, without a decomposition."""
_DASHES = (0x02D7, 0x2043, 0x207B, 0x208B, 0x2212, 0x23AF, 0x2500, 0x2501, 0x2796, 0x30FC)
"""Dashes that aren't of that category: ー of Japanese telephone numbers, minus signs, lines."""

CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n\v\f\r")
"""Characters of ASCII that show nothing."""


_CATEGORIES = {code: unicodedata.category(chr(code)) for code in range(0x80, _LAST)}
_INVISIBLE = frozenset(
    (*(c for c, of in _CATEGORIES.items() if of in ("Mn", "Me", "Cf", "Cc")), *_VARIANTS, *_FILLERS, *CONTROLS)
) - {0x85}
_SPACES = frozenset((*(c for c, of in _CATEGORIES.items() if of == "Zs"), _BLANK))
_HYPHENS = frozenset((*(c for c, of in _CATEGORIES.items() if of == "Pd"), *_DASHES))

JOINERS = _SPACES | _HYPHENS | _INVISIBLE
"""Folded characters that matter only beside letters, digits and such: a dash between words needs no second look."""

PUNCTUATION = {0xFF08: "(", 0xFF09: ")", 0xFF1A: ":", 0x3002: ".", 0xFF61: "."}
"""Full-width punctuation of （010）12345678 and of IPv6, and the full stop that domains may have (RFC 3490, 3.1): too
common in prose to need a second look by itself."""


def _ascii(char: str) -> str | None:
    """What a character is searched as, where that is ASCII."""
    digit = unicodedata.digit(char, None)
    if digit is not None:  # other scripts' digits (١٢३), those in circles without a decomposition (❶), with a stop (⒈)
        return str(digit)
    normal = unicodedata.normalize("NFKC", char)
    if not _MATTERS.isdisjoint(normal):
        return normal
    first = next((first for first in _SHAPED if first <= ord(char) < first + 26), None)
    return None if first is None else chr(ord("A") + ord(char) - first)


@cache
def fold_table() -> dict[int, str]:
    """Code point → what it is searched as. About 5,000 entries."""
    table = {code: found for code in range(0x80, _LAST) if (found := _ascii(chr(code))) is not None}
    table |= dict.fromkeys(_SPACES, " ")
    table |= dict.fromkeys(_HYPHENS, "-")
    table |= dict.fromkeys(_INVISIBLE, "")
    table |= {0x1F100: "0", 0x2795: "+"}  # 🄀 has no digit by itself
    table |= PUNCTUATION
    return table


def fold(text: str) -> str:
    """``text`` as the recognisers see it."""
    return text.translate(fold_table())


def offsets(text: str) -> list[int]:
    """For every character of ``fold(text)`` the index in ``text`` it comes from, and ``len(text)`` at the end."""
    table = fold_table()
    places = [index for index, char in enumerate(text) for _ in table.get(ord(char), char)]
    return [*places, len(text)]

"""Folding: characters that look like ASCII become ASCII before anything is searched, and offsets lead back.

Unicode's NFKC of every single character that has ASCII letters, digits or joining punctuation in it (full-width １３８, ①,
², mathematical 𝟙), dashes to ``-``, spaces to a space, invisible characters and combining marks to nothing. Other
characters stay as they are: NFKC may compose them, but no recogniser looks at them.
"""  # noqa: E501

import unicodedata
from functools import cache

__all__ = ["JOINERS", "PUNCTUATION", "fold", "fold_table", "offsets"]

_MATTERS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@._+-")
_SPACES = (0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
_DASHES = (*range(0x2010, 0x2016), 0x2043, 0x2212, 0xFE58, 0xFE63, 0xFF0D)
_INVISIBLE = (
    0xAD,
    *range(0x0300, 0x0370),  # marks upon the character before them: 1̶3̶8̶
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x2060, 0x2065),
    *range(0x20D0, 0x2100),  # and around it: keycaps, 1️⃣3️⃣8️⃣
    *range(0xFE00, 0xFE10),
    0xFEFF,
    *range(0xE0000, 0xE0080),
    *range(0xE0100, 0xE01F0),
)

JOINERS = frozenset((*_SPACES, *_DASHES, *_INVISIBLE))
"""Folded characters that matter only beside letters, digits and such: a dash between words needs no second look."""

PUNCTUATION = {0xFF08: "(", 0xFF09: ")", 0xFF1A: ":"}
"""Full-width punctuation of （010）12345678 and of IPv6: too common in prose to need a second look by itself."""


@cache
def fold_table() -> dict[int, str]:
    """Code point → what it is searched as. About 2,000 entries."""
    table = {}
    for code in range(0x80, 0x20000):  # ideographs beyond hold no ASCII
        normal = unicodedata.normalize("NFKC", chr(code))
        if not _MATTERS.isdisjoint(normal):
            table[code] = normal
        elif unicodedata.category(chr(code)) == "Nd":  # other scripts' digits: ١٢٣, १२३
            table[code] = str(unicodedata.digit(chr(code)))
    table |= dict.fromkeys(_SPACES, " ")
    table |= dict.fromkeys(_DASHES, "-")
    table |= dict.fromkeys(_INVISIBLE, "")
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

"""Folding: characters that look like ASCII become ASCII before anything is searched, and offsets lead back.

Unicode's NFKC of every single character that has ASCII letters, digits or joining punctuation in it (full-width １３８, ①,
², mathematical 𝟙), digits of any form (١, ⒈, ❶), dashes to ``-``, spaces to a space; what shows nothing of its own to
nothing: combining marks, formats (bidirectional controls among them), fillers, controls but tabs and line ends. What is
which is told by Unicode's categories, not by a list. Other characters stay as they are: NFKC may compose them, but no
recogniser of numbers looks at them. Escapes (\\u0031, &#49;, &nbsp;, %31, %E5%BC%A0) are read, once; a line's end within a number is a
space, but not in a column of numbers.
"""  # noqa: E501

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from html.entities import html5

__all__ = ["CONTROLS", "JOINERS", "PUNCTUATION", "Folded", "fold", "fold_table", "offsets", "unescaped"]

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
_ENTITIES = (
    "nbsp", "ensp", "emsp", "thinsp", "shy", "zwnj", "zwj", "middot", "bull", "hyphen", "dash", "ndash", "mdash",
    "period", "commat", "lowbar", "plus", "sol", "lpar", "rpar", "colon",
)  # fmt: skip
"""Names in HTML of what stands within numbers, addresses and names of persons."""
_WRITTEN = re.compile(
    r"\\u(?P<hex>[0-9A-Fa-f]{4})|\\x(?P<short>[0-9A-Fa-f]{2})|\\(?P<control>[nrt])|\\(?P<itself>[\"/\\])"  # JSON, code
    r"|&#(?P<decimal>[0-9]{1,7});?|&#[xX](?P<entity>[0-9A-Fa-f]{1,6});?"  # HTML
    rf"|&(?P<name>{'|'.join(_ENTITIES)});?"
    r"|%(?P<percent>[2-7][0-9A-Fa-f])|(?P<utf8>%[CcDd][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]"  # RFC 3986, 2.1 and 2.5
    r"|%[Ee][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){2}|%[Ff][0-4](?:%[89ABab][0-9A-Fa-f]){3})"
    r"|(?<=[0-9])(?P<line>[ \t-]{0,2}\r?\n[ \t]{0,2})(?=[0-9]+(?![0-9.:/T]|-[0-9]{2}(?![0-9])))"
)
"""Characters written otherwise, and a line's end within a number."""
_COLUMN = re.compile(r"(?:^[0-9 \t,.;-]*[0-9][0-9 \t,.;-]*\r?$\n?){4,}", re.MULTILINE)
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


class Folded:
    """``text`` as the recognisers see it, and the way back: only characters that are written as several, or seen as
    none or several, are remembered."""

    def __init__(self, text: str) -> None:
        columns = _columns(text)
        table = fold_table()
        parts: list[str] = []
        self._at: list[int] = []
        self._seen: list[int] = []
        self._raw: list[tuple[int, int]] = []
        done = size = 0
        for match in _units().finditer(text):
            start, end = match.span()
            kind = match.lastgroup
            if kind == "line" and any(first <= start < last for first, last in columns):
                continue
            char = _READ[kind](match.group(kind)) if kind else match.group()
            plain, seen = text[done:start].translate(table), table.get(ord(char), char)
            size += len(plain)
            parts += (plain, seen)
            self._at.append(size)
            self._seen.append(len(seen))
            self._raw.append((start, end))
            size, done = size + len(seen), end
        self.text = "".join([*parts, text[done:].translate(table)])

    def start(self, place: int) -> int:
        """Where in the original the character at ``place`` begins."""
        return self._span(place)[0]

    def end(self, place: int) -> int:
        """Where it ends."""
        return self._span(place)[1]

    def _span(self, place: int) -> tuple[int, int]:
        unit = bisect_right(self._at, place) - 1
        if unit < 0:
            return place, place + 1
        behind = place - self._at[unit] - self._seen[unit]
        if behind < 0:
            return self._raw[unit]
        start = self._raw[unit][1] + behind
        return start, start + 1


def fold(text: str) -> str:
    """``text`` as the recognisers see it."""
    return Folded(text).text if not text or _WRITTEN.search(text) else text.translate(fold_table())


def offsets(text: str) -> list[int]:
    """For every character of ``fold(text)`` the index in ``text`` it comes from, and ``len(text)`` at the end."""
    seen = Folded(text)
    return [*map(seen.start, range(len(seen.text))), len(text)]


def unescaped(value: str) -> str:
    """``value`` as it reads: escapes are what they stand for."""
    return _WRITTEN.sub(lambda match: _READ[match.lastgroup or ""](match.group(match.lastgroup or 0)), value)


@cache
def _units() -> re.Pattern[str]:
    """Escapes, and characters that aren't seen as one."""
    uneven = [code for code, seen in fold_table().items() if len(seen) != 1]
    return re.compile(f"{_WRITTEN.pattern}|[{_ranges(uneven)}]")


def _ranges(codes: Iterable[int]) -> str:
    """A class of characters as ranges: one by one, those beyond U+FFFF are tried one by one."""
    found: list[list[int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in found)


def _columns(text: str) -> list[tuple[int, int]]:
    """Where numbers stand below each other: there a line ends a number."""
    return [match.span() for match in _COLUMN.finditer(text)] if "\n" in text else []


_READ: dict[str, Callable[[str], str]] = {
    "hex": lambda code: chr(int(code, 16)), "short": lambda code: chr(int(code, 16)), "control": lambda _: "\n",
    "itself": str,
    "decimal": lambda code: _char(int(code)), "entity": lambda code: _char(int(code, 16)),
    "percent": lambda code: chr(int(code, 16)), "line": lambda _: " ", "name": lambda name: html5[f"{name};"],
    "utf8": lambda code: bytes.fromhex(code.replace("%", "")).decode(errors="replace")[0],
}  # fmt: skip


def _char(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else "?"

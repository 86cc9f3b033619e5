"""A text as a model of names sees it: folded (``folding.py``), without spaces within a word, in pieces of bounded
length, mostly sentences. Every place leads back to the text.

What stands between two Chinese characters (a space, a point, a line's end, a tag) may part two words or one name: such
a text is read once more with all of that left out (:meth:`Seen.joined`).
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from copy import copy
from functools import cache

from governed_serving.privacy.folding import Folded

__all__ = ["MOST_CHARACTERS", "OVERLAP", "Seen", "dotted_end", "has_han", "sentence_end"]

MOST_CHARACTERS = 160
"""Of a piece. What is longer is cut at a comma, or anywhere, and then its parts overlap."""
OVERLAP = 40
"""Characters that such parts share: no name is longer, and hardly an address."""
_LEAST = 80
"""Characters before the comma of a cut."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af"
_HAN = re.compile(f"[{HAN}]")
_SPACED = re.compile(
    f"(?<=(?<![{HAN}])[{HAN}])[ \t._-]{{1,3}}(?=[{HAN}](?![{HAN}]))"  # both stand alone: 张 三, 张.三
    f"|(?<=(?<![{HAN}])[{HAN}])[ \t]{{1,3}}(?=[{HAN}])|(?<=[{HAN}])[ \t]{{1,3}}(?=[{HAN}](?![{HAN}]))"  # one does
)
"""Between characters of a word that is written with spaces."""
_JOINT = re.compile(
    rf"(?<=[{HAN}])(?:[ \t]{{1,4}}|[ ]?[._/*|~+\u00b7\u2022\u2027\u2219\u22c5\u30fb\uff65-][ ]?|\r?\n"
    rf"|(?:</?[A-Za-z][^<>\r\n]{{0,40}}>){{1,4}})(?=[{HAN}])"
)
"""What may part a name. A point before a space ends a sentence."""
_DOTTED = re.compile(rf"(?:[\u00b7\u2022\u2027\u2219\u22c5\u30fb\uff65][{HAN}]{{1,8}})+(?![{HAN}])")
_STOPS = frozenset(".。｡")
_ENDS = re.compile(r"[!?;！？；\n\r\u2028\u2029]|(?<![0-9A-Za-z])\.|\.(?=\s|\Z)")
"""Of sentences, folded: 。 is a full stop."""
_WRITTEN_ENDS = re.compile(
    rf"[!?;！？；。｡\u2028\u2029]|\.(?=\s)|(?<![{HAN}])(?<![{HAN}]\r)[\r\n]|(?<=[{HAN}])\r?\n(?![{HAN}]|\Z)"
)
"""As they are written; a line's end between two Chinese characters is none."""
_COMMA = re.compile(r"[,，、:： ]")


def has_han(text: str) -> bool:
    """There is a Chinese character in ``text``."""
    return _HAN.search(text) is not None


def dotted_end(text: str, place: int) -> int:
    """The end of a name whose first part ends at ``place``, as foreign ones are written (阿卜杜拉·买买提): if what is
    behind the point is a word by itself."""
    match = _DOTTED.match(text, place)
    return match.end() if match else place


def sentence_end(text: str) -> int:
    """Behind the last end of a sentence in ``text``, as it is written; 0: there is none."""
    return max((match.end() for match in _WRITTEN_ENDS.finditer(text)), default=0)


@cache
def _unified() -> dict[int, str]:
    """Compatibility ideographs and radicals → the character that they are, one for one."""
    codes = (*range(0x2E80, 0x2FE0), *range(0xF900, 0xFB00), *range(0x2F800, 0x2FA20))
    forms = ((code, unicodedata.normalize("NFKC", chr(code))) for code in codes)
    return {code: form for code, form in forms if len(form) == 1 and form != chr(code)}


class Seen:
    """``text`` (characters as the model sees them); ``start`` and ``end``: places of the original."""

    def __init__(self, text: str) -> None:
        self._original, self._folded = text, Folded(text)
        self._whole = self._folded.text.translate(_unified())
        self._leave_out(_SPACED.finditer(self._whole))

    def joined(self) -> "Seen | None":
        """Likewise, without anything between Chinese characters; None: there is no such thing."""
        matches = [match for match in _JOINT.finditer(self._whole) if not self._stops(match)]
        if not matches:
            return None
        other = copy(self)
        other._leave_out(matches)
        return other

    def _stops(self, match: re.Match[str]) -> bool:
        """A full stop is folded to a point, and parts no name."""
        written = self._original[self._folded.start(match.start()) : self._folded.end(match.end() - 1)]
        return not _STOPS.isdisjoint(written) and ("." not in written or " " in match.group())

    def _leave_out(self, matches: Iterable[re.Match[str]]) -> None:
        seen = self._whole
        self._at: list[int] = []
        self._gone: list[int] = []
        parts: list[str] = []
        done = gone = 0
        for match in matches:
            parts.append(seen[done : match.start()])
            self._at.append(match.start() - gone)
            gone += match.end() - match.start()
            self._gone.append(gone)
            done = match.end()
        self.text = "".join([*parts, seen[done:]])

    def start(self, place: int) -> int:
        """Where in the original the character at ``place`` begins."""
        return self._folded.start(self._spaced(place))

    def end(self, place: int) -> int:
        """Where it ends."""
        return self._folded.end(self._spaced(place))

    def _spaced(self, place: int) -> int:
        before = bisect_right(self._at, place)
        return place + (self._gone[before - 1] if before else 0)

    def is_joint(self, start: int, end: int) -> bool:
        """Something was left out within ``text[start:end]``."""
        return bisect_right(self._at, start) < bisect_left(self._at, end)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """From, to."""
        start = 0
        for match in _ENDS.finditer(self.text):
            yield from self._cut(start, match.end())
            start = match.end()
        yield from self._cut(start, len(self.text))

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        while end - start > MOST_CHARACTERS:
            least, most = start + _LEAST, start + MOST_CHARACTERS
            commas = [match.end() for match in _COMMA.finditer(self.text, least, most)]
            yield start, commas[-1] if commas else most
            start = commas[-1] if commas else most - OVERLAP
        if start < end:
            yield start, end

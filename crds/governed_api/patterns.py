"""How long a match of an RE2 expression can be: what a recogniser finds must be bounded.

With a bound, finding all of them takes time linear in the text (with none, a search may read to the text's end for each
match), and a stream knows how much of its end is undecided.
"""

from collections.abc import Iterator

from governed_api.governance import Masking

__all__ = ["MOST_CHARACTERS", "PatternRefused", "too_wide", "width"]

MOST_CHARACTERS = 128
"""Of one match."""
_NO_WIDTH = frozenset("bBAz")
_BRACED = frozenset("pPx")


class PatternRefused(ValueError):
    """The expression can't be used; the message says why and what to do, and quotes none of it."""


def width(pattern: str) -> int:
    """Characters of the longest match. Raises PatternRefused for one without a bound, or above ``MOST_CHARACTERS``.

    Of syntax it knows what decides on lengths; whether the expression is RE2 otherwise, RE2 says.
    """
    reader = _Reader(pattern)
    found = reader.alternatives()
    if reader.rest:
        raise PatternRefused("expected balanced parentheses, found ) without (; write \\) for the character")
    if found > MOST_CHARACTERS:
        raise PatternRefused(
            f"expected matches of at most {MOST_CHARACTERS} characters, found up to {found}; lower the repeats"
        )
    return found


def too_wide(masking: Masking | None) -> Iterator[str]:
    """Findings about a valid manifest's own entities that no CEL rule can make; the server refuses at its start."""
    for place, entity in enumerate(masking.custom if masking else ()):
        try:
            width(entity.pattern)
        except PatternRefused as error:
            yield f"spec.governance.privacy.masking.custom[{place}].pattern: Invalid value: {error}"


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._place = pattern, 0

    @property
    def rest(self) -> str:
        return self._pattern[self._place :]

    def alternatives(self) -> int:
        widest = here = 0
        while self.rest and not self.rest.startswith(")"):
            if self._took("|"):
                widest, here = max(widest, here), 0
            else:
                here += self._repeated(self._one())
        return max(widest, here)

    def _took(self, text: str) -> bool:
        found = self.rest.startswith(text)
        self._place += len(text) if found else 0
        return found

    def _until(self, closer: str) -> str:
        end = self._pattern.find(closer, self._place)
        if end < 0:
            raise PatternRefused(f"expected a closing {closer}, found none; write \\ before a character that is meant")
        text, self._place = self._pattern[self._place : end], end + len(closer)
        return text

    def _one(self) -> int:
        char = self.rest[0]
        self._place += 1
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        return 0 if char in "^$" else 1

    def _group(self) -> int:
        if self._took("?"):
            if self._took("P<") or self._took("<"):
                self._until(">")
            else:
                flags = len(self.rest) - len(self.rest.lstrip("imsU-"))
                self._place += flags
                if self._took(")"):
                    return 0
                if not self._took(":"):
                    raise PatternRefused(
                        "expected a group that RE2 has, found another, such as look-around; leave it out"
                    )
        found = self.alternatives()
        if not self._took(")"):
            raise PatternRefused("expected balanced parentheses, found ( without ); write \\( for the character")
        return found

    def _class(self) -> int:
        self._took("^")
        self._took("]")
        while self.rest and not self._took("]"):
            if self._took("[:"):
                self._until(":]")
            else:
                self._place += 2 if self.rest[0] == "\\" else 1
        return 1

    def _escape(self) -> int:
        char = self.rest[:1]
        self._place += 1
        if char in ("Q", "C"):
            raise PatternRefused(f"expected characters, found \\{char}; write \\ before each character that is meant")
        if char in _BRACED and self._took("{"):
            self._until("}")
        elif char in "pP":
            self._place += 1
        elif char == "x":
            self._place += 2
        elif char in "01234567":
            while self.rest[:1] in tuple("01234567"):
                self._place += 1
        return 0 if char in _NO_WIDTH else 1

    def _repeated(self, one: int) -> int:
        while self.rest and self.rest[0] in "*+?{":
            if self.rest[0] in "*+":
                raise _unbounded(self.rest[0])
            if self._took("?"):
                continue
            text = self.rest[1:].partition("}")[0] if "}" in self.rest else ""
            least, comma, most = text.partition(",")
            if not least.isdecimal() or not (not most or most.isdecimal()) or not text.isascii():
                break  # a brace that is a character
            if comma and not most:
                raise _unbounded("{n,}")
            one *= int(most or least)
            self._place += len(text) + 2
        return one


def _unbounded(found: str) -> PatternRefused:
    return PatternRefused(f"expected a bound to each repeat, found {found}; write {{1,32}} or the like")

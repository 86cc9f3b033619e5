"""Finding: one pass of RE2 over UTF-8 notices places worth a look; exact patterns and checks decide on the few of them.

The first pass knows only cheap shapes (seven digits close together, a dot between digits, …) and is a DFA without
captures, so its cost doesn't depend on the number of recognisers. Where there is an @, another one finds addresses.
Characters that must be folded first (``folding.py``) are noticed as well; then the text is folded and searched again,
and offsets are led back to the original.
"""

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import re2

from governed_serving.privacy.folding import CONTROLS, JOINERS, PUNCTUATION, Folded, fold, fold_table
from governed_serving.privacy.marked import FIRST, LATER, Mark
from governed_serving.privacy.recognisers import (
    ADDRESS,
    EMAIL,
    ENTITIES,
    IP,
    LOCAL_OCTETS,
    PROVINCES,
    RECOGNISERS,
    Recogniser,
)

__all__ = ["Finder", "Finding", "Hook", "decoded_runs"]


class Finding(NamedTuple):
    """``text[start:end]`` is personal data of kind ``entity`` (offsets in characters)."""

    entity: str
    start: int
    end: int


class Hook(NamedTuple):
    """A finder of your own, for names or addresses: a dictionary or an NER model. ``find(text)`` → (start, end) in
    characters."""

    entity: str
    find: Callable[[str], Iterable[tuple[int, int]]]


class Span(NamedTuple):
    """A finding in bytes."""

    entity: str
    start: int
    end: int


class _MustFold(Exception):
    """The text holds characters that have to be folded first."""


_JOIN = rb"0-9A-Za-z_.%+'()@:/-"
_RUN = re.compile(rb"[" + _JOIN + rb"]*(?: (?=[0-9(+]|[0-9A-Z]{4}|[a-z]{4}[ -]?[0-9])[" + _JOIN + rb"]+)*")
_JOINED = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.%+'()@:/-")
_DIGITS = b"0123456789"
_LONGEST = 400
_STRIP = str.maketrans("", "", " -().+·•/")
_VERSION = re.compile(
    rb"(?:[A-Za-z]/|(?i:version|release|build|windows)[ =:]{1,2}|\xe7\x89\x88\xe6\x9c\xac[^0-9A-Za-z]{0,6})\Z"
)
"""Behind such words four numbers are a version (the last is \u7248\u672c)."""
_QUOTE = ord('"')
_SEPARATOR = re.compile(rb"[ -]")
_ODD = re.compile(b"[\\\\&%\n\x80-\xff" + re.escape(CONTROLS) + b"]")
"""What the first pass notices since it is to be folded."""


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MOST_ENCODED = 400
"""Bytes of a run of base64 that is looked into."""


def _decoded(run: bytes) -> str:
    """The text that a run of base64 is, "" where it is none. Hexadecimal hashes and words have no capitals."""
    if run.islower() or run.isalpha():
        return ""
    bare = run.rstrip(b"=").translate(_URL_SAFE)
    try:
        text = base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True).decode()
    except ValueError:
        return ""
    return text if all(char.isprintable() or char.isspace() for char in text) else ""


def decoded_runs(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Runs of base64 (RFC 4648) in ``data``: from, to, and the text that each is."""
    for match in _ENCODED.finditer(data):
        start, end = match.span()
        if end - start <= _MOST_ENCODED and (read := _decoded(data[start:end])):
            yield start, end, read


def _first_pass() -> "re2._Regexp":
    joiners = _class(JOINERS)
    rest = _class(set(fold_table()) - JOINERS - set(PUNCTUATION))
    shapes = (
        f"[0-9A-Za-z@.:]{joiners}|{joiners}[0-9@]|[0-9A-Za-z][。｡][0-9A-Za-z]|（[0-9+]|[0-9A-Fa-f：]：[0-9A-Fa-f：]|{rest}",
        "[0-9](?:[ ()-]{0,2}[0-9]){6}|[0-9]{6}[A-Ya-y]|[0-9]{3}[./][0-9]{3,4}[./][0-9]{4}",
        "[A-Z]{2}[0-9]{2}[ -]?[0-9A-Z]{4}[ -]?[0-9A-Z]{4}|[a-z]{2}[0-9]{2}[ -]?[0-9a-z]{4}[ -]?[0-9a-z]{4}",
        "[0-9][.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]",
        "[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?::[0-9A-Fa-f]{1,4}){3}:",
        f"[{PROVINCES}][A-Z]",
        r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[nrt][0-9A-Za-z]|\\\"@|&#[0-9xX]|%(?:3[0-9]|[4-7][0-9A-Fa-f])",
        r"[0-9]%2[0DEde][0-9]|%2[Bb][0-9]|[0-9][ \t-]{0,2}\r?\n[ \t]{0,2}[0-9]",
    )
    return _compiled("|".join(shapes))


def _compiled(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.never_capture = True
    options.max_mem = 64 << 20  # the class of folded characters makes many DFA states
    return re2.compile(pattern, options)


def _class(codes: Iterable[int]) -> str:
    return "[" + "".join(f"\\x{{{c:x}}}" for c in sorted(codes)) + "]"


class Finder:
    """Finds the given entities (all when empty). Thread-safe.

    ``find`` gives findings of one text, in order and not overlapping; ``spans`` the same in UTF-8 of the folded text.
    Raises ValueError for an unknown entity.
    """

    def __init__(self, entities: Sequence[str] = (), hooks: Sequence[Hook] = ()):
        unknown = sorted(set(entities) - set(ENTITIES) - {h.entity for h in hooks})
        if unknown:
            raise ValueError(f"unknown entity {unknown[0]!r}; there are {', '.join(ENTITIES)}")
        chosen = [r for r in RECOGNISERS if not entities or r.entity in entities]
        self._numbers = [r for r in chosen if r.family == "#"]
        self._by_family = {f: [r for r in chosen if r.family == f] for f in (".", ":", "plate")}
        self._marks = {mark.entity for mark in (*FIRST, *LATER) if not entities or mark.entity in entities}
        self._addresses = not entities or EMAIL in entities
        self._hooks = [h for h in hooks if not entities or h.entity in entities]
        self._pass = _PASS
        fold("")  # its tables are made now, not in the first request

    def find(self, text: str) -> list[Finding]:
        """Findings in ``text``, by offsets of the original characters."""
        data = text.encode(errors="surrogatepass")
        try:
            findings = self._characters(data, self._spans(data))
        except _MustFold:
            seen = Folded(text)
            data = seen.text.encode(errors="surrogatepass")
            found = self._characters(data, self._spans(data, folded=True))
            findings = [Finding(entity, seen.start(start), seen.end(end - 1)) for entity, start, end in found]
        return self._with_hooks(text, findings) if self._hooks else findings

    def count(self, text: str) -> dict[str, int]:
        """Entity → number of findings; offsets aren't computed."""
        if self._hooks:
            spans: Sequence[Finding | Span] = self.find(text)
        else:
            data = text.encode(errors="surrogatepass")
            try:
                spans = self._spans(data)
            except _MustFold:
                spans = self._spans(fold(text).encode(errors="surrogatepass"), folded=True)
        counts: dict[str, int] = {}
        for span in spans:
            counts[span.entity] = counts.get(span.entity, 0) + 1
        return counts

    def _characters(self, data: bytes, spans: list[Span]) -> list[Finding]:
        findings: list[Finding] = []
        byte = char = 0
        for entity, start, end in spans:
            first = char + len(data[byte:start].decode(errors="surrogatepass"))
            char = first + len(data[start:end].decode(errors="surrogatepass"))
            byte = end
            findings.append(Finding(entity, first, char))
        return findings

    def _with_hooks(self, text: str, findings: list[Finding]) -> list[Finding]:
        """Hooks fill what patterns left: a finding that overlaps another is passed over."""
        for hook in self._hooks:
            for start, end in hook.find(text):
                place = bisect_right(findings, start, key=lambda f: f.start)
                free = (place == 0 or findings[place - 1].end <= start) and (
                    place == len(findings) or end <= findings[place].start
                )
                if free and 0 <= start < end <= len(text):
                    findings.insert(place, Finding(hook.entity, start, end))
        return findings

    def _spans(self, data: bytes, *, folded: bool = False, encoded: bool = False) -> list[Span]:
        found = self._numbered(data, folded)
        if self._addresses and b"@" in data:  # what lies in an address is a part of it
            matches = _ADDRESSES.finditer(data)
            found = _beside([Span(EMAIL, _local(data, *match.span()), match.end()) for match in matches], found)
        found = _beside(self._marked(data, FIRST, _FIRST), found)
        found = _beside(found, self._marked(data, LATER, _LATER))
        if not encoded and (runs := list(self._encoded(data))):
            found = _beside(found, runs)
        return found

    def _marked(self, data: bytes, marks: Sequence[Mark], scan: "re2._Regexp") -> list[Span]:
        """What a mark gives away."""
        spans: list[Span] = []
        for match in scan.finditer(data):
            for mark in marks:
                exact = mark.pattern.match(data, match.start())
                if exact is not None:
                    if mark.entity in self._marks:
                        spans.append(Span(mark.entity, *exact.span(1)))
                    break
        return spans

    def _encoded(self, data: bytes) -> Iterator[Span]:
        """Runs of base64 (RFC 4648) that hold an entity, read once."""
        for start, end, read in decoded_runs(data):
            inner = self._spans(fold(read).encode(), folded=True, encoded=True)
            if inner:
                yield Span(inner[0].entity, start, end)

    def _numbered(self, data: bytes, folded: bool) -> list[Span]:
        """All but addresses."""
        spans: list[Span] = []
        done = 0
        for match in self._pass.finditer(data):
            start, end = match.span()
            plate = data[start] >= 0x80 and 0x41 <= data[end - 1] <= 0x5A
            if not plate and _ODD.search(data, start, end):
                if not folded:
                    raise _MustFold
                continue  # an escape within an escape: read once
            if start < done:
                continue
            look = self._plate if plate else self._region
            done = look(data, start, end, done, spans)
        return spans

    def _plate(self, data: bytes, start: int, end: int, _: int, spans: list[Span]) -> int:
        for recogniser in self._by_family["plate"]:
            match = recogniser.pattern.match(data, start)
            if match is not None and _holds(recogniser, match.group()):
                spans.append(Span(recogniser.entity, start, match.end()))
                return match.end()
        return end - 1

    def _region(self, data: bytes, start: int, end: int, floor: int, spans: list[Span]) -> int:
        """Look closely at the run of joined characters around ``start``; returns its end."""
        low, least = start, max(floor, start - _LONGEST)
        while low > least and data[low - 1] in _JOINED:
            low -= 1
        match = _RUN.match(data, end)
        high = end if match is None else match.end()
        region = data[low:high].rstrip(b".'%-")
        taken = self._token(region) if region.isalnum() else self._search(region)
        for entity, first, last in taken:
            if b"." not in region or entity != IP or not _VERSION.search(data, max(0, low + first - 12), low + first):
                spans.append(Span(entity, low + first, low + last))
        return high

    def _token(self, region: bytes) -> list[Span]:
        """A token without separators is an entity as a whole or holds none."""
        size, bare = len(region), region.isdigit()
        for recogniser in self._numbers:
            least = recogniser.bare if bare else recogniser.digits
            if size >= least and recogniser.pattern.fullmatch(region) and _holds(recogniser, region):
                return [Span(recogniser.entity, 0, size)]
        return []

    def _search(self, region: bytes) -> list[Span]:
        taken: list[Span] = []
        for recogniser in self._candidates(region):
            _collect(recogniser, region, taken)
            if taken and taken[0].end - taken[0].start == len(region):
                return taken
        taken.sort(key=lambda s: s.start)
        return taken

    def _candidates(self, region: bytes) -> Iterator[Recogniser]:
        """Recognisers that can find something in ``region``, by what is in it."""
        for family in (b".", b":"):
            if family in region:
                yield from self._by_family[family.decode()]
        digits = len(region) - len(region.translate(None, _DIGITS))
        bare = b"+" not in region and region.upper() == region.lower()
        for recogniser in self._numbers:
            if digits >= (recogniser.bare if bare else recogniser.digits):
                yield recogniser


def _local(data: bytes, start: int, end: int) -> int:
    """Where the local part begins of an address that lies between: prose without spaces before one in Chinese is cut
    at the octets that a local part may have."""
    least = data.rindex(b"@", start, end) - LOCAL_OCTETS
    if least <= start or data[start:end].isascii() or data[start] == _QUOTE:
        return start
    while data[least] & 0xC0 == 0x80:  # within a character
        least += 1
    return least


def _beside(spans: list[Span], others: list[Span]) -> list[Span]:
    """``spans``, which are in order, and those of ``others`` that overlap none of them."""
    ends = [span.end for span in spans]
    joined = list(spans)
    for span in others:
        place = bisect_right(ends, span.start)
        if place == len(ends) or spans[place].start >= span.end:
            joined.append(span)
    return sorted(joined, key=lambda span: span.start)


def _collect(recogniser: Recogniser, region: bytes, taken: list[Span]) -> None:
    """Add what ``recogniser`` finds in ``region`` where nothing was found yet."""
    position = 0
    while (match := recogniser.pattern.search(region, position)) is not None:
        start, end = match.span()
        held = _longest(recogniser, match.group())
        if held and all(start + held <= s.start or start >= s.end for s in taken):
            taken.append(Span(recogniser.entity, start, start + held))
            position = start + held
        else:
            following = _SEPARATOR.search(region, start + 1, end)
            position = end if following is None else following.end()


def _longest(recogniser: Recogniser, candidate: bytes) -> int:
    """Length of the longest beginning of ``candidate``, cut at separators, that holds; 0: none does."""
    while True:
        if _holds(recogniser, candidate):
            return len(candidate)
        cut = max(candidate.rfind(b" "), candidate.rfind(b"-"))
        if cut <= 0 or not recogniser.pattern.fullmatch(candidate[:cut]):
            return 0
        candidate = candidate[:cut]


def _holds(recogniser: Recogniser, candidate: bytes) -> bool:
    if recogniser.check is None:
        return True
    value = candidate.decode()
    return recogniser.check(value if recogniser.family == ":" else value.translate(_STRIP))


_PASS = _first_pass()
_ADDRESSES = _compiled(ADDRESS)
_FIRST, _LATER = (_compiled("|".join(f"(?:{mark.scan})" for mark in marks)) for marks in (FIRST, LATER))
_ENCODED = _compiled("[0-9A-Za-z+/_-]{12,}={0,2}")

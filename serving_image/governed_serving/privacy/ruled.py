"""What a manifest adds to the recognisers: entities of its own, texts that are always or never masked, a threshold.

Patterns and denied texts are searched in the folded text (``folding.py``), in runs of base64 too. All finds that
overlap become one, so that none uncovers a part of another. Its entity is that of the first of: denied, the manifest's,
a recogniser's. ``allow`` is asked last, about a whole find: a value that is a part of a longer find uncovers nothing.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, get_args

import re2

from governed_api.governance import CustomEntity, Masking, NameEntity
from governed_api.patterns import MOST_CHARACTERS, width
from governed_serving.privacy.errors import NamesFailed
from governed_serving.privacy.finder import Finder, Finding, Hook, decoded_runs
from governed_serving.privacy.folding import Folded, fold, fold_table
from governed_serving.privacy.recognisers import ENTITIES
from governed_serving.privacy.scores import JUDGED, Find, Judged
from governed_serving.privacy.validators import CHECKS

__all__ = ["DENIED", "NameSearch", "RuledFinder"]

DENIED = "DENIED"
CONTEXT_CHARACTERS = 64
"""Before a value, in which a context word counts; less than a stream keeps of what it let go."""
_HOOKED = Judged(1, "hook")
_MOST_SPACE = 3
_SPACE = rf"[\s\x{{85}}\x{{2028}}\x{{2029}}]{{1,{_MOST_SPACE}}}"
"""Between the words of a denied text: line ends of any kind too."""
_SEPARATORS = str.maketrans("", "", " -().·•/")
_WORD = re.compile(rb"[0-9A-Za-z_]*")


class _Rule(NamedTuple):
    entity: str
    label: str
    pattern: "re2._Regexp"
    longest: int
    check: Callable[[str], bool] | None = None
    context: "re2._Regexp | None" = None
    score: float = 1.0


class NameSearch(Protocol):
    """A model of names (``names/``): ``find`` may raise whatever it likes."""

    @property
    def failures(self) -> Counter[str]: ...
    @property
    def waiting(self) -> int: ...
    def request(self) -> AbstractContextManager[None]: ...
    def undecided(self, text: str, start: int) -> int: ...
    def find(self, text: str) -> list[Find]: ...


class RuledFinder:
    """Finds what ``rules`` say, and ``names``. Thread-safe. ``hold``: characters at the end of a growing text that may
    begin what custom and deny find. Raises ValueError for a pattern that can't be used."""

    def __init__(self, rules: Masking, hooks: Sequence[Hook] = (), names: NameSearch | None = None) -> None:
        self._names, self._closed = names, rules.failure_policy == "Closed"
        least = rules.threshold
        chosen = [entity for entity in rules.entities or ENTITIES if JUDGED[entity].score >= least]
        self._finder = Finder([*chosen, *(hook.entity for hook in hooks)], hooks) if chosen or hooks else None
        self._rules = [*_denied(rules.deny), *map(_custom, rules.custom)]
        self._least = least
        self._allowed = frozenset(map(_bare, rules.allow))
        self.hold = max((rule.longest for rule in self._rules), default=0)
        known = [DENIED, *ENTITIES, *get_args(NameEntity), *(rule.entity for rule in self._rules)]
        self._placeholder = re.compile(f"<(?:{'|'.join(known)})>")

    def find(self, text: str) -> list[Finding]:
        """Findings in ``text``, in order and not overlapping."""
        return [Finding(found.entity, found.start, found.end) for found in self.explained(text)]

    def find_by_form(self, text: str) -> list[Finding]:
        """:meth:`find`, but for what only a model of names finds."""
        return [Finding(found.entity, found.start, found.end) for found in self._explained(text, ())]

    def explained(self, text: str) -> list[Find]:
        """:meth:`find`, and how each was found."""
        return self._explained(text, self._named(text) if self._names else ())

    def _explained(self, text: str, named: Sequence[Find]) -> list[Find]:
        founds = self._finder.find(text) if self._finder else ()
        finds = [Find(found.entity, found.start, found.end, *JUDGED.get(found.entity, _HOOKED)) for found in founds]
        if self._rules or named:
            finds = _joined([*(self._own(text) if self._rules else ()), *finds, *named])
        if self._allowed:
            finds = [f for f in finds if f.entity == DENIED or _bare(text[f.start : f.end]) not in self._allowed]
        return finds

    def _named(self, text: str) -> Sequence[Find]:
        """Raises NamesFailed (failurePolicy Closed); else what the model couldn't search is searched without it."""
        try:
            return self._names.find(text) if self._names else ()
        except NamesFailed:
            if self._closed:
                raise
            return ()

    def _own(self, text: str) -> Iterator[Find]:
        seen = Folded(text)
        masked = [match.span() for match in self._placeholder.finditer(text)] if "<" in text else []
        for found in self._searched(seen.text):
            start, end = seen.start(found.start), seen.end(found.end - 1)
            if not any(first <= start and end <= last for first, last in masked):
                yield found._replace(start=start, end=end)

    def _searched(self, seen: str, *, encoded: bool = False) -> Iterator[Find]:
        """What the rules find in a folded text, by its places, the rules one after another."""
        data = seen.encode(errors="surrogatepass")
        for rule in self._rules:
            places = _Places(data)
            for first, last in _matches(rule, data):
                start, end = places.char(first), places.char(last)
                if _apart(seen, start, end) and (score := _score(rule, seen, start)) >= self._least:
                    yield Find(rule.entity, start, end, score, rule.label)
        if not encoded:
            places = _Places(data)
            for first, last, read in decoded_runs(data):
                inner = next(self._searched(fold(read), encoded=True), None)
                if inner is not None:
                    yield inner._replace(start=places.char(first), end=places.char(last))


class _Places:
    """Bytes to characters, asked in order."""

    def __init__(self, data: bytes) -> None:
        self._data, self._byte, self._char = data, 0, 0

    def char(self, byte: int) -> int:
        if byte < self._byte:
            self._byte = self._char = 0
        self._char += len(self._data[self._byte : byte].decode(errors="surrogatepass"))
        self._byte = byte
        return self._char


def _matches(rule: _Rule, data: bytes) -> Iterator[tuple[int, int]]:
    """In bytes. Every match is bounded, and so is what is read for each: time is linear in ``data``."""
    place = 0
    while place < len(data) and (match := rule.pattern.search(data, place)) is not None:
        start, end = match.span(1)
        if start == end:
            place = end + 1
        elif start and _in_word(data[start - 1]) and _in_word(data[start]):  # so are all that begin in this word
            word = _WORD.match(data, start)
            place = word.end() if word else start + 1
        elif rule.check is None or rule.check(data[start:end].decode(errors="surrogatepass")):
            yield start, end
            place = end
        else:
            place = start + 1


def _in_word(byte: int) -> bool:
    return byte < 0x80 and (chr(byte).isalnum() or byte == 0x5F)


def _apart(text: str, start: int, end: int) -> bool:
    """Not within a longer word of a script with spaces between words."""
    return not (
        (start and _spelled(text[start - 1]) and _spelled(text[start]))
        or (end < len(text) and _spelled(text[end - 1]) and _spelled(text[end]))
    )


def _spelled(char: str) -> bool:
    """Of a word of a script with spaces between words: those below Thai, Georgian, Latin's and Greek's additions."""
    return (char.isalnum() or char == "_") and (
        char < "\u0e00" or "\u10a0" <= char < "\u1100" or "\u1e00" <= char < "\u2000"
    )


def _score(rule: _Rule, seen: str, start: int) -> float:
    if rule.context is None:
        return rule.score
    before = seen[max(0, start - CONTEXT_CHARACTERS) : start].encode(errors="surrogatepass")
    return 1.0 if rule.context.search(before) else rule.score


def _joined(finds: Sequence[Find]) -> list[Find]:
    """Those that overlap as one: the first in rank says what it is."""
    out: list[tuple[int, Find]] = []
    ranked = sorted(enumerate(finds), key=lambda one: (one[1].start, one[1].end))
    for rank, found in ranked:
        if out and found.start < out[-1][1].end:
            last_rank, last = out[-1]
            first = last if last_rank <= rank else found
            whole = first._replace(start=last.start, end=max(last.end, found.end))
            out[-1] = (min(last_rank, rank), whole)
        else:
            out.append((rank, found))
    return [found for _, found in out]


def _bare(value: str) -> str:
    return fold(value).translate(_SEPARATORS).casefold()


def _denied(texts: Sequence[str]) -> list[_Rule]:
    if not texts:
        return []
    longest = max(len(text) + (_MOST_SPACE - 1) * len(text.split()) for text in texts)
    return [_Rule(DENIED, "deny", _compiled(f"(?i){_literals(texts)}"), longest)]


def _custom(entity: CustomEntity) -> _Rule:
    where = f"spec.governance.privacy.masking.custom ({entity.name})"
    pattern = _folded(entity.pattern)
    try:
        longest = width(entity.pattern)
        re2.compile(pattern, _options())
        compiled = _compiled(pattern)
    except (ValueError, re2.error) as error:  # what RE2 says would quote the pattern: that is the manifest's
        raise ValueError(f"{where}.pattern: {error}") from error
    context = re2.compile(f"(?i){_literals(entity.context)}", _options()) if entity.context else None
    check = None
    if entity.check is not None:
        judge = CHECKS[entity.check]
        check = lambda value: judge("".join(filter(str.isalnum, value)))  # noqa: E731
    return _Rule(entity.name, f"custom {entity.name}", compiled, longest, check, context, entity.score)


def _folded(pattern: str) -> str:
    """A pattern as the text is seen: what is folded there is folded here, and what that makes stays a character."""
    table = fold_table()
    return "".join(char if ord(char) not in table else re2.escape(table[ord(char)]) for char in pattern)


def _literals(texts: Sequence[str]) -> str:
    """Any of them, the longest first."""
    words = sorted((fold(text).split() for text in texts), key=lambda parts: -sum(map(len, parts)))
    return "|".join(_SPACE.join(map(re2.escape, parts)) for parts in words)


def _compiled(pattern: str) -> "re2._Regexp":
    """With the value as group 1, at whose end no ASCII word goes on."""
    return re2.compile(rf"({pattern})(?:\b|$|[^0-9A-Za-z_])", _options())


def _options() -> "re2.Options":
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    return options


assert MOST_CHARACTERS >= CONTEXT_CHARACTERS, "a stream keeps this much of what it let go"

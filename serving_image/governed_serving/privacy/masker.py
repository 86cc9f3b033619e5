"""Masking of texts on their way to the model and back, as ``governance.privacy.masking`` says."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise, product
from json import dumps as encode_json
from typing import Literal, NamedTuple

from governed_api.governance import Masking
from governed_serving.crypto import Keyring
from governed_serving.privacy.actions import Action, action
from governed_serving.privacy.errors import NamesFailed
from governed_serving.privacy.finder import Finder, Finding, Hook
from governed_serving.privacy.folding import unescaped
from governed_serving.privacy.recognisers import EMAIL
from governed_serving.privacy.ruled import NameSearch, RuledFinder
from governed_serving.privacy.scores import LEAST_SCORE

__all__ = ["Covered", "Masker", "MaskingError", "looks_like_json", "masker", "names_of", "scan"]

_SCANNED_TOGETHER = 1 << 16
_SPLIT = 128
"""Characters on either side of where one text ends that are searched for what is split."""
_APART = "\n\n"
_NUMBER_BEGINS, _NUMBER_ENDS = re.compile(r"[\[:,]\s*-?\Z"), re.compile(r"\s*(?:[,\]}]|\Z)")
"""Around a number of JSON."""

REMEMBERED_CHARACTERS = 48
REMEMBERED_TEXTS = 4096


class MaskingError(Exception):
    """A text can't be masked, and the policy is to refuse it. The message doesn't quote the text."""


class Covered(NamedTuple):
    """``text``: masked; ``end``: how far; ``findings``: what was masked, by places in the text as it was."""

    text: str
    end: int
    findings: Sequence[Finding] = ()

    def counts(self) -> dict[str, int]:
        """Entity → how often it was masked."""
        return dict(Counter(finding.entity for finding in self.findings))


class Masker:
    """``find`` and ``act`` bound to a failure policy: the one place that decides what happens to a text that can't be
    masked.

    Both may raise whatever they like. With ``failure_policy`` Closed that raises MaskingError, with Open this text
    alone passes as it is, or, where names alone couldn't be searched, without what else is found. ``failures`` counts
    both; ``counts`` are findings per entity. Short texts in which nothing
    was found are remembered: categories come again and again. ``addresses``: e-mail addresses are among what is found;
    ``hold``: the longest of what else is found, in characters. ``names``: the model that ``find`` asks, too; ``across``
    finds what is split over texts: without that model, which would read one message's end with another's beginning.
    """

    def __init__(
        self,
        find: Callable[[str], Sequence[Finding]],
        act: Action,
        failure_policy: Literal["Closed", "Open"] = "Closed",
        *,
        addresses: bool = True,
        hold: int = 0,
        names: NameSearch | None = None,
        across: Callable[[str], Sequence[Finding]] | None = None,
    ):
        self._find, self._act = find, act
        self._closed = failure_policy == "Closed"
        self._clean: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.failures = 0
        self.addresses, self.hold, self.names = addresses, hold, names
        self._across = across or find

    def request(self) -> AbstractContextManager[None]:
        """Around the texts of one request, on one thread: they share the budget for names."""
        return self.names.request() if self.names else nullcontext()

    def mask(self, text: str) -> str:
        """``text`` without personal data; the very same object when there is none. Raises MaskingError."""
        return self.masked(text).text

    def masked(self, text: str) -> Covered:
        """:meth:`mask`, and what was found. Raises MaskingError."""
        if text in self._clean:
            return Covered(text, len(text))
        failures = self.failures if self.names is None else self._failed()
        covered = self.covered(text)
        if covered.findings or len(text) > REMEMBERED_CHARACTERS:
            return covered
        if failures == (self.failures if self.names is None else self._failed()):
            if len(self._clean) >= REMEMBERED_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return covered

    def _failed(self) -> int:
        return self.failures + (self.names.failures.total() if self.names else 0)

    def covered(self, text: str, start: int = 0, end: int | None = None, *, json: bool | None = None) -> Covered:
        """``text[start:end]``, masked by what is found in all of ``text``; it ends before a finding that reaches beyond
        ``end``. ``json``: it is JSON and stays JSON; None: it is when it looks like it. Raises MaskingError."""
        try:
            json = looks_like_json(text) if json is None else json
            return self._covered(text, start, len(text) if end is None else end, self._find(text), json)
        except Exception as error:  # whatever went wrong: unmasked text must not pass unnoticed
            self._refused(error)
            return Covered(text, 0) if end is None else Covered(text[start:end], end)

    def _refused(self, error: Exception) -> list[Finding]:
        """Nothing is found (failurePolicy Open). Raises MaskingError (Closed)."""
        self.failures += 1
        if self._closed and isinstance(error, NamesFailed):
            raise MaskingError(str(error)) from error
        if self._closed:
            raise MaskingError(
                f"expected a text that can be searched for personal data, found {type(error).__name__}; the request is refused"  # noqa: E501
            ) from error
        return []

    def _covered(self, text: str, start: int, end: int, found: Sequence[Finding], json: bool) -> Covered:
        parts: list[str] = []
        findings: list[Finding] = []
        done = start
        for finding in found:
            if finding.end <= done:
                continue
            if finding.start >= end or finding.end > end:
                end = min(end, max(finding.start, done))
                break
            begin = max(finding.start, done)
            stands = self._act(finding.entity, unescaped(text[begin : finding.end]))
            if json:
                begin, stands = _in_json(text, begin, finding.end, stands)
            parts += (text[done:begin], stands)
            findings.append(finding)
            done = finding.end
        if not findings and start == 0 and end == len(text):
            return Covered(text, end)
        parts.append(text[done:end])
        self.counts.update(finding.entity for finding in findings)
        return Covered("".join(parts), end, findings)

    def together(self, texts: Sequence[str]) -> list[Covered]:
        """:meth:`masked` for each of texts that are read one after another; what is split over several of them is
        masked where it begins, and taken out of those behind. Raises MaskingError."""
        return [self.masked(text) if cuts is None else self._cut(text, cuts) for text, cuts in self._split(texts)]

    def _split(self, texts: Sequence[str]) -> Iterator[tuple[str, list[Finding] | None]]:
        """Each text, and what is found in it where a part of that is split: nothing that is whole by itself is."""
        ends = list(accumulate(map(len, texts)))
        whole = "".join(texts)
        split: dict[int, Finding] = {}
        for (text, edge), (following, end) in pairwise(zip(texts, ends, strict=True)):
            lows, highs = {max(0, edge - _SPLIT)}, {edge + _SPLIT}
            if text and following:  # what is beside these two may hide where something ends
                lows.add(max(*lows, edge - len(text)))
                highs.add(min(*highs, end))
            for low, high in product(lows, highs):
                for found in self._searched(whole[low:high], self._across):
                    finding = Finding(found.entity, low + found.start, low + found.end)
                    if finding.start < edge < finding.end:
                        split.setdefault(finding.start, finding)
        places = [(text, end - len(text), end) for text, end in zip(texts, ends, strict=True)]
        own = [
            self._own(text, start) if any(f.start < end and start < f.end for f in split.values()) else []
            for text, start, end in places
        ]
        alone = [finding for found in own for finding in found]
        kept = [f for f in split.values() if all(f.end <= o.start or o.end <= f.start for o in alone)]
        for (text, start, end), mine in zip(places, own, strict=True):
            here = [f for f in kept if f.start < end and start < f.end]
            both = sorted([*mine, *here], key=lambda finding: finding.start) if here else []
            yield text, [Finding(f.entity, f.start - start, f.end - start) for f in both] if here else None

    def _own(self, text: str, start: int) -> list[Finding]:
        """What is found in a text by itself, by places in all of them."""
        return [Finding(f.entity, start + f.start, start + f.end) for f in self._searched(text)]

    def _searched(self, text: str, find: Callable[[str], Sequence[Finding]] | None = None) -> Sequence[Finding]:
        try:
            return (find or self._find)(text)
        except Exception as error:  # as in covered
            return self._refused(error)

    def _cut(self, text: str, findings: list[Finding]) -> Covered:
        parts: list[str] = []
        done = 0
        for finding in findings:
            begin, end = max(finding.start, 0), min(finding.end, len(text))
            value = unescaped(text[begin:end])
            parts += (text[done:begin], self._act(finding.entity, value) if finding.start >= 0 else "")
            done = end
        begun = [finding for finding in findings if finding.start >= 0]
        self.counts.update(finding.entity for finding in begun)
        return Covered("".join([*parts, text[done:]]), len(text), findings)

    def mask_many(self, texts: Sequence[str]) -> list[str]:
        """:meth:`mask` for each, same order; those remembered as clean are not searched again."""
        clean = self._clean
        return [text if text in clean else self.masked(text).text for text in texts]

    __call__ = mask_many


def looks_like_json(text: str) -> bool:
    """An object or a list, judged by its beginning."""
    return text[:64].lstrip()[:1] in ("{", "[")


def _in_json(text: str, begin: int, end: int, stands: str) -> tuple[int, str]:
    """Where what stands for ``text[begin:end]`` begins, and how it is written: a number becomes a string, sign and
    all."""
    stands = encode_json(stands)[1:-1]
    if not _NUMBER_BEGINS.search(text, max(0, begin - 64), begin) or not _NUMBER_ENDS.match(text, end):
        return begin, stands
    return (begin - 1 if text[begin - 1] == "-" else begin), f'"{stands}"'


def names_of(rules: Masking) -> NameSearch | None:
    """The model that ``rules`` name, loaded. Raises ValueError, which says what to install."""
    if rules.names is None:
        return None
    from governed_serving.privacy.names import opened

    return opened(rules.names)


def masker(
    rules: Masking, keyring: Keyring | None = None, hooks: Sequence[Hook] = (), names: NameSearch | None = None
) -> Masker:
    """The masker of a spec; ``names``: its model, where it is loaded already. Raises ValueError (unknown entity, key
    or model needed) or CryptoError."""
    act, addresses = action(rules.action, keyring), not rules.entities or EMAIL in rules.entities
    names = names or names_of(rules)
    if not (names or rules.custom or rules.deny or rules.allow or rules.threshold > LEAST_SCORE):
        return Masker(Finder(rules.entities, hooks).find, act, rules.failure_policy, addresses=addresses)
    ruled = RuledFinder(rules, hooks, names)
    return Masker(
        ruled.find,
        act,
        rules.failure_policy,
        addresses=addresses,
        hold=ruled.hold,
        names=names,
        across=ruled.find_by_form,
    )


def scan(texts: Iterable[str], finder: Finder | None = None) -> Counter[str]:
    """Entity → number of findings over all ``texts``: for the data-set manifest. Short texts are searched together."""
    finder = finder or Finder()
    counts: Counter[str] = Counter()
    for block in _blocks(texts):
        counts.update(finder.count(block))
    return counts


def _blocks(texts: Iterable[str]) -> Iterable[str]:
    """Texts joined by what no finding crosses."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _SCANNED_TOGETHER:
            yield _APART.join(block)
            block, size = [], 0
    if block:
        yield _APART.join(block)

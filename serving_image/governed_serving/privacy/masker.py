"""Masking of texts on their way to the model and back, as ``governance.privacy.masking`` says."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from governed_api.governance import Masking
from governed_serving.crypto import Keyring
from governed_serving.privacy.actions import Action, action
from governed_serving.privacy.finder import Finder, Finding, Hook
from governed_serving.privacy.recognisers import EMAIL

__all__ = ["Covered", "Masker", "MaskingError", "masker", "scan"]

_SCANNED_TOGETHER = 1 << 16

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
    alone passes as it is. ``failures`` counts both; ``counts`` are findings per entity. Short texts in which nothing
    was found are remembered: categories come again and again. ``addresses``: e-mail addresses are among what is found.
    """

    def __init__(
        self,
        find: Callable[[str], Sequence[Finding]],
        act: Action,
        failure_policy: Literal["Closed", "Open"] = "Closed",
        *,
        addresses: bool = True,
    ):
        self._find, self._act = find, act
        self._closed = failure_policy == "Closed"
        self._clean: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.failures = 0
        self.addresses = addresses

    def mask(self, text: str) -> str:
        """``text`` without personal data; the very same object when there is none. Raises MaskingError."""
        return self.masked(text).text

    def masked(self, text: str) -> Covered:
        """:meth:`mask`, and what was found. Raises MaskingError."""
        if text in self._clean:
            return Covered(text, len(text))
        failures = self.failures
        covered = self.covered(text)
        if not covered.findings and self.failures == failures and len(text) <= REMEMBERED_CHARACTERS:
            if len(self._clean) >= REMEMBERED_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return covered

    def covered(self, text: str, start: int = 0, end: int | None = None) -> Covered:
        """``text[start:end]``, masked by what is found in all of ``text``; it ends before a finding that reaches beyond
        ``end``. Raises MaskingError."""
        try:
            return self._covered(text, start, len(text) if end is None else end, self._find(text))
        except Exception as error:  # whatever went wrong: unmasked text must not pass unnoticed
            self.failures += 1
            if self._closed:
                raise MaskingError(
                    f"expected a text that can be searched for personal data, found {type(error).__name__}; the request is refused"  # noqa: E501
                ) from error
            return Covered(text, 0) if end is None else Covered(text[start:end], end)

    def _covered(self, text: str, start: int, end: int, found: Sequence[Finding]) -> Covered:
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
            parts += (text[done:begin], self._act(finding.entity, text[begin : finding.end]))
            findings.append(finding)
            done = finding.end
        if not findings and start == 0 and end == len(text):
            return Covered(text, end)
        parts.append(text[done:end])
        self.counts.update(finding.entity for finding in findings)
        return Covered("".join(parts), end, findings)

    def mask_many(self, texts: Sequence[str]) -> list[str]:
        """:meth:`mask` for each, same order; those remembered as clean are not searched again."""
        clean = self._clean
        return [text if text in clean else self.masked(text).text for text in texts]

    __call__ = mask_many


def masker(rules: Masking, keyring: Keyring | None = None, hooks: Sequence[Hook] = ()) -> Masker:
    """The masker of a spec. Raises ValueError (unknown entity, key needed) or CryptoError."""
    find, act = Finder(rules.entities, hooks).find, action(rules.action, keyring)
    return Masker(find, act, rules.failure_policy, addresses=not rules.entities or EMAIL in rules.entities)


def scan(texts: Iterable[str], finder: Finder | None = None) -> Counter[str]:
    """Entity → number of findings over all ``texts``: for the data-set manifest. Short texts are searched together."""
    finder = finder or Finder()
    counts: Counter[str] = Counter()
    for block in _blocks(texts):
        counts.update(finder.count(block))
    return counts


def _blocks(texts: Iterable[str]) -> Iterable[str]:
    """Texts joined by line breaks, which no finding crosses."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _SCANNED_TOGETHER:
            yield "\n".join(block)
            block, size = [], 0
    if block:
        yield "\n".join(block)

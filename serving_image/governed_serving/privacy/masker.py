"""Masking of texts on their way to the model, as ``governance.privacy.masking`` says."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from governed_api.governance import Masking
from governed_serving.crypto import Keyring
from governed_serving.privacy.actions import Action, action
from governed_serving.privacy.finder import Finder, Hook

__all__ = ["Masker", "MaskingError", "masker", "scan"]

_SCANNED_TOGETHER = 1 << 16

REMEMBERED_CHARACTERS = 48
REMEMBERED_TEXTS = 4096


class MaskingError(Exception):
    """A text can't be masked, and the policy is to refuse it. The message doesn't quote the text."""


class Masker:
    """``replace`` bound to a failure policy: the one place that decides what happens to a text that can't be masked.

    ``replace`` answers a text without personal data, and may raise whatever it likes. With ``failure_policy`` Closed
    that raises MaskingError, with Open this text alone passes as it is. ``failures`` counts both; ``counts`` are
    findings per entity, kept by ``replace``. Short texts in which nothing was found are remembered: categories come
    again and again.
    """

    def __init__(
        self,
        replace: Callable[[str], str],
        failure_policy: Literal["Closed", "Open"] = "Closed",
        counts: Counter[str] | None = None,
    ):
        self._replace = replace
        self._closed = failure_policy == "Closed"
        self._clean: set[str] = set()
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.failures = 0

    def mask(self, text: str) -> str:
        """``text`` without personal data; the very same object when there is none. Raises MaskingError."""
        try:
            masked = self._replace(text)
        except Exception as error:  # whatever went wrong: unmasked text must not pass unnoticed
            self.failures += 1
            if self._closed:
                raise MaskingError(
                    f"expected a text that can be searched for personal data, found {type(error).__name__}; the request is refused"  # noqa: E501
                ) from error
            return text
        if masked == text and len(text) <= REMEMBERED_CHARACTERS:
            if len(self._clean) >= REMEMBERED_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return masked

    def mask_many(self, texts: Sequence[str]) -> list[str]:
        """:meth:`mask` for each, same order; those remembered as clean are not searched again."""
        clean = self._clean
        return [text if text in clean else self.mask(text) for text in texts]

    __call__ = mask_many


class _Replacement:
    """Replaces what ``finder`` finds by what ``act`` makes of it; ``counts`` findings per entity since it was made."""

    def __init__(self, finder: Finder, act: Action) -> None:
        self._finder = finder
        self._act = act
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        findings = self._finder.find(text)
        if not findings:
            return text
        parts: list[str] = []
        done = 0
        for entity, start, end in findings:
            parts += (text[done:start], self._act(entity, text[start:end]))
            done = end
            self.counts[entity] += 1
        parts.append(text[done:])
        return "".join(parts)


def masker(rules: Masking, keyring: Keyring | None = None, hooks: Sequence[Hook] = ()) -> Masker:
    """The masker of a spec. Raises ValueError (unknown entity, key needed) or CryptoError."""
    replace = _Replacement(Finder(rules.entities, hooks), action(rules.action, keyring))
    return Masker(replace, rules.failure_policy, replace.counts)


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

"""A text that comes in pieces, masked on its way: what is decided is let go, what is not is held back (``tail.py``)."""

from governed_serving.privacy.finder import Finding
from governed_serving.privacy.masker import Covered, Masker, looks_like_json
from governed_serving.privacy.tail import LONGEST_SECRET, undecided

__all__ = ["TextStream"]

_CONTEXT = 128
"""Characters of what was let go that are looked at again: what stands before an entity decides with."""


class TextStream:
    """``masker`` over one growing text. Places are counted in characters of the text as it came.

    What ``add`` and ``flush`` answer is, joined, the masked text; ``end`` is :attr:`released` then. Raises MaskingError
    (failurePolicy Closed); then nothing more of this text may be let go. Where a model finds names, a sentence is held
    until it is whole. A masker's hooks see no more than what is held
    and a little before it.
    """

    __slots__ = ("_done", "_hidden", "_json", "_masker", "_passed", "_text")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._text = ""
        self._done = self._passed = 0  # of _text let go; characters before _text
        self._hidden: list[tuple[int, int]] = []
        self._json = False

    @property
    def taken(self) -> int:
        """Characters that came."""
        return self._passed + len(self._text)

    @property
    def released(self) -> int:
        """Characters whose fate is decided."""
        return self._passed + self._done

    def hides(self, start: int, end: int) -> bool:
        """Whether something between these places was masked; asked in order: what is before ``start`` is
        forgotten."""
        self._hidden = [span for span in self._hidden if span[1] > start]
        return any(span[0] < end for span in self._hidden)

    def add(self, piece: str) -> Covered:
        """What ``piece`` decides, masked."""
        self._text += piece
        if not self._passed:
            self._json = looks_like_json(self._text)
        end = undecided(self._text, self._done, addresses=self._masker.addresses, hold=self._masker.hold)
        if self._masker.names is not None and end > self._done:
            end = min(end, self._masker.names.undecided(self._text, self._done))
        return self._release(end)

    def flush(self) -> Covered:
        """The rest, masked: nothing comes behind it."""
        return self._release(len(self._text))

    def _release(self, end: int) -> Covered:
        text, findings = "", list[Finding]()
        if end > self._done:
            covered = self._masker.covered(self._text, self._done, end, json=self._json)
            if covered.end < end and len(self._text) - covered.end > LONGEST_SECRET:  # longer than anything can be
                covered = self._masker.covered(self._text, self._done, len(self._text), json=self._json)
            text, self._done = covered.text, covered.end
            findings = [Finding(f.entity, self._passed + f.start, self._passed + f.end) for f in covered.findings]
            self._hidden += ((f.start, f.end) for f in findings)
            self._forget()
        return Covered(text, self.released, findings)

    def _forget(self) -> None:
        excess = self._done - _CONTEXT
        if excess > _CONTEXT:
            self._text, self._done, self._passed = self._text[excess:], self._done - excess, self._passed + excess

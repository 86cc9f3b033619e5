"""Masking in the path: which inputs and outputs, and how columns pass. What happens when it errs is the masker's to
decide (privacy)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from governed_serving.privacy import Covered, Masker, MaskingError, NameSearch, TextStream
from governed_serving.server.errors import MaskingFailed
from governed_serving.server.signature import Signature

__all__ = ["MaskedStream", "Masking", "masked_inputs"]


def masked_inputs(signature: Signature, fields: Sequence[str]) -> list[int]:
    """Positions of the inputs to mask: ``fields``, or all texts. Raises ValueError for a field that is no string
    input."""
    if not fields:
        return [
            k
            for k, spec in enumerate(signature.inputs)
            if spec.kind == "text" or (spec.kind == "tensor" and spec.textual)
        ]
    for name in fields:
        if name not in signature.index or not signature.inputs[signature.index[name]].textual:
            texts = [spec.name for spec in signature.inputs if spec.textual]
            raise ValueError(
                "governance.privacy.masking.fields: expected string inputs "
                f"({', '.join(texts) or 'the model has none'}), found {name!r}"
            )
    return [signature.index[name] for name in fields]


class Masking:
    """``masker`` in the server's terms: columns, and a ServerError where its policy refuses. ``requests`` and
    ``answers``: what is masked (governance.privacy.masking.direction)."""

    def __init__(self, masker: Masker, *, requests: bool = True, answers: bool = False) -> None:
        self._masker = masker
        self.requests, self.answers = requests, answers

    @property
    def failures(self) -> int:
        """Texts that could not be masked, refused or passed."""
        return self._masker.failures

    @property
    def names(self) -> NameSearch | None:
        """The model of names, where there is one."""
        return self._masker.names

    def request(self) -> AbstractContextManager[None]:
        """Around the texts of one request, on one thread: they share the budget for names."""
        return self._masker.request()

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Masked texts. Raises MaskingFailed (failurePolicy Closed); the message never quotes the text."""
        with _refusing():
            if self._masker.names is None:  # a request's texts are many, and each context takes its time
                return self._masker.mask_many(texts)
            with self.request():
                return self._masker.mask_many(texts)

    def covered(self, text: str) -> Covered:
        """A masked text, and what was masked in it. Raises MaskingFailed."""
        with _refusing(), self.request():
            return self._masker.masked(text)

    def covered_all(self, texts: Sequence[str], together: Sequence[int] = ()) -> list[Covered]:
        """:meth:`covered` for each; those at the places ``together`` are read one after another, and something may be
        split over them."""
        with _refusing(), self.request():
            joined = iter(self._masker.together([texts[place] for place in together]))
            chosen = set(together)
            return [next(joined) if place in chosen else self._masker.masked(text) for place, text in enumerate(texts)]

    def stream(self) -> "MaskedStream":
        """For a text that comes in pieces."""
        return MaskedStream(self._masker)

    def columns(self, columns: list[NDArray[np.generic]], places: Sequence[int]) -> None:
        """Mask those at ``places``, in place: all of one request. Raises MaskingFailed."""
        if self._masker.names is None:
            self._mask(columns, places)
            return
        with self.request():
            self._mask(columns, places)

    def _mask(self, columns: list[NDArray[np.generic]], places: Sequence[int]) -> None:
        for place in places:
            columns[place] = self.column(columns[place])

    def column(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """An object array of str, masked, same shape."""
        out = np.empty(values.size, object)
        out[:] = self.texts(values.ravel().tolist())
        return out.reshape(values.shape)


class MaskedStream(TextStream):
    """Raises MaskingFailed where the masker refuses."""

    def add(self, piece: str) -> Covered:
        with _refusing():
            return super().add(piece)

    def flush(self) -> Covered:
        with _refusing():
            return super().flush()


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except MaskingError as error:
        raise MaskingFailed(f"masking: {error} (failurePolicy Closed)") from error

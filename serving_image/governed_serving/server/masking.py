"""Masking in the path: which inputs, and what happens when it errs."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from governed_serving.server.errors import MaskingFailed
from governed_serving.server.signature import Signature

__all__ = ["Masker", "Masking", "masked_inputs"]


REMEMBERED_CHARACTERS = 48
REMEMBERED_TEXTS = 4096


class Masker(Protocol):
    """Removes personal data from texts; same length, same order. Any exception means that nothing may be trusted."""

    def mask_many(self, texts: Sequence[str]) -> list[str]: ...


def masked_inputs(signature: Signature, fields: Sequence[str]) -> list[int]:
    """Positions of the inputs to mask: ``fields``, or all texts. Raises ValueError for a field that is no string input."""
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
                f"governance.privacy.masking.fields: expected string inputs ({', '.join(texts) or 'the model has none'}), found {name!r}"
            )
    return [signature.index[name] for name in fields]


class Masking:
    """A masker bound to a failure policy. ``failures`` counts what erred; with Open those texts passed as they were."""

    def __init__(self, masker: Masker, policy: Literal["Closed", "Open"]) -> None:
        self._masker = masker
        self._closed = policy == "Closed"
        self.failures = 0
        self._clean: set[str] = set()

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Masked texts. Raises MaskingFailed (policy Closed); the message never quotes the text."""
        try:
            return self._masked(texts)
        except Exception as error:  # whatever went wrong: unmasked text must not pass unnoticed
            if not self._closed:
                return [self._open(text) for text in texts]
            self.failures += 1
            raise MaskingFailed(
                f"masking: expected masked text, found {type(error).__name__}; the request is refused (failurePolicy Closed)"
            ) from error

    def _masked(self, texts: Sequence[str]) -> list[str]:
        """Short texts in which nothing was found are remembered: categories come again and again."""
        out, clean = list(texts), self._clean
        unknown = [k for k, text in enumerate(out) if text not in clean]
        if not unknown:
            return out
        masked = self._masker.mask_many([out[k] for k in unknown])
        if len(masked) != len(unknown):
            raise ValueError(f"{len(unknown)} texts in, {len(masked)} out")
        for k, text in zip(unknown, masked, strict=True):
            if text == out[k] and len(text) <= REMEMBERED_CHARACTERS:
                if len(clean) >= REMEMBERED_TEXTS:
                    clean.clear()
                clean.add(text)
            out[k] = text
        return out

    def _open(self, text: str) -> str:
        """Only the text that errs passes as it is."""
        try:
            return self._masked([text])[0]
        except Exception:  # policy Open: counted, and that is all
            self.failures += 1
            return text

    def column(self, values: NDArray[Any]) -> NDArray[Any]:
        """An object array of str, masked, same shape."""
        out = np.empty(values.size, object)
        out[:] = self.texts(values.ravel().tolist())
        return out.reshape(values.shape)

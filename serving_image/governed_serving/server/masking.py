"""Masking in the path: which inputs, and how columns pass. What happens when it errs is the masker's to decide
(privacy)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from governed_serving.privacy import Masker, MaskingError
from governed_serving.server.errors import MaskingFailed
from governed_serving.server.signature import Signature

__all__ = ["Masking", "masked_inputs"]


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
    """``masker`` in the server's terms: columns, and a ServerError where its policy refuses."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    @property
    def failures(self) -> int:
        """Texts that could not be masked, refused or passed."""
        return self._masker.failures

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Masked texts. Raises MaskingFailed (failurePolicy Closed); the message never quotes the text."""
        try:
            return self._masker.mask_many(texts)
        except MaskingError as error:
            raise MaskingFailed(f"masking: {error} (failurePolicy Closed)") from error

    def column(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """An object array of str, masked, same shape."""
        out = np.empty(values.size, object)
        out[:] = self.texts(values.ravel().tolist())
        return out.reshape(values.shape)

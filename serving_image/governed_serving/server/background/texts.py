"""Segmented texts, remembered: the explainer's columns repeat the same (masked) texts call after call."""

import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import segment

__all__ = ["RememberedTexts"]

MOST = 4096


class RememberedTexts:
    """As :func:`governed_serving.server.predictors.onnx.segmented`, which segments anew. Forgets all when there are
    more than ``MOST``."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, column: NDArray[np.generic], segmentation: str) -> NDArray[np.generic]:
        texts, segments = column.ravel().tolist(), self._known
        unknown = [text for text in dict.fromkeys(texts) if (segmentation, text) not in segments]
        if len(segments) + len(unknown) > MOST:
            segments.clear()
            unknown = list(dict.fromkeys(texts))
        for text, apart in zip(unknown, segment(unknown, segmentation), strict=True):
            segments[segmentation, text] = apart
        out = np.empty(column.size, object)
        out[:] = [segments[segmentation, text] for text in texts]
        return out.reshape(column.shape)

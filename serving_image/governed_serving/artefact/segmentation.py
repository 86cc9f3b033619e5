"""Text preparation that the ONNX graph cannot do: Unicode folding and splitting where no spaces are.

The graph lower-cases ASCII, splits at white space and looks tokens up. Chinese, Japanese and Korean text has no spaces,
so each such character becomes a token of its own, as BERT's basic tokeniser does (Devlin et al. 2019).
"""

import re
import unicodedata
from collections.abc import Iterable

CJK_CHARACTERS = "cjk-characters"
"""The one segmentation there is: NFKC, then spaces around every CJK character and every punctuation mark."""

_APART = re.compile(
    "([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]|[^\\w\\s])"
)


def segment(texts: Iterable[str], segmentation: str) -> list[str]:
    """Texts as the model's graph expects them; "" leaves them as they are. Idempotent.

    Raises ValueError for a segmentation that this version doesn't know.
    """
    if segmentation == "":
        return list(texts)
    if segmentation != CJK_CHARACTERS:
        raise ValueError(f"expected segmentation {CJK_CHARACTERS}, found {segmentation!r}: newer than this code")
    return [_apart(text) for text in texts]


def _apart(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(" ".join(_APART.split(text)).split())  # twice as fast as substitution

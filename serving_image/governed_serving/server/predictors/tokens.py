"""Texts as the tokens that a model was trained on: Hugging Face's tokenizers, bounded in what a stranger may write."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import MalformedArtefact, Text
from governed_serving.formats import check_tokenizer
from governed_serving.server.errors import InvalidRequest

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["CHARACTERS_A_TOKEN", "Encoded", "Tokens", "opened"]

CHARACTERS_A_TOKEN = 128
"""Characters of a text, for each token that the model reads: what is longer is refused, as hardly anything of it would
be read. Tokenising takes up to 15 s for a million characters (measured: Chinese, WordPiece)."""
AT_ONCE = 1 << 16
"""Characters that are tokenised between two looks at the clock."""


class Encoded(NamedTuple):
    """A text's tokens, special ones included: int64 (length,) each; ``cut``: how many the model doesn't see."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    cut: int


def opened(data: bytes) -> "Tokenizer":
    """The tokenizer in ``data``, for whole texts: nothing is cut or padded, and no special token is read out of a text.
    Raises MalformedArtefact."""
    check_tokenizer(data)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads beside those of spec.predictor.model.resources
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_buffer(data)
    except BaseException as error:
        if not _of_the_library(error):
            raise
        line = " ".join(str(error).split())[:300]
        raise MalformedArtefact(
            f"tokenizer.json: expected what Hugging Face's tokenizers write, found: {line}"
        ) from error
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    return made


def _of_the_library(error: BaseException) -> bool:
    """The library raises Exception itself, and panics, which are none: a regular expression that gives up is one."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class Tokens:
    """Tokenises as ``text`` says. Raises MalformedArtefact."""

    def __init__(self, tokenizer: bytes, text: Text) -> None:
        self._tokenizer = opened(tokenizer)
        self._text = text
        self._room = text.max_tokens - self._tokenizer.num_special_tokens_to_add(False)
        if self._room < 1:
            raise MalformedArtefact(
                f"tokenizer.json: expected room for a token beside the special ones, found {text.max_tokens} in all"
            )
        self._special = np.array(sorted(text.special), np.int64)
        self._direction = "left" if text.cut_left else "right"

    def check(self, texts: Sequence[str]) -> None:
        """Raises InvalidRequest for a text that is too long."""
        most = self._text.max_tokens * CHARACTERS_A_TOKEN
        for row, text in enumerate(texts):
            if len(text) > most:
                raise InvalidRequest(
                    f"input 'text': expected at most {most} characters in row {row}, found {len(text)}: the model "
                    f"reads {self._text.max_tokens} tokens; cut the text, or send its parts as rows"
                )

    def encoded(self, texts: Sequence[str]) -> Iterator[list[Encoded]]:
        """Of all ``texts``, in order, some at a time. Raises InvalidRequest."""
        start = size = 0
        for end, text in enumerate(texts, 1):
            size += len(text)
            if size >= AT_ONCE or end == len(texts):
                encodings = self._split(texts[start:end])
                yield [self._finished(encoding) for encoding in encodings]
                start, size = end, 0

    def _split(self, texts: Sequence[str]) -> "Sequence[Encoding]":
        """Without special tokens. Raises InvalidRequest."""
        try:  # encode_batch, since encode holds the interpreter's lock
            return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except BaseException as error:
            if not _of_the_library(error):
                raise
            raise InvalidRequest(
                "input 'text': expected texts that the model's tokenizer can read, found one on which it gives up; "
                "write it differently"
            ) from error

    def _finished(self, encoding: "Encoding") -> Encoded:
        length = len(encoding)
        encoding.truncate(self._room, direction=self._direction)
        kept = min(length, self._room)
        whole = self._tokenizer.post_process(encoding)
        ids = np.array(whole.ids, np.int64)
        if not len(ids):
            return Encoded(np.array([self._text.padding], np.int64), np.zeros(1, np.int64), 0)
        said = np.isin(ids, self._special) & (np.array(whole.special_tokens_mask) == 0)
        if said.any():
            if self._text.unknown is None:
                raise InvalidRequest(
                    "input 'text': expected no special token of the model in a text, found one; leave it out"
                )
            ids[said] = self._text.unknown
        return Encoded(ids, np.array(whole.type_ids, np.int64), length - kept)

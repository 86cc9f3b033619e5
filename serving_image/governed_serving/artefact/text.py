"""How a text becomes the tokens that a graph takes, and what of its answer is read: of a folder with a tokenizer."""

from typing import Literal

import msgspec

__all__ = ["TOKENS_READ", "TOKENS_TRUNCATED", "TOKEN_INPUTS", "Pooling", "Text"]

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What a graph of tokens may take, by the names that transformers and optimum give."""
TOKENS_READ, TOKENS_TRUNCATED = "tokens", "truncated"
"""Outputs beside the graph's, of each text: the tokens that the model read, and those it didn't, as the text was
longer."""
Pooling = Literal["", "cls", "mean", "meanSqrtLen", "max", "lastToken"]


class Text(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """``inputs``: those of TOKEN_INPUTS that the graph takes; ``output``: the one that is read. ``max_tokens`` of a
    text, special ones included; what is longer is cut at its end, or its beginning where ``cut_left``.

    ``pooling`` makes one vector of a text's tokens ("": the graph does), which is divided by its length where
    ``normalized``. ``activation`` makes probabilities of logits. ``special``: tokens that no text may say, whatever is
    written in it; ``unknown`` stands for them. ``padding`` stands alone for a text that has no token. ``alone``: rows
    that share a call get other bits, so that none does.
    """

    inputs: list[str]
    output: str
    max_tokens: int
    pooling: Pooling = ""
    normalized: bool = False
    activation: Literal["", "softmax", "sigmoid"] = ""
    special: list[int] = []
    unknown: int | None = None
    padding: int = 0
    cut_left: bool = False
    alone: bool = False

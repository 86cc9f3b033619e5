"""Cutting a text into the spans that are attributed: tokens, phrases, sentences; Chinese and English alike."""

import re
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.hierarchy import Node

__all__ = ["LEVELS", "NESTED", "Spans", "cut", "nested", "render"]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_PATTERNS = {
    "token": re.compile(rf"<[A-Z_]+>|[{_CJK}]|[^\W{_CJK}]+(?:['’_-][^\W{_CJK}]+)*|\S"),
    "phrase": re.compile(r"[^,;:，；：、。.!?！？\n]+[,;:，；：、。.!?！？]*|\S"),
    "sentence": re.compile(r"[^.!?。！？\n]+[.!?。！？]*|\S"),
}
LEVELS = tuple(_PATTERNS)
NESTED = "nested"
"""Tokens within phrases within sentences."""


@dataclass(frozen=True)
class Spans:
    """``text[start:end]`` of each span, in order, not overlapping."""

    text: str
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.edges)

    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.edges]


def cut(text: str, level: str = "token", most: int = 512) -> Spans:
    """Spans of a text at a level, without surrounding space. More than ``most`` neighbours are joined evenly.

    A mask placeholder such as ``<EMAIL>`` stays one token. Raises :class:`NotExplainable` for an unknown level.
    """
    if level not in _PATTERNS:
        raise NotExplainable(f"parameters.level: expected one of {', '.join((*LEVELS, NESTED))}, found {level!r}")
    spans = []
    for match in _PATTERNS[level].finditer(text):
        inside = match.group()
        lead = len(inside) - len(inside.lstrip())
        if inside.strip():
            spans.append((match.start() + lead, match.start() + lead + len(inside.strip())))
    if len(spans) > most:
        parts = np.array_split(np.arange(len(spans)), most)
        spans = [(spans[part[0]][0], spans[part[-1]][1]) for part in parts]
    return Spans(text, tuple(spans))


def nested(text: str, most: int = 512) -> tuple[Spans, Node]:
    """Tokens, and the tree of the phrases and sentences that they begin in; what has one part alone is that part."""
    tokens = cut(text, "token", most)
    phrases, sentences = (cut(text, level, most) for level in ("phrase", "sentence"))

    def within(spans: Spans, at: int) -> int:
        return max(bisect_right(spans.edges, (at, len(text))) - 1, 0)

    tree: dict[int, dict[int, list[Node]]] = {}
    for place, ((start, _), word) in enumerate(zip(tokens.edges, tokens.words(), strict=True)):
        sentence, phrase = within(sentences, start), within(phrases, start)
        tree.setdefault(sentence, {}).setdefault(phrase, []).append(Node(word, place))
    tops = []
    for sentence, parts in tree.items():
        nodes = [_joined(f"phrase {phrase + 1}", children) for phrase, children in parts.items()]
        tops.append(_joined(f"sentence {sentence + 1}", nodes))
    return tokens, Node("", None, tuple(tops))


def _joined(name: str, children: list[Node]) -> Node:
    return children[0] if len(children) == 1 else Node(name, None, tuple(children))


def render(spans: Spans, masks: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Texts in which only the chosen spans stand, shape (masks,): what is masked is left out."""
    pieces, gaps, at = [], [], 0
    for start, end in spans.edges:
        gaps.append(spans.text[at:start])
        pieces.append(spans.text[start:end])
        at = end
    gaps.append(spans.text[at:])
    texts = np.empty(len(masks), object)
    for index, mask in enumerate(masks.tolist()):
        parts = [gap + (piece if kept else "") for gap, piece, kept in zip(gaps, pieces, mask, strict=False)]
        text = "".join(parts) + gaps[-1]
        texts[index] = text if all(mask) else " ".join(text.split())
    return texts

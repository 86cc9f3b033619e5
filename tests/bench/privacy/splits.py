"""Generated texts with personal data, cut at every place: does a stream let go what masking hides?"""

import random
from collections.abc import Iterator

from corpus import KINDS

from governed_serving.privacy import Masker, TextStream

BETWEEN = (
    "您好", "，", "请联系", "。", " ", " call me at ", "Hello, world. ", '{"name": "', '"}', "\n", "：", "(", "（",
    "）", ") ", "- ", "price 12.50, ", "2024 ", "ABC ", "[0.25, 1.5, 3]", "v1.2.3 ", "\u200b", "\t", "'", "a.b@", "1",
    "+", "卡号", "#",
)  # fmt: skip


def sentences(count: int, seed: int) -> Iterator[str]:
    """Texts in which values stand beside anything, in groups or in one piece."""
    rng = random.Random(seed)
    for _ in range(count):
        parts: list[str] = []
        for _ in range(rng.randint(3, 8)):
            parts.append(rng.choice(BETWEEN))
            if rng.random() < 0.5:
                parts.append(_written(KINDS[rng.choice(sorted(KINDS))](rng), rng))
        yield "".join(parts)


def _written(value: str, rng: random.Random) -> str:
    if value.isdigit() and rng.random() < 0.3:
        return rng.choice(" -").join(value[k : k + 4] for k in range(0, len(value), 4))
    return value


def split_leaks(act: Masker, text: str) -> Iterator[tuple[str, int, str]]:
    """(text, place, what came out) of every cut that gives another text than the whole; -1: character by character."""
    whole = act.mask(text)
    cuts = [[text[:cut], text[cut:]] for cut in range(len(text) + 1)]
    for cut, pieces in enumerate([*cuts, list(text)]):
        stream = TextStream(act)
        out = "".join([*(stream.add(piece).text for piece in pieces), stream.flush().text])
        if out != whole:
            yield text, cut if cut < len(cuts) else -1, out

"""Names by the model: precision, recall and F1 by what it finds, over annotated text that others wrote, and its cost.

FILE is read by its ending: .json, lines as CLUENER2020 has them (name, address), or columns of a character and its tag
(BIO: PER, LOC), sentences apart by empty lines, as MSRA's test set is spread. None is kept here: their licences differ.
Without one, sentences of templates of ours: they show that it runs, no more.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from governed_api.governance import Names
from governed_serving.privacy.names import opened

Span = tuple[int, int]
NAMED = {"PER": "person", "name": "person", "LOC": "place", "address": "place"}
OURS = {"PERSON": "person", "PLACE": "place", "ADDRESS": "place"}
SURNAMES, GIVEN = "王李张刘陈杨黄赵吴周徐孙马朱胡", "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平"
STREETS = (
    "浙江省杭州市西湖区文三路{}号",
    "上海市浦东新区世纪大道{}号",
    "成都市武侯区人民南路四段{}号",
    "深圳市南山区深南大道{}号",
)
TEMPLATES = ("收件人{p}，地址{a}，请尽快送达。", "{p}说他住在{a}。", "请联系{p}（{a}）。", "订单由{p}签收，寄往{a}")


class Sentence(NamedTuple):
    """``named``: kind → places in ``text``."""

    text: str
    named: dict[str, set[Span]]


def generated(count: int, seed: int) -> Iterator[Sentence]:
    """Ours."""
    rng = random.Random(seed)
    for _ in range(count):
        person = rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2))))
        place = rng.choice(STREETS).format(rng.randrange(1, 999))
        text = rng.choice(TEMPLATES).format(p=person, a=place)
        at, where = text.index(person), text.index(place)
        yield Sentence(text, {"person": {(at, at + len(person))}, "place": {(where, where + len(place))}})


def columns(path: Path) -> Iterator[Sentence]:
    """BIO."""
    for block in path.read_text().split("\n\n"):
        pairs = [line.split() for line in block.splitlines() if line.strip()]
        named: dict[str, set[Span]] = {"person": set(), "place": set()}
        place = 0
        while place < len(pairs):
            tag, start = pairs[place][-1], place
            place += 1
            if tag.startswith("B-"):
                while place < len(pairs) and pairs[place][-1] == "I-" + tag[2:]:
                    place += 1
                if tag[2:] in NAMED:
                    named[NAMED[tag[2:]]].add((start, place))
        yield Sentence("".join(pair[0] for pair in pairs), named)


def lines(path: Path) -> Iterator[Sentence]:
    """CLUENER's: ends are those of the last character."""
    for line in path.read_text().splitlines():
        one = json.loads(line)
        named: dict[str, set[Span]] = {"person": set(), "place": set()}
        for label, values in one["label"].items():
            if label in NAMED:
                spans = [(a, b + 1) for places in values.values() for a, b in places]
                named[NAMED[label]].update(spans)
        yield Sentence(one["text"], named)


def report(path: Path | None, count: int) -> None:
    """Print what was measured."""
    if path is None:
        chosen = list(generated(count, seed=5))
    else:
        chosen = list(lines(path) if path.suffix == ".json" else columns(path))
        chosen = random.Random(5).sample(chosen, min(count, len(chosen)))
    finder = opened(Names.model_validate({"entities": ["PERSON", "PLACE", "ADDRESS"], "budget": "60s"}))
    finder.find("张三说")
    began, found = time.process_time(), [finder.find(sentence.text) for sentence in chosen]
    spent, size = time.process_time() - began, sum(len(sentence.text.encode()) for sentence in chosen)
    what = "sentences of ours, by templates" if path is None else f"sentences of {path.name}"
    print(f"\n{len(chosen)} {what}: names        precision   recall       F1   characters covered")
    for kind in ("person", "place"):
        gold = [sentence.named[kind] for sentence in chosen]
        ours = [{(f.start, f.end) for f in finds if OURS[f.entity] == kind} for finds in found]
        hit = sum(len(a & b) for a, b in zip(gold, ours, strict=True))
        precision, recall = hit / max(1, sum(map(len, ours))), hit / max(1, sum(map(len, gold)))
        chars = [(k, finds) for spans, finds in zip(gold, found, strict=True) for span in spans for k in range(*span)]
        covered = sum(any(f.start <= k < f.end for f in finds) for k, finds in chars) / max(1, len(chars))
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        print(f"ours (lac), {kind:<34}{precision:>12.3f}{recall:>9.3f}{f1:>9.3f}{covered:>12.3f}")
    print(f"{spent / max(1, len(chosen)) * 1e3:.2f} ms of CPU a sentence, {size / 1e6 / spent:.3f} MB per CPU-second")

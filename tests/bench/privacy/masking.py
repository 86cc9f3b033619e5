"""MB per CPU-second of finding, and what is found, at two densities of personal data."""

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import names
import recall
from benign import documents
from corpus import KINDS, corpus
from splits import sentences, split_leaks

from governed_api.governance import Masking
from governed_serving.privacy import Finder, Masker, masker, scan

# What people write: eight patterns joined, \b around them; on str, where \b takes Chinese characters for letters.
ALTERNATION = re.compile(
    r"\b(?:(?P<CN_RESIDENT_ID>[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx])"
    r"|(?P<BANK_CARD>[2-6]\d{15,18})|(?P<PHONE_NUMBER>1[3-9]\d{9})|(?P<CN_PASSPORT>[EGDSP]\d{8})"
    r"|(?P<US_SSN>\d{3}-\d{2}-\d{4})|(?P<IBAN>[A-Z]{2}\d{2}[A-Z0-9]{11,30})"
    r"|(?P<IP_ADDRESS>(?:\d{1,3}\.){3}\d{1,3})|(?P<EMAIL>[\w.+-]+@[\w-]+(?:\.[\w-]+)+))\b"
)


def alternation(texts: list[str]) -> int:
    return sum(1 for text in texts for _ in ALTERNATION.finditer(text))


def masked(act: Masker, texts: list[str]) -> int:
    before = act.counts.total()
    act.mask_many(texts)
    return act.counts.total() - before


def per_cpu_second(work: Callable[[], int], size: float, runs: int = 3) -> tuple[float, int]:
    """(MB per CPU-second, best of some runs, and what was found)."""
    best, found = 0.0, 0
    for _ in range(runs):
        start = time.process_time()
        found = work()
        best = max(best, size / (time.process_time() - start))
    return best, found


def presidio(python: str, texts: list[str]) -> tuple[float, int] | None:
    """Presidio's own pattern recognisers in an environment of its own, over a part of the texts."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        worker = Path(__file__).with_name("presidio_worker.py")
        done = subprocess.run(
            [python, str(worker), file.name], capture_output=True, text=True, timeout=300, check=False
        )
    if done.returncode != 0:
        print(
            "presidio: not measured "
            f"({done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode})"
        )
        return None
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["megabytes_per_cpu_second"], answer["found"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument(
        "--presidio-python", default="", help="interpreter of an environment that has presidio-analyzer"
    )
    parser.add_argument("--splits", type=int, default=1000, help="texts that are cut at every place; 0: none")
    parser.add_argument("--benign", type=int, default=10_000, help="documents without personal data")
    parser.add_argument("--sentences", type=int, default=100_000, help="sentences with one planted value each")
    parser.add_argument("--names", type=int, default=1000, help="sentences in which names are looked for")
    parser.add_argument("--ner", type=Path, help="annotated text of others: BIO columns, or CLUENER's .json")
    parser.add_argument("--smoke", action="store_true", help="seconds, to see that it runs: its numbers mean nothing")
    given = parser.parse_args()
    if given.smoke:
        given.megabytes, given.splits = 0.05, min(given.splits, 20)
        given.names = min(given.names, 20)
        given.benign, given.sentences = min(given.benign, 100), min(given.sentences, 500)
    finder, act = Finder(sorted(KINDS)), masker(Masking(entities=sorted(KINDS)))
    for density in (400, 4_000):
        texts, planted = corpus(given.megabytes, density)
        size = sum(len(t.encode()) for t in texts) / 1e6
        print(
            f"\n{size:.1f} MB, one entity in {density} bytes, {planted} planted        MB per CPU-s   found   of "
            "planted"
        )
        rows: list[tuple[str, tuple[float, int], int]] = [
            ("ours, scan", per_cpu_second(lambda t=texts: scan(t, finder).total(), size), planted),
            ("ours, mask (2 KB a text)", per_cpu_second(lambda t=texts: masked(act, t), size), planted),
            ("one `re` alternation, no checks", per_cpu_second(lambda t=texts: alternation(t), size), planted),
        ]
        if given.presidio_python:
            part, less = corpus(0.3, density)
            answer = presidio(given.presidio_python, part)
            if answer is not None:
                rows.append(("presidio-analyzer, patterns only", answer, less))
        for name, (speed, found), of in rows:
            print(f"{name:<58}{speed:>12.1f}{found:>8}{found / of:>12.1%}")
    if given.splits:
        report_splits(given.splits)
    report_benign(given.benign)
    report_recall(given.sentences)
    names.report(None, given.names)
    if given.ner is not None:
        names.report(given.ner, given.names)


def report_recall(count: int) -> None:
    """The share of planted values that are masked as what they are."""
    finder, planted, found = Finder(), Counter[str](), Counter[str]()
    missed: dict[str, str] = {}
    for entity, value, text in recall.sentences(count, seed=3):
        planted[entity] += 1
        start = text.index(value)
        if any(f.start <= start and start + len(value) <= f.end for f in finder.find(text)):
            found[entity] += 1
        else:
            missed.setdefault(entity, text)
    print(f"\n{count} sentences with one value each               masked   first missed")
    for entity in sorted(planted):
        print(f"ours, {entity:<38}{found[entity] / planted[entity]:>12.2%}   {missed.get(entity, '')!r}")
    print(f"{'ours, all':<44}{found.total() / planted.total():>12.2%}")


def report_benign(count: int) -> None:
    """The share of documents without personal data that masking changes."""
    finder, seen, changed = Finder(), Counter[str](), Counter[str]()
    blamed: dict[str, Counter[str]] = {}
    for kind, text in documents(count, seed=1):
        seen[kind] += 1
        if findings := finder.find(text):
            changed[kind] += 1
            blamed.setdefault(kind, Counter()).update(finding.entity for finding in findings)
    print(f"\n{count} documents without personal data          changed   by")
    for kind in sorted(seen):
        by = ", ".join(f"{entity} {times}" for entity, times in blamed.get(kind, Counter()).most_common())
        print(f"ours, {kind:<38}{changed[kind] / seen[kind]:>12.2%}   {by}")
    print(f"{'ours, all':<44}{changed.total() / seen.total():>12.2%}")


def report_splits(count: int) -> None:
    """Every place of ``count`` streams."""
    act, began = masker(Masking()), time.process_time()
    texts = list(sentences(count, seed=1))
    leaks = [leak for text in texts for leak in split_leaks(act, text)]
    cuts = sum(len(text) + 2 for text in texts)
    print(f"\n{count} streams cut at every place: {cuts} cuts, {len(leaks)} that give another text than the whole")
    print(f"{(time.process_time() - began) / cuts * 1e6:.0f} µs of CPU a cut (two pieces or more)")
    for leak in leaks[:5]:
        print(f"  {leak}")


if __name__ == "__main__":
    main()

"""What an inspection says, word for word: kept in ``vectors/findings.json`` by case, written anew by
``UPDATE_WORDS=1 pytest tests/unit/archive/test_inspection.py`` (then read the diff)."""

import json
import os
import re
from pathlib import Path

from governed_serving.archive.verify.findings import Findings

__all__ = ["UNCHANGED", "as_kept"]

UNCHANGED = "nothing changed"
"""The case with all its lines; of the others, what is more (+) and what is missing (-)."""

_KEPT = Path(__file__).parent / "vectors" / "findings.json"
_TESTS = "tests/unit/archive/test_inspection.py"
_CHANGING = (
    (re.compile(r"/\S*pytest-\S*?/(work|killed)\b"), "<folder>"),
    (re.compile(r"\S+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}"), "<verifier key>"),
    (re.compile(r"\b([0-9a-f]{2}/)?[0-9a-f]{64}\b"), "<SHA-256>"),
    (re.compile(r"\b[0-9a-f]{12}…"), "<SHA-256>…"),
    (re.compile(r"\b[0-9a-f]{32}\b|(?<=\.)[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\+[0-9a-f]{8}\b"), "+<hash>"),
    (re.compile(r"[A-Za-z0-9+/]{40,}"), "<signature>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "<time>"),
    (re.compile(r"[A-Za-z0-9+/]{43}="), "<root>"),
    (re.compile(r"\bkey \d{5,}"), "key <number>"),
    (re.compile(r"\bKEK [0-9a-f]{8,}|\bby key [0-9a-f]{8,}"), "<key>"),
)
"""What differs from run to run."""


def as_kept(case: str, found: Findings) -> None:
    """Raises AssertionError where the words, or what was looked at, differ from what is kept."""
    kept = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    now = _said(found)
    if case != UNCHANGED:
        whole = kept[UNCHANGED]
        now = [f"+ {line}" for line in now if line not in whole] + [f"- {line}" for line in whole if line not in now]
    if os.environ.get("UPDATE_WORDS"):
        kept = dict(sorted({**kept, case: now}.items()))
        _KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    assert now == kept.get(case), f"{case}: UPDATE_WORDS=1 pytest {_TESTS}, then read the diff of {_KEPT.name}"


def _said(found: Findings) -> list[str]:
    """A line for each finding; sorted, because some are found in the order of their digests."""
    parts = {"wrong": found.wrong, "unchecked": found.unchecked, "beyond": found.beyond, "holds": found.holds}
    lines = [one for part, those in parts.items() for one in sorted(_constant(f"{part}: {one}") for one in those)]
    return [f"status: {found.status}", *lines]


def _constant(text: str) -> str:
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text

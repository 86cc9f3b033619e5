"""The allow-list of `tests/run mutants` keeps up with the sources."""

from functools import cache
from pathlib import Path

import pytest

from mutants.equivalent import Equivalent, equivalents
from mutants.planting import mutants

ROOT = Path(__file__).parents[3]


@cache
def keys(path: str) -> frozenset[tuple[str, str, str]]:
    return frozenset(m.key for m in mutants(ROOT, path))


@pytest.mark.parametrize("entry", equivalents(), ids=lambda e: f"{Path(e.path).name}: {e.change}")
def test_an_allowed_mutant_exists_and_says_why(entry: Equivalent) -> None:
    """An entry whose line was changed or mended is not needed any more."""
    assert len(entry.reason) > 20
    assert (ROOT / entry.path).is_file(), "its file is gone: delete the entry"
    assert entry.key in keys(entry.path), "fits no mutant any more: delete the entry"

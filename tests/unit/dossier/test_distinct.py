"""Different ids are counted exactly, in little memory."""

import tracemalloc

import pytest

from governed_serving.dossier import distinct
from governed_serving.dossier.distinct import Distinct


@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_each_is_counted_once_however_often_and_in_whatever_order(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(distinct, "_AT_LEAST", at_once)
    ids = Distinct()
    assert len(ids) == 0
    for n in [*range(500), *range(250, 800), *range(10)]:
        ids.add(f"id-{n}")
        if n % 97 == 0:
            len(ids)
    assert len(ids) == 800


def test_what_is_kept_is_eight_bytes_each() -> None:
    ids = Distinct()
    tracemalloc.start()
    try:
        for n in range(100_000):
            ids.add(str(n))
        assert len(ids) == 100_000
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000

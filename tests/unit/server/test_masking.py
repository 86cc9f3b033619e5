"""The masker's frame: what is remembered, and that remembering changes nothing."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.server.masking import REMEMBERED_TEXTS, Masking


class Counting:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def mask_many(self, texts: Sequence[str]) -> list[str]:
        self.seen += texts
        return [t.replace("7", "#") for t in texts]


@given(st.lists(st.lists(st.text("ab7", max_size=60), max_size=8), max_size=8))
def test_remembering_changes_no_answer(batches: list[list[str]]) -> None:
    masking = Masking(Counting(), "Closed")
    for batch in batches:
        assert masking.texts(batch) == [t.replace("7", "#") for t in batch]


def test_clean_short_texts_are_searched_once_others_always() -> None:
    masker = Counting()
    masking = Masking(masker, "Closed")
    long = "x" * 100
    for _ in range(3):
        masking.texts(["rent", "7", long])
    assert masker.seen.count("rent") == 1
    assert masker.seen.count("7") == 3
    assert masker.seen.count(long) == 3


def test_memory_is_bounded() -> None:
    masking = Masking(Counting(), "Closed")
    masking.texts([f"w{'a' * (k % 40)}{'b' * (k // 40)}"[:48] for k in range(3 * REMEMBERED_TEXTS)])
    assert len(masking._clean) <= REMEMBERED_TEXTS


def test_columns_keep_their_shape() -> None:
    masking = Masking(Counting(), "Closed")
    column = np.array([["a7"], ["b"]], object)
    assert masking.column(column).tolist() == [["a#"], ["b"]]

"""The masker's frame: what is remembered, and that remembering changes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.privacy import Finding, Masker
from governed_serving.privacy.masker import REMEMBERED_TEXTS
from governed_serving.server.errors import MaskingFailed
from governed_serving.server.masking import Masking


class Counting:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, text: str) -> list[Finding]:
        self.seen.append(text)
        return sevens(text)


def sevens(text: str) -> list[Finding]:
    return [Finding("SEVEN", k, k + 1) for k, char in enumerate(text) if char == "7"]


def masking_of(find: Callable[[str], list[Finding]], policy: Any = "Closed") -> Masking:
    return Masking(Masker(find, lambda *_: "#", policy))


@given(st.lists(st.lists(st.text("ab7", max_size=60), max_size=8), max_size=8))
def test_remembering_changes_no_answer(batches: list[list[str]]) -> None:
    masking = masking_of(Counting())
    for batch in batches:
        assert masking.texts(batch) == [t.replace("7", "#") for t in batch]


def test_clean_short_texts_are_searched_once_others_always() -> None:
    masker = Counting()
    masking = masking_of(masker)
    long = "x" * 100
    for _ in range(3):
        masking.texts(["rent", "7", long])
    assert masker.seen.count("rent") == 1
    assert masker.seen.count("7") == 3
    assert masker.seen.count(long) == 3


def test_memory_is_bounded() -> None:
    masking = masking_of(Counting())
    masking.texts([f"w{'a' * (k % 40)}{'b' * (k // 40)}"[:48] for k in range(3 * REMEMBERED_TEXTS)])
    assert len(masking._masker._clean) <= REMEMBERED_TEXTS


def test_columns_keep_their_shape() -> None:
    masking = masking_of(Counting())
    column = np.array([["a7"], ["b"]], object)
    assert masking.column(column).tolist() == [["a#"], ["b"]]


@pytest.mark.parametrize("policy", ["Closed", "Open"])
def test_the_policy_is_the_maskers_and_a_text_that_errs_is_never_remembered_as_clean(policy: Any) -> None:
    seen: list[str] = []

    def find(text: str) -> list[Finding]:
        seen.append(text)
        if text == "boom":
            raise RuntimeError("secret must not appear")
        return sevens(text)

    masking = masking_of(find, policy)
    for _ in range(2):
        if policy == "Closed":
            with pytest.raises(MaskingFailed, match="found RuntimeError; the request is refused") as caught:
                masking.texts(["7", "boom", "7"])
            assert "secret" not in str(caught.value)
        else:
            assert masking.texts(["7", "boom", "7"]) == ["#", "boom", "#"], "its neighbours are masked all the same"
    assert masking.failures == seen.count("boom") == 2

"""Segmentation: CJK characters stand alone, words stay whole, doing it twice changes nothing."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.artefact import CJK_CHARACTERS, segment


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Hello,  world!", "Hello , world !"),
        ("我的手机13812345678", "我 的 手 机 13812345678"),
        ("ＡＢＣ１２３", "ABC123"),
        ("phone <PHONE_NUMBER>.", "phone < PHONE_NUMBER > ."),
        ("한글 カナ", "한 글 カ ナ"),
        ("", ""),
    ],
)
def test_examples(text: str, want: str) -> None:
    assert segment([text], CJK_CHARACTERS) == [want]


@given(st.text())
def test_idempotent_and_loses_no_word_characters(text: str) -> None:
    (once,) = segment([text], CJK_CHARACTERS)
    assert segment([once], CJK_CHARACTERS) == [once]


@given(st.text())
def test_spaces_go_around_every_single_mark_and_cjk_character(text: str) -> None:
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    spaced = re.sub(
        "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]|[^\\w\\s]",
        r" \g<0> ",
        folded,
    )
    assert segment([text], CJK_CHARACTERS) == [" ".join(spaced.split())]


def test_none_leaves_text_alone() -> None:
    assert CJK_CHARACTERS == "cjk-characters", "it stands in every model.json"
    assert segment(["a  你好"], "") == ["a  你好"]


def test_unknown_segmentation_is_refused() -> None:
    with pytest.raises(ValueError, match="newer"):
        segment(["x"], "words")

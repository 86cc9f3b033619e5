"""A text that comes in pieces is masked as the whole is, wherever it was cut; and no more is held than must be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import Masking
from governed_serving.privacy import Finding, Masker, MaskingError, TextStream, masker
from governed_serving.privacy.tail import LONGEST, undecided

from .numbers_made import PLANTED

MASKER = masker(Masking())


def streamed(pieces: list[str], act: Masker = MASKER) -> list[str]:
    """What each piece lets go, and the rest."""
    stream = TextStream(act)
    return [*(stream.add(piece).text for piece in pieces), stream.flush().text]


BETWEEN = st.sampled_from(
    [
        "您好",
        "，",
        "请联系",
        "。",
        " ",
        " call ",
        "Hello, ",
        '{"a": "',
        '"}',
        "\n",
        "：",
        "(",
        ") ",
        "1.50, ",
        "\u200b",
        "1",
        "+",
    ]
)
TEXTS = st.lists(st.one_of(BETWEEN, *PLANTED.values()), min_size=2, max_size=8).map("".join)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(TEXTS)
def test_every_cut_of_every_text_gives_what_the_whole_text_gives(text: str) -> None:
    """A smoke size; tests/bench/privacy/run --splits has the rest."""
    whole = MASKER.mask(text)
    wrong = [cut for cut in range(len(text) + 1) if "".join(streamed([text[:cut], text[cut:]])) != whole]
    assert wrong == []


@settings(max_examples=40, derandomize=True, deadline=None)
@given(TEXTS, st.integers(1, 8))
def test_pieces_of_any_size_give_what_the_whole_text_gives(text: str, size: int) -> None:
    pieces = [text[k : k + size] for k in range(0, len(text), size)]
    assert "".join(streamed(pieces)) == MASKER.mask(text)


HELD = [
    ("Hello", "Hello"),
    ("Hello, ", ""),
    ("Hello there", "there"),
    ("Hello 138 0013 ", "138 0013 "),
    ("Hello 138 0013 there", "there"),
    ("at (555) 12", "(555) 12"),
    ("1, 2, 3, ", ""),
    ("costs 1,234.", "1,234."),
    ("DE89 3704 WEST 01", "DE89 3704 WEST 01"),
    ("您好，请联系", "请联系"),
    ("您好。", ""),
    ("电话：138", "：138"),
    ("车牌京A 12", "京A 12"),
    ('he said "john d', '"john d'),
    ('he said "john d" and ', '" and '),
    ("at alice@[192.168.", "alice@[192.168."),
    ("138\u200b0013\u202e8", "138\u200b0013\u202e8"),
    ("１３８ ００１３", "１３８ ００１３"),
]


@pytest.mark.parametrize(("text", "held"), HELD, ids=range(len(HELD)))
def test_only_what_could_become_an_entity_is_held(text: str, held: str) -> None:
    assert text[undecided(text) :] == held


def test_addresses_that_are_not_looked_for_hold_nothing() -> None:
    assert undecided("您好请联系", addresses=False) == 5


@pytest.mark.parametrize("text", ["1 " * 5000, "9" * 5000, "字" * 5000, "a@" * 5000, '"' * 5000, "\u200b1" * 5000])
def test_what_is_held_is_bounded_and_all_comes_out(text: str) -> None:
    stream, out = TextStream(MASKER), []
    for k in range(0, len(text), 7):
        out.append(stream.add(text[k : k + 7]).text)
        assert stream.taken - stream.released <= LONGEST
    out.append(stream.flush().text)
    assert "".join(out) == text


def test_chinese_is_held_no_longer_than_a_local_part_can_be() -> None:
    stream = TextStream(MASKER)
    stream.add("字" * 100)
    assert stream.taken - stream.released == 64 // 3


def test_hidden_places_are_those_of_the_text_as_it_came() -> None:
    stream = TextStream(MASKER)
    for piece in ("x" * 500 + " ", "13812", "345678 ", "and "):
        stream.add(piece)
    assert [stream.hides(*span) for span in ((0, 501), (501, 503), (511, 512), (512, 516))] == [
        False,
        True,
        True,
        False,
    ]


def test_a_finding_longer_than_anything_can_be_is_masked_as_far_as_it_came() -> None:
    act = Masker(lambda text: [Finding("LONG", 0, len(text))], lambda entity, _: f"<{entity}>")
    out = streamed(["x" * 300, "x" * 300, "x" * 300], act)
    assert "x" not in "".join(out)


def test_what_cannot_be_searched_lets_nothing_go() -> None:
    def broken(_: str) -> list[Finding]:
        raise RuntimeError("secret")

    stream = TextStream(Masker(broken, lambda *_: ""))
    with pytest.raises(MaskingError):
        stream.add("secret text ")

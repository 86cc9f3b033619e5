"""Text of others acts on no terminal, and JSON stays what it was."""

import json
import unicodedata

import pytest

from governed_api.printable import printable

ACTING = (
    "\x1b[2J\x1b[H", "\r", "\x9b2J", "\x07", "\b\b\b", "\u202e", "\u2066", "\u2028", "\x7f", "\ufeff", "\U000e0041",
    "\0",
)  # fmt: skip


@pytest.mark.parametrize("acting", ACTING)
def test_what_acts_is_written_as_an_escape(acting: str) -> None:
    made = printable(f"id{acting}verified")
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Cs") for c in made)
    assert made.startswith("id\\u") or made == "id\\rverified"
    assert printable(made) == made
    assert json.loads(f'"{made}"') == f"id{acting}verified"


@pytest.mark.parametrize(
    "text", ["", "plain", "Zoë", "申请", "a\u3000b", "نمی\u200cخواهم", "👩\u200d💻", "e\u0308", "\ue0b0", "a b"]
)
def test_what_shows_stays(text: str) -> None:
    assert printable(text) == text


def test_lines_stay_where_they_are_wanted() -> None:
    assert printable("a\nb") == "a\\nb"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\u001b"


def test_half_a_character_can_be_written() -> None:
    assert printable("x\udcff").encode() == b"x\\udcff"


def test_indented_json_says_the_same() -> None:
    said = {"id": "\x1b[2J\nverified\u202e", "more": ["\x9b", "\U000e0041", {"\r": "\t"}]}
    shown = printable(json.dumps(said, ensure_ascii=False, indent=2), keep="\n")
    assert json.loads(shown) == said
    assert "\x9b" not in shown

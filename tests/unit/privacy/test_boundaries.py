"""Where recognisers, folding and masking begin and end: the shortest number of each kind, each country, each bound."""

import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from governed_api.governance import Masking
from governed_serving.crypto import DirectoryStore, Kek, KeyMissing, Keyring
from governed_serving.privacy import Finder, Finding, Hook, masker, scan, unmask, validators
from governed_serving.privacy.actions import action
from governed_serving.privacy.finder import _PASS
from governed_serving.privacy.folding import fold, fold_table
from governed_serving.privacy.masker import Masker
from governed_serving.privacy.recognisers import PROVINCES, RECOGNISERS

from .numbers_made import credit_code, iban, resident_id, with_luhn

FINDER = Finder()
REGISTRY = """
AD1200012030200359100100 AE070331234567890123456 AT611904300234573201 BE68539007547034 BG80BNBG96611020345678
CH9300762011623852957 CY17002001280000001200527600 CZ6508000000192000145399 DE89370400440532013000 DK5000400440116243
EE382200221020145685 ES9121000418450200051332 FI2112345600000785 FR1420041010050500013M02606 GB29NWBK60161331926819
GR1601101250000000012300695 HR1210010051863000160 HU42117730161111101800000000 IE29AIBK93115212345678
IL620108000000099999999 IS140159260076545510730339 IT60X0542811101000000123456 LI21088100002324013AA
LT121000011101001000 LU280019400644750000 LV80BANK0000435195001 MC5811222000010123456789030
MT84MALT011000012345MTLCAST001S NL91ABNA0417164300 NO9386011117947 PL61109010140000071219812874
PT50000201231234567890154 RO49AAAA1B31007593840000 SA0380000000608010167519 SE4550000000058398257466 SI56263300012039086
SK3112000000198742637541 SM86U0322509800000000270100 TR330006100519786457841326
""".split()  # noqa: SIM905
"""The examples of the IBAN registry (SWIFT, ISO 13616)."""
SEVEN_DIGITS = iban("MT", "MALT01100XCDEFGHIJKLMNOPQRS")


def found(text: str) -> list[tuple[str, str]]:
    return [(f.entity, text[f.start : f.end]) for f in FINDER.find(text)]


@pytest.mark.parametrize("value", REGISTRY)
def test_each_country_has_its_length(value: str) -> None:
    country, account = value[:2], value[4:]
    assert iban(country, account) == value
    assert validators.iban(value)
    assert not validators.iban(iban(country, account + "0"))
    assert not validators.iban(iban(country, account[:-1]))


def test_a_country_that_is_not_listed_is_judged_by_check_digits() -> None:
    assert validators.iban(iban("XZ", "0123456789"))
    assert validators.iban(iban("XZ", "012345678901"))
    assert not validators.iban("XZ" + "00" + "0123456789")


@pytest.mark.parametrize(
    ("birthday", "valid"),
    [
        *[("18491231", False), ("18500101", True), ("21001231", True), ("21010101", False), ("20230229", False)],
        *[("20240229", True), ("20241301", False), ("20240001", False), ("20240432", False), ("20240100", False)],
    ],
)
def test_a_resident_has_a_birthday(birthday: str, valid: bool) -> None:
    assert validators.resident_id(resident_id("110105", birthday, "002")) is valid
    assert not validators.resident_id(resident_id("010105", birthday, "002"))


@pytest.mark.parametrize(
    ("value", "valid"), [("130503670431001", False), ("130503670430001", True), ("030503670430001", False)]
)
def test_a_resident_of_before_1999_too(value: str, valid: bool) -> None:
    assert validators.resident_id(value) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [("京A1BCD2", True), ("京AB12CD", True), ("京AB1CDE", False), ("京A1BCDE", False), ("京ABCD12", True)],
)
def test_a_plate_has_two_digits_after_its_letter(value: str, valid: bool) -> None:
    assert validators.plate(value) is valid


@pytest.mark.parametrize("province", PROVINCES)
@pytest.mark.parametrize("letter", "AHJNPZ")
def test_plates_of_every_province(province: str, letter: str) -> None:
    plate = f"{province}{letter}1234Z"
    assert found(f"车牌{plate}，") == [("CN_PLATE", plate)]


@pytest.mark.parametrize("address", ["fe80:a:b:c:d:e:f:1", "a:b:c:d:e:f:a:9", "2::", "::a1"])
def test_addresses_of_every_form(address: str) -> None:
    assert found(f"from {address} at") == [("IP_ADDRESS", address)]


def _credit_code(body: str, digit: bool) -> str:
    """The first code that goes on like ``body`` and whose check character is a digit, or none."""
    alphabet = "0123456789" if digit else "ABCDEFGH"
    codes = (credit_code(body + a + b) for a in alphabet for b in alphabet)
    return next(c for c in codes if c[-1].isdigit() == digit)


SHORTEST = [
    ("CN_RESIDENT_ID", "130503670401001", "130503670401001"),
    ("CN_CREDIT_CODE", _credit_code("AA110000AAAAAAA", False), _credit_code("911100001000001", True)),
    ("IBAN", SEVEN_DIGITS, None),
    ("BANK_CARD", "4222222222222", "4222222222222"),
    ("PHONE_NUMBER", "+123 4567", "400-123-4567"),
    ("CN_PASSPORT", "EA1234567", None),
    ("US_SSN", "123-45-6789", "123-45-6789"),
]


@pytest.mark.parametrize(("entity", "least", "bare"), SHORTEST)
def test_the_shortest_number_of_a_kind_is_found_and_no_shorter_one_is_looked_for(
    entity: str, least: str, bare: str | None
) -> None:
    (recogniser,) = [r for r in RECOGNISERS if r.entity == entity]
    assert found(f"a:{least}") == [(entity, least)]
    assert recogniser.digits == sum(c.isdigit() for c in least)
    if bare is None:
        assert recogniser.bare == float("inf")  # always has a letter
    else:
        assert found(bare) == [(entity, bare)]
        assert recogniser.bare == sum(c.isdigit() for c in bare)


def test_an_iban_among_other_characters_has_seven_digits_or_more() -> None:
    six = iban("MT", "MALT0110XXCDEFGHIJKLMNOPQRS")
    assert found(f"a:{six}") == []


@pytest.mark.parametrize(("digits", "valid"), [(6, False), (7, True), (20, True), (21, False)])
def test_a_phone_number_has_7_to_20_characters(digits: int, valid: bool) -> None:
    (recogniser,) = [r for r in RECOGNISERS if r.entity == "PHONE_NUMBER"]
    assert recogniser.check is not None
    assert recogniser.check("1" * digits) is valid


@pytest.mark.parametrize(
    "phone", ["138-0013-8000", "1380 013 8000", "1380-013-8000", "0571-8888-8888", "(0571) 888-8888"]
)
def test_phones_in_every_grouping(phone: str) -> None:
    assert found(f"电话{phone}。") == [("PHONE_NUMBER", phone)]


def test_what_stands_before_a_number_is_looked_at() -> None:
    assert found("A1 212-555-1234") == [("PHONE_NUMBER", "212-555-1234")]
    assert found("1 212-555-1234") == [("PHONE_NUMBER", "1 212-555-1234")]


def test_a_letter_after_a_province_belongs_to_what_follows_where_it_is_no_plate() -> None:
    assert found("京Ax@bb.cn") == [("EMAIL", "Ax@bb.cn")]


def test_findings_may_touch() -> None:
    assert found("2::(212) 555-1234") == [("IP_ADDRESS", "2::"), ("PHONE_NUMBER", "(212) 555-1234")]


@pytest.mark.parametrize(("issuer", "valid"), [("2220", False), ("2221", True), ("2720", True), ("2721", False)])
def test_mastercards_second_range_has_both_ends(issuer: str, valid: bool) -> None:
    assert validators.payment_card(with_luhn(f"{issuer}00000000001")) is valid


def test_one_digit_again_and_again_is_no_card() -> None:
    assert validators.luhn("6" * 13)
    assert not validators.payment_card("6" * 13)


def test_a_finding_as_far_from_the_end_as_from_the_start_hides_no_other() -> None:
    text = "10.0.0.1:a@bb.cn" + ")" * 9
    assert found(text) == [("IP_ADDRESS", "10.0.0.1"), ("EMAIL", "a@bb.cn")]


def test_a_hook_may_begin_where_a_pattern_ended_and_end_where_one_begins() -> None:
    finder = Finder(hooks=[Hook("NAME", lambda _: [(7, 9), (0, 0)])])
    assert finder.find("a@bb.cn张三") == [Finding("EMAIL", 0, 7), Finding("NAME", 7, 9)]
    finder = Finder(hooks=[Hook("NAME", lambda _: [(0, 2)])])
    assert finder.find("张三13800138000") == [Finding("NAME", 0, 2), Finding("PHONE_NUMBER", 2, 13)]


def test_folding_is_unicodes_own_for_every_character() -> None:
    """Digits of any form, NFKC where that has ASCII that matters; spaces, dashes and what shows nothing of its own by
    their categories, and by name where Unicode calls them letters or symbols."""
    wanted = {
        ord("（"): "(",
        ord("）"): ")",
        ord("："): ":",
        ord("。"): ".",
        ord("｡"): ".",
        ord("➕"): "+",
        0x2800: " ",
    }
    wanted |= dict.fromkeys(map(ord, "˗⁃⁻₋−⎯─━➖ー"), "-")
    wanted |= dict.fromkeys((0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xE0000, 0xE1000)), "")
    wanted |= {first + n: chr(65 + n) for first in map(ord, "🅐🅰🇦") for n in range(26)}
    for code in range(0x80, sys.maxunicode + 1):
        char, category = chr(code), unicodedata.category(chr(code))
        normal = unicodedata.normalize("NFKC", char)
        if code in wanted or code == 0x85:
            continue
        if category in ("Mn", "Me", "Cf", "Cc"):
            wanted[code] = ""
        elif category in ("Zs", "Pd"):
            wanted[code] = " " if category == "Zs" else "-"
        elif (digit := unicodedata.digit(char, None)) is not None:
            wanted[code] = str(digit)
        elif any(c.isascii() and (c.isalnum() or c in "@._+-") for c in normal):
            wanted[code] = normal
    wanted |= dict.fromkeys((*range(9), *range(14, 32), 127), "")
    assert fold_table() == wanted


def test_what_is_folded_needs_no_folding() -> None:
    """So that a folded text can be searched: nothing in it asks for folding again."""
    for folded in set(fold_table().values()):
        assert fold(folded) == folded
        for text in (folded, f"1{folded}1", folded * 2, f"a{folded}a"):
            assert all(text[m.start() : m.end()].isascii() for m in _PASS.finditer(text))


def test_texts_scanned_together_stay_apart_and_all_count() -> None:
    many = ["13800138000", "XY", "E12345678 x", *["-" * 1000] * 70, "a@bb.cn", "XY", "-" * 70000, "13800138001", "XY"]
    assert scan(many) == Counter({"PHONE_NUMBER": 2, "CN_PASSPORT": 1, "EMAIL": 1})
    assert scan(["-" * (1 << 16), "13800138000"]) == Counter({"PHONE_NUMBER": 1})


def test_any_number_of_texts_is_scanned_in_pieces() -> None:
    pieces: list[int] = []

    class Watched(Finder):
        def count(self, text: str) -> dict[str, int]:
            pieces.append(len(text))
            return {}

    scan(("-" * 999 for _ in range(1000)), Watched())
    assert sum(pieces) > 990_000
    assert max(pieces) < 1 << 18


def test_short_clean_texts_are_searched_once_and_memory_is_bounded() -> None:
    searched: Counter[str] = Counter()

    def find(text: str) -> list[Finding]:
        searched[text] += 1
        return [Finding("SECRET", 0, 6)] if text == "secret" else []

    masking = Masker(find, lambda *_: "")
    short, long, secret = "x" * 48, "x" * 49, "secret"
    for _ in range(2):
        assert masking.mask_many([short, long, secret]) == [short, long, ""]
    assert (searched[short], searched[long], searched[secret]) == (1, 2, 2)
    fill = [f"text {n}" for n in range(4095)]
    masking.mask_many([*fill, short])
    assert searched[short] == 1  # 4,096 are remembered
    masking.mask_many(["one more", short])
    assert searched[short] == 2


def test_digests_are_of_96_bits_and_partial_leaves_a_quarter(tmp_path: Path) -> None:
    keyring = Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path))
    assert len(action("Hash", keyring)("EMAIL", "a@bb.cn")) == len("<EMAIL#>") + 24
    partial = action("Partial", None)
    shown = {"abc": "***", "abcd": "***d", "abcdefg": "******g", "a-bcdefgh": "*-***efgh", "abcdefghi": "*****fghi"}
    assert {value: partial("", value) for value in shown} == shown
    with pytest.raises(ValueError, match=r"masking action: expected one of Redact, Replace, Hash, .*found 'Rot13'"):
        action("Rot13", keyring)


def test_tokens_of_any_length_come_back_and_no_key_is_made_to_read_them(tmp_path: Path) -> None:
    keyring = Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path))
    with pytest.raises(KeyMissing, match="no 'masking-tokens' keyset"):
        unmask("<EMAIL~abcd>", keyring)
    assert keyring.inventory() == []
    token = action("Tokenize", keyring)
    for length in range(17):
        value = "x" * length
        assert unmask(f"<{token('EMAIL', value)}>", keyring) == f"<{value}>"
    masking = masker(Masking(action="Tokenize"), keyring)
    assert unmask(masking.mask("to a@bb.cn"), keyring) == "to a@bb.cn"

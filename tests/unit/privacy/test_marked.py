"""Secrets, addresses of machines, what only a word before it tells, odd separators of numbers: whole and streamed."""

import pytest

from governed_api.governance import Masking
from governed_serving.privacy import Finder, TextStream, masker, validators
from governed_serving.privacy.marked import FIRST, LATER
from governed_serving.privacy.tail import LONGEST_SECRET

FINDER, MASKER = Finder(), masker(Masking())
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7vB3\n" * 60 + "-----END RSA PRIVATE KEY-----"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + "abc_-" * 150

VALUES = [
    ("PHONE_NUMBER", "138.0013.8000"), ("PHONE_NUMBER", "138/0013/8000"), ("PHONE_NUMBER", "13800 138000"),
    ("PHONE_NUMBER", "1 380 013 8000"), ("PHONE_NUMBER", "138-001-38000"),
    ("IBAN", "gb82 west 1234 5698 7654 32"), ("IBAN", "de89-3704-0044-0532-0130-00"),
    ("IBAN", "de89370400440532013000"), ("IBAN", "GB82-WEST-1234-5698-7654-32"),
    ("MAC_ADDRESS", "00:1A:2b:3C:4d:5E"), ("MAC_ADDRESS", "00-1a-2b-3c-4d-5e"), ("MAC_ADDRESS", "001a.2b3c.4d5e"),
    ("API_KEY", "sk-proj-abcdefghij0123456789ABCD"), ("API_KEY", "ghp_" + "a1B2" * 9),
    ("API_KEY", "AKIAIOSFODNN7EXAMPLE"),
    ("API_KEY", "glpat-abcdefghij0123456789"), ("API_KEY", "xoxb-123456789012-abcdef"), ("API_KEY", TOKEN),
    ("API_KEY", f"gmk_{'a2' * 8}_{'-Z9_' * 10}abc"),
    ("PRIVATE_KEY", PEM), ("PRIVATE_KEY", PEM[:400].rstrip()),
]  # fmt: skip
SAID = [
    ("CN_RESIDENT_ID_UNCHECKED", "身份证号：", "110105194912310021"),
    ("CN_RESIDENT_ID_UNCHECKED", "ID card no: ", "110105 19491231 0021"),
    ("CN_TRAVEL_PERMIT", "港澳通行证 ", "C12345678"),
    ("CN_TRAVEL_PERMIT", "回乡证号码:", "H1234567801"),
    ("CN_TRAVEL_PERMIT", "台胞证（", "12345678"),
    ("CN_TRAVEL_PERMIT", "travel permit number: ", "CA1234567"),
    ("DATE_OF_BIRTH", "出生日期：", "1980年3月12日"),
    ("DATE_OF_BIRTH", "生日", "1980-03-12"),
    ("DATE_OF_BIRTH", "born on ", "12 March 1980"),
    ("DATE_OF_BIRTH", "Date of birth: ", "March 12, 1980"),
    ("DATE_OF_BIRTH", "DOB ", "12/03/1980"),
    ("URL_CREDENTIALS", "https://", "user:pa$$w0rd"),
    ("URL_CREDENTIALS", "postgres://", "admin:s3cret!*"),
]
CASES = [(entity, "see ", value, ", ok") for entity, value in VALUES] + [
    (entity, before, value, "@db:5432/x" if entity == "URL_CREDENTIALS" else "。好") for entity, before, value in SAID
]


@pytest.mark.parametrize(("entity", "before", "value", "behind"), CASES, ids=range(len(CASES)))
def test_it_is_found_whole_and_streamed(entity: str, before: str, value: str, behind: str) -> None:
    if value == PEM[:400].rstrip():
        behind = ""  # cut: it reaches to the end
    text = before + value + behind
    assert [(f.entity, text[f.start : f.end]) for f in FINDER.find(text)] == [(entity, value)]
    for size in (1, 2, 3, 7, 11):
        stream = TextStream(MASKER)
        pieces = [stream.add(text[k : k + size]).text for k in range(0, len(text), size)]
        assert "".join([*pieces, stream.flush().text]) == f"{before}<{entity}>{behind}"


@pytest.mark.parametrize(
    "text",
    [
        "1234.5678.9012", "at 10:20:30:40:50:60x", "http://a/b:c@d", "2024-01-02-03-04-05", "sk-short",
        "born in 1980 in Rome",
        "-----BEGIN CERTIFICATE-----\nabc\n", "10.5/20.5/30", "2026/11/29", "order C12345678X",
        "birthday party on Friday",
        "trace=ca5592e81aaae2c0a9797f8570cb45ec", "fc570dd0-e7f0-4e9c-a982-148c1aaaaaaa", "身份证号：123",
    ],
)  # fmt: skip
def test_what_only_looks_so_stays(text: str) -> None:
    assert FINDER.find(text) == []


def test_an_identity_number_with_its_check_digit_is_counted_as_that() -> None:
    assert FINDER.count("身份证号：11010519491231002X") == {"CN_RESIDENT_ID": 1}


def test_only_the_marks_asked_for() -> None:
    assert Finder(["API_KEY"]).count("AKIAIOSFODNN7EXAMPLE 00:1A:2b:3C:4d:5E") == {"API_KEY": 1}


def test_every_mark_is_shown_here() -> None:
    assert {mark.entity for mark in (*FIRST, *LATER)} <= {case[0] for case in CASES}


def test_a_secret_without_end_is_held_to_its_bound() -> None:
    stream, out = TextStream(MASKER), []
    for piece in [PEM[:32], *["MIIEpAIBAAKCAQEA7vB3\n"] * 1000]:
        out.append(stream.add(piece).text)
        assert stream.taken - stream.released <= LONGEST_SECRET + 64
    assert "".join(out).count("MIIE") <= 1000 - LONGEST_SECRET // 21


def test_ibans_in_lower_case_are_of_known_countries() -> None:
    assert validators.iban("de89370400440532013000")
    assert not validators.iban("zz" + "89370400440532013000")

"""Checksums against published examples, and against what one wrong character does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_serving.privacy import validators

from .numbers_made import CODE_ALPHABET, PLANTED


@pytest.mark.parametrize("value", ["11010519491231002X", "440524188001010014", "110105491231002"])
def test_resident_ids_of_the_standard(value: str):
    assert validators.resident_id(value)


@pytest.mark.parametrize(
    "value", ["110105194912310021", "11010519491331002X", "11010519490230002X", "01010519491231002X"]
)
def test_wrong_resident_ids(value: str):
    assert not validators.resident_id(value)


@pytest.mark.parametrize(
    "value", ["79927398713", "4111111111111111", "378282246310005", "6011111111111117", "5555555555554444"]
)
def test_luhn_examples(value: str):
    assert validators.luhn(value)
    assert not validators.luhn(value[:-1] + str((int(value[-1]) + 1) % 10))


def test_cards_of_no_issuer_or_of_one_digit_are_none():
    assert not validators.payment_card("1111111111111117")
    assert not validators.payment_card("0000000000000000")
    assert validators.payment_card("2221000000000009")


@pytest.mark.parametrize("value", ["91350100M000100Y43", "91110000600037341L"])
def test_published_credit_codes(value: str):
    assert validators.credit_code(value)
    assert validators.credit_code(value.lower())


@pytest.mark.parametrize(
    "value", ["GB82WEST12345698765432", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"]
)
def test_ibans_of_the_registry(value: str):
    assert validators.iban(value)
    assert not validators.iban(value[:-1] + ("0" if value[-1] != "0" else "1"))
    assert not validators.iban(value + "0")


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("2001:db8::1", True),
        ("1:2:3:4:5:6:1.2.3.4", True),
        ("1:2:3:4:5:6:7:8", True),
        ("::1", True),
        ("10:30:45", False),
        ("abc::def", False),
        ("1::2::3", False),
    ],
)
def test_ipv6(value: str, good: bool):
    assert validators.ipv6(value) is good


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("123456789", True),
        ("000456789", False),
        ("666456789", False),
        ("923456789", False),
        ("123006789", False),
        ("123450000", False),
    ],
)
def test_ssn(value: str, good: bool):
    assert validators.ssn(value) is good


@given(PLANTED["CN_RESIDENT_ID"], st.integers(0, 17), st.sampled_from("0123456789"))
def test_one_wrong_character_in_a_resident_id_is_noticed(value: str, place: int, other: str):
    assert validators.resident_id(value)
    if value[place] != other:
        assert not validators.resident_id(value[:place] + other + value[place + 1 :])


@given(PLANTED["CN_CREDIT_CODE"], st.integers(8, 17), st.sampled_from(CODE_ALPHABET))
def test_one_wrong_character_in_a_credit_code_is_noticed(value: str, place: int, other: str):
    assert validators.credit_code(value)
    if value[place] != other:
        assert not validators.credit_code(value[:place] + other + value[place + 1 :])

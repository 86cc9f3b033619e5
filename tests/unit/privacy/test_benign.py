"""Numbers that are nobody's stay as they are: fractions, versions, product codes, hashes; and what is beside them is
found all the same."""

import pytest

from governed_serving.privacy import Finder, validators

FINDER = Finder()

NOBODYS = [
    "[0.4111111111111111, -1.13812345678, 4.111111111111111e-05]",
    "0.6542785104495,0.30116512345671234",
    "rate = 2.13800138000",
    "13800138000.25",
    "Chrome/120.0.0.0 Safari/537.36", "version 1.2.3.4", "Version=4.0.0.0", "Windows 10.0.1.2",
    "release: 10.1.2.3", "版本号：1.2.3.4",
    "EAN 4006381333931", "4009194205792",
    "0x903131f1305647e4", "123e4567-e89b-12d3-a456-426614174000", "d41d8cd98f00b204e9800998ecf8427e",
    "¥1,234,567.89", "1700000000.123456", "1699999999999", "2026-11-29T10:30:00.123456Z",
    "990105194912310029", "991231491231002",  # of no province
    "412345678901237",  # Visa has no cards of 15 digits
]  # fmt: skip


@pytest.mark.parametrize("text", NOBODYS)
def test_numbers_that_are_nobodys_stay(text: str) -> None:
    assert FINDER.find(text) == []


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("13800138000,13900139000", ["PHONE_NUMBER"] * 2),
        ("7,13800138000,0.5", ["PHONE_NUMBER"]),
        ("call 13800138000. 5 people", ["PHONE_NUMBER"]),
        ("[0.5, 13800138000]", ["PHONE_NUMBER"]),
        ("at 10.1.2.3, version 1.2.3.4", ["IP_ADDRESS"]),
        ("http://10.1.2.3/a 10.1.2.4/24", ["IP_ADDRESS"] * 2),
        ("4111111111111111.", ["BANK_CARD"]),
        ("手机.13800138000", ["PHONE_NUMBER"]),
        ("13800138000。13900139000", ["PHONE_NUMBER"] * 2),
        ("E12973926。GB82WEST12345698765432", ["CN_PASSPORT", "IBAN"]),
    ],
)
def test_what_is_beside_a_point_or_a_comma_is_found(text: str, entities: list[str]) -> None:
    assert [finding.entity for finding in FINDER.find(text)] == entities


@pytest.mark.parametrize(
    ("number", "network"),
    [
        ("4222222222222", "Visa, 13"), ("4111111111111111", "Visa"), ("5555555555554444", "Mastercard"),
        ("378282246310005", "American Express"), ("30569309025904", "Diners Club"), ("6011111111111117", "Discover"),
        ("3530111333300000", "JCB"), ("6212345678901232", "UnionPay"), ("6759649826438453", "Maestro"),
    ],
)  # fmt: skip
def test_cards_of_the_networks(number: str, network: str) -> None:
    """Published test numbers."""
    assert validators.payment_card(number), network

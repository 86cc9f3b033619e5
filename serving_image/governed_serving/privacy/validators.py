"""Checksums and ranges of identifiers: what tells a number from a number that looks like one. Input: separators
stripped."""

from collections.abc import Callable, Mapping
from datetime import date
from ipaddress import IPv6Address
from operator import mul

__all__ = ["CHECKS", "credit_code", "iban", "ipv6", "luhn", "payment_card", "plate", "resident_id", "ssn"]

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"
_CODE_ALPHABET = {c: i for i, c in enumerate("0123456789ABCDEFGHJKLMNPQRTUWXY")}
_CODE_WEIGHTS = tuple(pow(3, i, 31) for i in range(17))
_DOUBLED = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * d, 10)) for d in range(10)))
_PROVINCES = frozenset(
    map(
        str,
        (
            *range(11, 16),
            *range(21, 24),
            *range(31, 38),
            *range(41, 47),
            *range(50, 55),
            *range(61, 66),
            71,
            *range(81, 84),
        ),
    )
)
"""GB/T 2260; 83: residence permits of those from Taiwan."""
_DEPARTMENTS = frozenset("123456789ANY")
_PERMUTED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
# Lengths of the ISO 13616 registry; countries that aren't listed are judged by the check digits alone.
_IBAN_LENGTHS = {
    **{
        "AD": 24,
        "AE": 23,
        "AT": 20,
        "BE": 16,
        "BG": 22,
        "CH": 21,
        "CY": 28,
        "CZ": 24,
        "DE": 22,
        "DK": 18,
        "EE": 20,
        "ES": 24,
    },
    **{
        "FI": 18,
        "FR": 27,
        "GB": 22,
        "GR": 27,
        "HR": 21,
        "HU": 28,
        "IE": 22,
        "IL": 23,
        "IS": 26,
        "IT": 27,
        "LI": 21,
        "LT": 20,
    },
    **{
        "LU": 20,
        "LV": 21,
        "MC": 27,
        "MT": 31,
        "NL": 18,
        "NO": 15,
        "PL": 28,
        "PT": 25,
        "RO": 24,
        "SA": 24,
        "SE": 24,
        "SI": 19,
    },
    **{"SK": 24, "SM": 27, "TR": 26},
}


def resident_id(value: str) -> bool:
    """GB 11643-1999: 18 characters, province (GB/T 2260), birthday (4.2), check character by
    ISO 7064 MOD 11-2 (4.4); or 15 digits of before 1999."""
    if value[:2] not in _PROVINCES:
        return False
    if len(value) == 15:
        return _birthday("19" + value[6:12])
    if not _birthday(value[6:14]):
        return False
    total = sum(map(mul, _ID_WEIGHTS, value.encode())) - 48 * sum(_ID_WEIGHTS)
    return _ID_CHECKS[total % 11] == value[17].upper()


def luhn(value: str) -> bool:
    """ISO/IEC 7812-1 annex B: the sum of digits, every second from the right doubled, is a multiple of ten."""
    digits = value.encode()
    # Digits as bytes are 48 too large; the table holds the doubled ones' sums of digits.
    odd, even = digits[::-2], digits[-2::-2].translate(_DOUBLED)
    return (sum(odd) - 48 * len(odd) + sum(even)) % 10 == 0


def payment_card(value: str) -> bool:
    """13 to 19 digits of a card issuer's range and length (ISO/IEC 7812-1: banking and financial 3 to 6, Mastercard's
    2221–2720), by Luhn. Of 13 digits none that is an EAN as well."""
    length, first = len(value), value[:2]
    if first == "62" or first in ("50", *map(str, range(56, 70))):  # UnionPay, Maestro, Discover
        issued = length >= (13 if first == "62" else 16)
    elif value[0] == "4":
        issued = length in (13, 16, 19)
    elif value[0] == "5" or "2221" <= value[:4] <= "2720":
        issued = length == 16
    elif first in ("34", "37"):
        issued = length == 15
    else:
        issued = (first in ("30", "36", "38", "39") and length in (14, 16, 19)) or (first == "35" and length >= 16)
    return issued and len(set(value)) > 1 and luhn(value) and not (length == 13 and _ean(value))


def _ean(value: str) -> bool:
    """GS1 General Specifications, 7.9: product codes of 13 digits."""
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(value)) % 10 == 0


def credit_code(value: str) -> bool:
    """GB 32100-2015, 4.6: unified social credit code, weights 3^i mod 31, check character C18 = 31 − (sum mod 31).
    Its first character is that of an authority (4.2), its third to eighth a region (GB/T 2260; 100000: national)."""
    value = value.upper()
    if value[0] not in _DEPARTMENTS or value[2:4] not in _PROVINCES | {"10"}:
        return False
    total = sum(w * _CODE_ALPHABET[c] for w, c in zip(_CODE_WEIGHTS, value, strict=False))
    return _CODE_ALPHABET[value[17]] == (31 - total % 31) % 31


def iban(value: str) -> bool:
    """ISO 13616-1, 5: registered length, and ISO 7064 MOD 97-10 of the rearranged number is 1."""
    if value[:2].islower() and value[:2].upper() not in _IBAN_LENGTHS:  # a hash may begin so
        return False
    value = value.upper()
    if len(value) != _IBAN_LENGTHS.get(value[:2], len(value)):
        return False
    return int("".join(str(int(c, 36)) for c in value[4:] + value[:4])) % 97 == 1


def ipv6(value: str) -> bool:
    """RFC 4291, 2.2; only such as hold a digit, so that ``abc::def`` in source code isn't taken for one."""
    if "::" not in value and value.count(":") < 6:
        return False
    try:
        IPv6Address(value)
    except ValueError:
        return False
    return any(c.isdigit() for c in value)


def ssn(value: str) -> bool:
    """Social Security Administration, POMS RM 10201.035: area not 000, 666 or 900–999, group not 00, serial not
    0000."""
    return value[:3] not in ("000", "666") and value[0] != "9" and value[3:5] != "00" and value[5:] != "0000"


def plate(value: str) -> bool:
    """GA 36-2018: at least two digits among the serial's characters."""
    return sum(c.isdigit() for c in value[2:]) >= 2


def _birthday(value: str) -> bool:
    try:
        born = date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return 1850 <= born.year <= 2100


def mod_11_2(value: str) -> bool:
    """ISO/IEC 7064, MOD 11-2, over digits and a check character that may be X (ISNI, ORCID, GB 11643)."""
    body, check = value[:-1], value[-1:].upper()
    if not _digits(body) or check not in tuple("0123456789X"):
        return False
    total = 0
    for digit in body:
        total = (total + int(digit)) * 2
    return (total + (10 if check == "X" else int(check))) % 11 == 1


def mod_97_10(value: str) -> bool:
    """ISO/IEC 7064, MOD 97-10, with letters as 10 to 35 (LEI, ISO 17442; of an IBAN the rearranged number)."""
    if len(value) < 3 or not (value.isascii() and value.isalnum()) or not _digits(value[-2:]):
        return False
    return int("".join(str(int(char, 36)) for char in value)) % 97 == 1


def verhoeff(value: str) -> bool:
    """J. Verhoeff, Error Detecting Decimal Codes (1969): a sum in the dihedral group of order 10."""
    if not _digits(value) or len(value) < 2:
        return False
    total = 0
    for place, digit in enumerate(reversed(value)):
        number = int(digit)
        for _ in range(place % 8):
            number = _PERMUTED[number]
        total = _product(total, number)
    return total == 0


def _product(one: int, other: int) -> int:
    """In the dihedral group of order 10, with 0 to 4 as rotations."""
    turned = (one + other if one < 5 else one - other) % 5
    return turned if (one < 5) == (other < 5) else turned + 5


def gs1(value: str) -> bool:
    """GS1 General Specifications, 7.9: keys of 8, 12, 13, 14, 17 or 18 digits."""
    return _digits(value) and len(value) in (8, 12, 13, 14, 17, 18) and _ean(value.zfill(19))


def _digits(value: str) -> bool:
    return value.isascii() and value.isdecimal()


CHECKS: Mapping[str, Callable[[str], bool]] = {
    "luhn": lambda value: _digits(value) and luhn(value),
    "mod11-2": mod_11_2,
    "mod97-10": mod_97_10,
    "verhoeff": verhoeff,
    "gs1": gs1,
}
"""``governed_api.governance.EntityCheck`` → over letters and digits alone."""

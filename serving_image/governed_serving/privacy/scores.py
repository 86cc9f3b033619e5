"""How sure a find of each recogniser is, and by which rule: what ``masking.threshold`` and ``governed mask --explain``
speak of."""

from typing import NamedTuple

__all__ = ["JUDGED", "LEAST_SCORE", "Find", "Judged"]


class Judged(NamedTuple):
    """``score``: 1 where something beyond the form decides (check digits, a prefix, a word before), else less."""

    score: float
    rule: str


class Find(NamedTuple):
    """``text[start:end]`` is personal data of kind ``entity`` (offsets in characters), by ``rule``."""

    entity: str
    start: int
    end: int
    score: float
    rule: str


_FORM, _WORD = 0.75, "a word before it"

JUDGED = {
    "API_KEY": Judged(1, "prefix"),
    "BANK_CARD": Judged(1, "ISO/IEC 7812: issuer, Luhn"),
    "CN_CREDIT_CODE": Judged(1, "GB 32100: check character"),
    "CN_PASSPORT": Judged(_FORM, "form"),
    "CN_PLATE": Judged(_FORM, "GA 36: form"),
    "CN_RESIDENT_ID": Judged(1, "GB 11643: birthday, check character"),
    "CN_RESIDENT_ID_UNCHECKED": Judged(0.6, f"{_WORD}, wrong check character"),
    "CN_TRAVEL_PERMIT": Judged(1, _WORD),
    "DATE_OF_BIRTH": Judged(1, _WORD),
    "EMAIL": Judged(_FORM, "RFC 5321, 6531: form"),
    "IBAN": Judged(1, "ISO 13616: length, mod 97"),
    "IP_ADDRESS": Judged(1, "RFC 4291: ranges"),
    "MAC_ADDRESS": Judged(_FORM, "EUI-48: form"),
    "PHONE_NUMBER": Judged(_FORM, "form"),
    "PRIVATE_KEY": Judged(1, "RFC 7468: frame"),
    "URL_CREDENTIALS": Judged(1, "RFC 3986, 3.2.1"),
    "US_SSN": Judged(_FORM, "ranges"),
}
"""Entity → its recogniser's."""
LEAST_SCORE = min(judged.score for judged in JUDGED.values())

"""Valid identifiers made from scratch, independently of the validators under test (checksums by other formulas)."""

from datetime import date

from hypothesis import strategies as st

CODE_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def _fixed(length: int, alphabet: str = "0123456789") -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=length, max_size=length)


def resident_id(region: str, birthday: str, order: str) -> str:
    """ISO 7064 MOD 11-2, by Horner's rule: the whole number, check character included, is 1 mod 11."""
    body, rest = region + birthday + order, 0
    for digit in body:
        rest = (rest + int(digit)) * 2 % 11
    return body + "0123456789X"[(12 - rest) % 11]


def with_luhn(body: str) -> str:
    """The digit that makes the sum a multiple of ten, by trying all ten."""
    for check in "0123456789":
        doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(body + check))]
        if sum(d // 10 + d % 10 for d in doubled) % 10 == 0:
            return body + check
    raise AssertionError(body)


def credit_code(body: str) -> str:
    """GB 32100: the character that makes Σ value·3^i a multiple of 31."""
    total = sum(CODE_ALPHABET.index(c) * 3**i for i, c in enumerate(body))
    return body + next(c for c in CODE_ALPHABET if (total + CODE_ALPHABET.index(c)) % 31 == 0)


def iban(country: str, account: str) -> str:
    """ISO 13616: 98 minus the rest of the number with 00 for check digits."""
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    return f"{country}{98 - number % 97:02d}{account}"


_ids = st.builds(
    lambda region, day, order: resident_id(region, day.strftime("%Y%m%d"), order),
    st.sampled_from(["110105", "310101", "440305", "510104"]),
    st.dates(min_value=date(1930, 1, 1), max_value=date(2020, 12, 31)),
    _fixed(3),
)
MOBILES = st.builds(lambda second, rest: f"1{second}{rest}", st.sampled_from("3456789"), _fixed(9))
_phones = st.one_of(
    MOBILES,
    MOBILES.map(lambda m: f"{m[:3]}-{m[3:7]}-{m[7:]}"),
    MOBILES.map(lambda m: f"+86 {m}"),
    st.builds(lambda rest: f"010-6{rest}", _fixed(7)),
    st.builds(lambda a, b: f"(415) 5{a}-{b}", _fixed(2), _fixed(4)),
)
_cards = st.one_of(
    _fixed(13).map(lambda b: with_luhn("62" + b)),
    _fixed(14).map(lambda b: with_luhn("4" + b)),
    _fixed(14).map(lambda b: with_luhn("4" + b)).map(lambda c: " ".join(c[i : i + 4] for i in range(0, 16, 4))),
)
_codes = st.builds(
    lambda kind, region, rest: credit_code(kind + region + rest),
    st.sampled_from(["91", "92", "12", "52"]),
    st.sampled_from(["110000", "310101", "440300"]),
    _fixed(9, CODE_ALPHABET),
)
_octets = st.integers(0, 255).map(str)
_ssns = st.builds(
    lambda a, g, s: f"{a:03d}-{g:02d}-{s:04d}",
    st.integers(1, 899).filter(lambda a: a != 666),
    st.integers(1, 99),
    st.integers(1, 9999),
)
_words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)

PLANTED: dict[str, st.SearchStrategy[str]] = {
    "CN_RESIDENT_ID": _ids,
    "PHONE_NUMBER": _phones,
    "BANK_CARD": _cards,
    "CN_CREDIT_CODE": _codes.filter(lambda c: not c.isdigit()),
    "CN_PASSPORT": _fixed(8).map(lambda n: "E" + n),
    "CN_PLATE": st.builds(lambda p, n: f"{p}A{n}", st.sampled_from("京沪粤川"), _fixed(5)),
    "EMAIL": st.builds(lambda a, b: f"{a}.{b}@{b}.com", _words, _words),
    "IP_ADDRESS": st.one_of(
        st.tuples(_octets, _octets, _octets, _octets).map(".".join),
        st.builds(lambda a, b: f"2001:db8::{a:x}:{b:x}", st.integers(1, 65535), st.integers(1, 65535)),
    ),
    "IBAN": st.one_of(
        st.builds(lambda a: iban("DE", a), _fixed(18)),
        st.builds(lambda b, a: iban("GB", b + a), _fixed(4, "ABCDEFGHIJ"), _fixed(14)),
    ),
    "US_SSN": _ssns,
}
"""Entity → strategy of valid values, as a person might write them."""

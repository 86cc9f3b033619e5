"""The recognisers: an exact pattern and a check per entity. Patterns see folded UTF-8 (see ``folding.py``).

| entity | what is found | checked by |
|---|---|---|
| PHONE_NUMBER | Chinese mobile and landline, 400/800 numbers, +country numbers, North American 555-555-5555 | form |
| CN_RESIDENT_ID | resident identity number, 18 or 15 characters | GB 11643: birthday, check character |
| BANK_CARD | bank and credit cards, 13 to 19 digits | ISO/IEC 7812: issuer range, Luhn |
| CN_PASSPORT | ordinary, service and diplomatic passports of China | form |
| CN_CREDIT_CODE | unified social credit code of organisations | GB 32100: check character |
| CN_PLATE | vehicle number plates | form (GA 36), two digits or more |
| EMAIL | addresses of any script (RFC 6531), IDN, punycode, quoted local parts, address literals | form (``ADDRESS``) |
| IP_ADDRESS | IPv4, IPv6 | ranges; RFC 4291 |
| IBAN | international bank account numbers | ISO 13616: length, mod 97 |
| US_SSN | social security numbers, written with separators | ranges |

Not found: names, postal addresses (pass a hook), local phone numbers without an area code, social security numbers
without separators, numbers spelled in words; what is written without spaces (Chinese, Thai) before an ASCII local part
of an ASCII domain, which is prose as a rule: of 张三88@example.com the name stays. Before a domain that isn't Latin all
of it goes (张三88@例子.公司), and with it prose that no separator parts from it. The marks of RFC 5322 that also part
words, keys or paths (= & ? # / ! | * ` { } $ ^ ~) begin an address anew.
"""

import re
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from governed_serving.privacy import validators
from governed_serving.privacy.marked import FIRST, LATER

__all__ = ["ADDRESS", "EMAIL", "ENTITIES", "IP", "LOCAL_OCTETS", "PROVINCES", "RECOGNISERS", "Recogniser"]

IP = "IP_ADDRESS"
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"


class Recogniser(NamedTuple):
    """``pattern`` finds candidates in a region that holds ``family``, ``check`` decides.

    Family ``#``: numbers, looked for where there are ``digits`` digits, or ``bare`` where there is neither letter nor
    plus; as many as the shortest of them has.
    """

    entity: str
    family: str
    pattern: re.Pattern[bytes]
    check: Callable[[str], bool] | None = None
    digits: int = 0
    bare: float = 0


_BEFORE, _BEHIND = r"(?:(?<![0-9]\.)|(?<=[0-9]{8}\.))", r"(?!\.[0-9]{1,6}(?![0-9]))"
"""No fraction: 0.4111111111111111 is no card; but two long numbers may stand around a 。, which
is seen so. A comma parts columns as often as thousands, which are three digits."""


def _whole(body: str) -> re.Pattern[bytes]:
    """Never inside a longer token: ASCII letters, digits and ``_`` go on a token, Chinese characters don't; nor in a
    number that goes on behind a point."""
    return re.compile(rf"(?<![0-9A-Za-z_]){_BEFORE}(?:{body})(?![0-9A-Za-z_]){_BEHIND}".encode())


_CODE = "[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_MOBILE = (
    r"1[3-9][0-9](?:[ -]?[0-9]{4}){2}|1[3-9][0-9]{2}[ -][0-9]{3}[ -][0-9]{4}"
    r"|1[3-9][0-9][./][0-9]{4}[./][0-9]{4}"
    r"|1(?=(?:[ -]?[0-9]){10}(?![ -]?[0-9]))[0-9]{0,5}(?:[ -][0-9]{2,6}){1,4}"  # odd groups
)
_LANDLINE = r"(?:0(?:10|2[0-9])|\(0(?:10|2[0-9])\) ?)[ -]?[0-9]{4}[ -]?[0-9]{4}|(?:0[3-9][0-9]{2}|\(0[3-9][0-9]{2}\) ?)[ -]?[0-9]{3,4}[ -]?[0-9]{4}"  # noqa: E501
_PLATE_BODY = "[0-9A-HJ-NP-Z]"

# In order: a number that several could claim belongs to the first whose check holds.
RECOGNISERS: tuple[Recogniser, ...] = (
    Recogniser("CN_PLATE", "plate", re.compile(rf"(?:{'|'.join(PROVINCES)})[A-HJ-NP-Z](?:[ .-]|·|•)?(?:{_PLATE_BODY}{{5,6}}|{_PLATE_BODY}{{4}}(?:学|挂|警|港|澳|领|使))(?![0-9A-Za-z_])".encode()), validators.plate),  # noqa: E501
    Recogniser(IP, ".", re.compile(rf"(?<![0-9A-Za-z_.])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z_]|\.[0-9])".encode())),
    Recogniser(IP, ":", re.compile(rb"(?<![0-9A-Za-z_:.])[0-9A-Fa-f:]{2,39}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3})?(?![0-9A-Za-z_:])"), validators.ipv6),  # noqa: E501
    Recogniser("CN_RESIDENT_ID", "#", _whole(r"[1-9][0-9]{5}[ -]?[0-9]{8}[ -]?[0-9]{3}[0-9Xx]|[1-9][0-9]{14}"), validators.resident_id, digits=15, bare=15),  # noqa: E501
    Recogniser("CN_CREDIT_CODE", "#", _whole(rf"{_CODE}{{2}}[0-9]{{6}}{_CODE}{{10}}"), validators.credit_code, digits=6, bare=18),  # noqa: E501
    Recogniser("IBAN", "#", _whole(r"[A-Z]{2}[0-9]{2}(?:[ -]?[0-9A-Z]{4}){2,7}(?:[ -]?[0-9A-Z]{1,3})?|[a-z]{2}[0-9]{2}(?:[ -]?[0-9a-z]{4}){2,7}(?:[ -]?[0-9a-z]{1,3})?"), validators.iban, digits=7, bare=inf),  # noqa: E501
    Recogniser("BANK_CARD", "#", _whole(r"[2-6][0-9]{3}(?:[ -]?[0-9]{4}){3}(?:[ -]?[0-9]{1,3})?|3[0-9]{3}[ -]?[0-9]{6}[ -]?[0-9]{4,5}|[2-6][0-9]{12,18}"), validators.payment_card, digits=13, bare=13),  # noqa: E501
    Recogniser("PHONE_NUMBER", "#", re.compile(rf"(?<![0-9A-Za-z_+]){_BEFORE}(?:(?:\(?(?:\+|00)86\)?[ -]?|86[ -]?)?(?:{_MOBILE})|(?:(?:\+|00)86[ -]?)?(?:{_LANDLINE})(?:-[0-9]{{1,6}})?|[48]00[ -]?[0-9]{{3}}[ -]?[0-9]{{4}}|(?:\+?1[ .-])?(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[.-])[2-9][0-9]{{2}}[ .-][0-9]{{4}}|\+[1-9][0-9]{{0,2}}(?:[ -]?\(?[0-9]{{1,5}}\)?){{2,6}})(?![0-9A-Za-z_]){_BEHIND}".encode()), lambda v: 7 <= len(v) <= 20, digits=7, bare=10),  # noqa: E501
    Recogniser("CN_PASSPORT", "#", _whole(r"[EGDSPegdsp][0-9]{8}|[Ee][A-HJ-NP-Za-hj-np-z][0-9]{7}"), digits=7, bare=inf),  # noqa: E501
    Recogniser("US_SSN", "#", _whole(r"[0-9]{3}([ -])[0-9]{2}\1[0-9]{4}"), validators.ssn, digits=9, bare=9),
)  # fmt: skip

_ASCII = "0-9A-Za-z_%+'"
_NOT_LATIN = (
    r"\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}\p{Arabic}\p{Syriac}\p{Thaana}\p{Ethiopic}"
    r"\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}"
    r"\p{Sinhala}\p{Cherokee}\p{Mongolian}"
)
_LETTERS = rf"\p{{Latin}}{_NOT_LATIN}\p{{M}}\p{{Nd}}"
"""Of scripts with spaces between words: they go on a local part."""
_JOINED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Yi}"
"""Of scripts without, or whose words take endings of others: before an ASCII local part they are prose."""
_ANY = r"\p{L}\p{M}\p{N}"
_NAME = rf"[{_ASCII}{_LETTERS}.-]*[{_ASCII}{_LETTERS}-]"
_LOCAL = rf'{_NAME}|[{_ASCII}{_ANY}.-]*[{_JOINED}]|"(?:[^"\\\r\n]|\\[^\r\n])+"'
_TLD = r"(?:[Xx][Nn]--[0-9A-Za-z-]+|[A-Za-z]{2,63})"
_HAN = "中国|中國|香港|台湾|台灣|澳门|澳門|新加坡|公司|集团|网络|網絡|网址|网店|网站|商城|商店|在线|中文网|公益|政务"
"""Top-level domains of Han characters (IANA's root zone): elsewhere 。 ends a sentence."""
_DOMAIN = "|".join(
    (
        rf"(?:[0-9A-Za-z-]+\.)+{_TLD}\b",
        rf"(?:[{_ANY}-]+[.。｡])+(?:{_HAN}|{_TLD}\b)",
        rf"(?:[{_ANY}-]+\.)+[{_ANY}]{{2,}}",
        r"\[(?:IPv6:)?[0-9A-Fa-f:.]+\]",
    )
)
_LABEL = rf"[0-9A-Za-z-]*[{_NOT_LATIN}{_JOINED}][{_ANY}-]*"
_INTERNATIONAL = "|".join(
    (
        rf"(?:[{_ANY}-]+[.。｡])*{_LABEL}[.。｡](?:{_HAN})",
        rf"(?:[{_ANY}-]+\.)*{_LABEL}\.(?:[0-9A-Za-z-]+\.)*{_TLD}\b",
        rf"(?:[{_ANY}-]+\.)+[{_NOT_LATIN}{_JOINED}][{_ANY}]+",
        r"(?:[0-9A-Za-z-]+\.)*[Xx][Nn]--[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+",
    )
)
"""Domains with a label that isn't Latin, as it is or in punycode: whoever has one takes local parts of any script."""
_BEHIND_JOINED = rf"[{_ASCII}{_ANY}.-]*[{_JOINED}][._+%][{_ASCII}.-]*[{_ASCII}-]"
"""A local part that ends in ASCII which can't, or hardly, begin one."""
ADDRESS = rf"(?:[{_ASCII}{_ANY}.-]+@(?:{_INTERNATIONAL}))|(?:(?:{_LOCAL}|{_BEHIND_JOINED})@(?:{_DOMAIN}))"
"""RE2 over folded UTF-8: e-mail addresses by RFC 5321, 4.1.2, and RFC 6531. The ASCII domain first: Chinese may follow
it. Before an international domain the whole run goes, up to the 64 octets of a local part: prose that is written
before it without a separator is masked with it, rather than a name shown. Before an ASCII domain a local part that ends
in Chinese is taken with what is before it; one that ends in ASCII letters or digits begins there, which is prose as a
rule (我的邮箱是12345678@qq.com)."""
LOCAL_OCTETS = 64
"""Longest local part (RFC 5321, 4.5.3.1.1)."""
EMAIL = "EMAIL"

ENTITIES: tuple[str, ...] = tuple(
    sorted({EMAIL, *(r.entity for r in RECOGNISERS), *(m.entity for m in (*FIRST, *LATER))})
)
"""Every entity that has a recogniser; ``governed_api.governance.Entity`` names the same."""

"""Entities that a mark gives away: a prefix, a frame, or a word before them. One pass of RE2 for all, then the exact
pattern, whose group is the value.

| entity | what is found |
|---|---|
| API_KEY | keys with well-known prefixes (ours, OpenAI, GitHub, GitLab, AWS, Google, …), JSON Web Tokens |
| PRIVATE_KEY | PEM (RFC 7468), to its end or that of the text |
| URL_CREDENTIALS | user:password of a URL (RFC 3986, 3.2.1) |
| MAC_ADDRESS | EUI-48, with colons, dashes, or in three groups |
| CN_RESIDENT_ID_UNCHECKED | behind 身份证 and the like: 18 characters whose check character is wrong |
| CN_TRAVEL_PERMIT | behind 通行证 and the like: permits of Hong Kong, Macao, Taiwan, and to there |
| DATE_OF_BIRTH | a date behind 生日, born and the like |
"""

import re
from typing import NamedTuple

__all__ = ["FIRST", "LATER", "OPEN", "OPEN_WORDS", "Mark"]


class Mark(NamedTuple):
    """``scan`` for RE2; ``pattern`` at the same place gives the value, group 1."""

    entity: str
    scan: str
    pattern: re.Pattern[bytes]


_KEYS = (
    r"sk-[0-9A-Za-z_-]{20,}", r"[sr]k_live_[0-9A-Za-z]{16,}", r"gh[pousr]_[0-9A-Za-z]{36,}",
    r"github_pat_[0-9A-Za-z_]{22,}", r"glpat-[0-9A-Za-z_-]{20,}", r"A(?:KIA|SIA)[0-9A-Z]{16}", r"AIza[0-9A-Za-z_-]{35}",
    r"xox[abprs]-[0-9A-Za-z-]{10,}", r"gmk_[0-9a-z]{16}_[0-9A-Za-z_-]{43}",
    r"hf_[0-9A-Za-z]{30,}", r"npm_[0-9A-Za-z]{36}", r"pypi-[0-9A-Za-z_-]{50,}",
    r"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}",
    r"LTAI[0-9A-Za-z]{12,26}", r"AKID[0-9A-Za-z]{32}", r"eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]*",
)  # fmt: skip
_KEY = rf"\b(?:{'|'.join(_KEYS)})"
_BEGIN, _END = "-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----", "-----END [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----"
_SCHEME = r"\b[A-Za-z][0-9A-Za-z+.-]{1,20}://"
_USER = r"[^\s/?#@:\"'<>]{1,128}:[^\s/?#@\"'<>]{1,256}"
_PAIR = "[0-9A-Fa-f]{2}"
_MAC = rf"{_PAIR}(?::{_PAIR}){{5}}|{_PAIR}(?:-{_PAIR}){{5}}|(?:[0-9A-Fa-f]{{4}}\.){{2}}[0-9A-Fa-f]{{4}}"
_NO_MAC = r"(?![0-9]{4}\.[0-9]{4}\.[0-9]{4})"  # 1234.5678.9012 is a number
_ID_WORD = "身份证|身份號碼|身份号码|(?i:identity card|id card|resident id)"
_ID = r"[1-9][0-9]{5}[ -]?(?:19|20)[0-9]{6}[ -]?[0-9]{3}[0-9Xx]"
_PERMIT_WORD = "通行证|通行證|回乡证|回鄉證|台胞证|台胞證|(?i:travel permit|home return permit)"
_PERMIT = r"[HMhm][0-9]{8}(?:[0-9]{2})?|[CWcw][0-9A-HJ-NP-Za-hj-np-z][0-9]{7}|[LTlt][0-9]{8}|[0-9]{8}(?:[0-9]{2})?"
_BIRTH_WORD = r"出生|生日|(?i:date of birth|birth ?date|birthday|\bdob\b|\bborn\b)"
_YEAR, _MONTH = "(?:18|19|20)[0-9]{2}", "(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[A-Za-z]{0,6}"
_DAY = "[0-9]{1,2}(?:st|nd|rd|th)?"
_DATE = (
    rf"{_YEAR} ?年 ?[0-9]{{1,2}} ?月 ?[0-9]{{1,2}} ?日?|{_YEAR}[./-][0-9]{{1,2}}[./-][0-9]{{1,2}}|{_YEAR}[0-9]{{4}}"
    rf"|[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-]{_YEAR}|{_DAY}(?: of)? {_MONTH}\.?,? {_YEAR}|{_MONTH}\.? {_DAY},? {_YEAR}"
)
_GAP, _GAP_BYTES = r"[^0-9A-Za-z\n]{0,12}", rb"[^0-9A-Za-z\n]{0,36}"
_VERB = "(?:(?:is|was|on|in|of|no|number)[ :]{1,3}){0,2}"
_EDGE = r"(?![0-9A-Za-z])"


def _behind(entity: str, words: str, value: str) -> Mark:
    bytes_ = re.compile(
        b"(?:" + words.encode() + b")" + _GAP_BYTES + _VERB.encode() + b"(" + value.encode() + b")" + _EDGE.encode()
    )
    return Mark(entity, rf"(?:{words}){_GAP}{_VERB}(?:{value})", bytes_)


FIRST = (
    Mark("PRIVATE_KEY", rf"{_BEGIN}[^-]*(?:{_END})?", re.compile(rf"({_BEGIN}[^-]*(?:{_END})?)".encode())),
    Mark("URL_CREDENTIALS", rf"{_SCHEME}{_USER}@", re.compile(rf"{_SCHEME}({_USER})@".encode())),
    Mark("API_KEY", _KEY, re.compile(rf"({_KEY}){_EDGE}".encode())),
    Mark("MAC_ADDRESS", rf"\b(?:{_MAC})\b", re.compile(rf"(?<![0-9A-Za-z:.-]){_NO_MAC}({_MAC})(?![0-9A-Za-z:-])".encode())),  # noqa: E501
)  # fmt: skip
"""Whatever else could be seen in them."""
LATER = (
    _behind("CN_RESIDENT_ID_UNCHECKED", _ID_WORD, _ID),
    _behind("CN_TRAVEL_PERMIT", _PERMIT_WORD, _PERMIT),
    _behind("DATE_OF_BIRTH", _BIRTH_WORD, _DATE),
)
"""Where nothing else was found."""

OPEN = re.compile(
    r"(?:-----BEGIN(?: [A-Z ]{0,32}-{0,4}|[A-Z ]{0,21}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-{1,5}[A-Z ]{0,32}-{0,4})?)"
    r"|\b[A-Za-z][0-9A-Za-z+.-]{1,20}://[^\s/?#@\"'<>]{0,400}"
    r"|\beyJ[0-9A-Za-z_.-]*)\Z"
)  # fmt: skip
"""What has begun and may be longer than other entities."""
OPEN_WORDS = re.compile(
    rf"(?:{_ID_WORD}|{_PERMIT_WORD}|{_BIRTH_WORD})(?P<rest>[^0-9A-Za-z\n]{{0,12}}[0-9A-Za-z年月日/., -]{{0,40}})\Z"
)
"""A word that has been said, and ``rest``: what may become its value."""

"""What of a growing text is undecided: the end of it that more text could still make an entity of.

Nothing is longer than ``LONGEST`` characters (RFC 5321: a local part has 64 octets, a domain 255; the longest number is
an IBAN of 34 characters in groups, or one written in escapes), so that is the most that is ever held back. Most text is
decided by the next space or punctuation mark; writing without spaces (Chinese, Thai) could be a local part (RFC 6531)
and is held for as long as that can be.
"""

import re
import unicodedata
from itertools import accumulate, takewhile

from governed_serving.privacy.folding import PUNCTUATION, Folded
from governed_serving.privacy.marked import OPEN, OPEN_WORDS
from governed_serving.privacy.recognisers import LOCAL_OCTETS, PROVINCES

__all__ = ["LONGEST", "LONGEST_SECRET", "undecided"]

LONGEST = 400
"""Characters that are held back at most, but of secrets."""
LONGEST_SECRET = 8192
"""Of a private key, a token or a URL's credentials: an RSA key of 8,192 bits has some 6,400 characters."""
_SAID = 96
_ESCAPED = len("\\u0031")
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]{4})*[ -]?[0-9A-Za-z]{0,3}\Z")
_MOST_GAP = 3
"""White space between two groups of a number."""

_PIECE = re.compile(
    rf"(?P<run>(?:[0-9A-Za-z_.%+'()@:/\\&#;\[\]·•-]|(?<=[0-9]),(?=[0-9]|\Z)|(?<=[0-9A-Za-z+/_=-]{{12}})=|[{PROVINCES}](?=[A-Z]|\Z))+)"
    r"|(?P<gap>\s+)|.",
    re.DOTALL,
)
_GROUP = re.compile(rf"[^0-9]*[0-9].*(?<![.,:@%'])\Z|[0-9A-Z]{{4}}\Z|[(+]\Z|.*[{PROVINCES}][A-Z]?\Z", re.DOTALL)
"""What a number may have before a space."""
_NEXT = re.compile(r"[0-9A-Z(+\\&%]")
"""How what is behind the space must begin."""
_QUOTED = re.compile(r'"(?:[^"\\\r\n]|\\[^\r\n]){0,64}(?:\\?|"(?:@\S*)?)\Z')
_OPEN = re.compile(r"(?:\\(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?|&(?:#(?:[xX][0-9A-Fa-f]{0,6}|[0-9]{0,7}))?|%[2-7]?)\Z")
"""An escape that has begun."""
_LOCAL = frozenset("_.%+'@-")
_LITERAL = frozenset(":[]")
"""Of an address literal, alice@[192.168.1.1]."""


def undecided(text: str, start: int = 0, *, addresses: bool = True, hold: int = 0) -> int:
    """The place from which ``text`` may belong to an entity that isn't at its end yet; at least ``start``, and
    ``len(text)`` where all is decided. ``addresses``: e-mail addresses are looked for;
    ``hold``: the longest of a manifest's own entities, of which each character may be an escape."""
    base = max(start, len(text) - max(LONGEST, _ESCAPED * hold))
    pending = _OPEN.sub("0", text[base:], count=1)  # whatever it will be, it goes on what is before it
    seen = Folded(pending)
    first = min(_number(seen.text), max(0, len(seen.text) - hold))
    if addresses:
        stops = {k for k, c in enumerate(seen.text) if c == "." and ord(pending[seen.start(k)]) in PUNCTUATION}
        first = min(first, _address(seen.text, stops if "@" not in seen.text else set()), _quoted(seen.text))
    end = len(text) if first == len(seen.text) else base + seen.start(first)
    return max(start, min(end, _marked(text)))


def _marked(text: str) -> int:
    """Where something begins that a mark has given away (``marked.py``)."""
    low = max(0, len(text) - LONGEST_SECRET)
    opened = OPEN.search(text, low) if "-----BEGIN" in text or "://" in text or "eyJ" in text else None
    said = OPEN_WORDS.search(text, max(0, len(text) - _SAID))
    iban = _IBAN.search(text, max(0, len(text) - _SAID))
    starts = [opened.start() if opened else len(text), said.start("rest") if said else len(text)]
    return min(*starts, iban.start() if iban else len(text))


def _number(text: str) -> int:
    """Where a number begins that ``text`` ends in: groups with digits, and white space between them."""
    pieces = [(match.lastgroup, *match.span()) for match in _PIECE.finditer(text)]
    if not pieces or pieces[-1][0] is None:
        return len(text)
    first, place = len(text), len(pieces) - 1
    if pieces[place][0] == "run":
        first, place = len(text) - len(text[pieces[place][1] :].lstrip(".,;'")), place - 1  # none begins with these
        if not _NEXT.match(text, first):
            return first
    while place >= 1:
        (kind, gap, end), (before, start, _) = pieces[place], pieces[place - 1]
        if kind != "gap" or end - gap > _MOST_GAP or before != "run" or not _GROUP.match(text[start:gap]):
            break
        first, place = start, place - 2
    return first


def _address(text: str, stops: set[int]) -> int:
    """Where an e-mail address begins that ``text`` ends in, or could go on as; ``stops``: full stops that end
    sentences."""
    more = _LOCAL | _LITERAL if "@[" in text else _LOCAL
    run = len(text)
    while run and run - 1 not in stops and _joins(text[run - 1], more):
        run -= 1
    at = text.find("@", run)
    local = text[run : at if at >= 0 else len(text)]
    sizes = accumulate(len(char.encode(errors="surrogatepass")) for char in reversed(local))
    return run + len(local) - sum(1 for _ in takewhile(lambda size: size <= LOCAL_OCTETS, sizes))


def _joins(char: str, more: frozenset[str]) -> bool:
    return char.isalnum() or char in more or unicodedata.category(char)[0] == "M"


def _quoted(text: str) -> int:
    """Where a quoted local part begins (RFC 5321, 4.1.2)."""
    place = text.find('"')
    while place >= 0:
        if _QUOTED.match(text, place):
            return place
        place = text.find('"', place + 1)
    return len(text)

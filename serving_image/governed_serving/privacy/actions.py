"""What stands in a finding's place. An action gets the entity and the value as it was written.

Placeholders hold no digits and no @, so that masking masked text changes nothing.
"""

import base64
import binascii
import re
from collections.abc import Callable

from governed_serving.crypto import CryptoError, Keyring, Keyset
from governed_serving.privacy.folding import fold

__all__ = ["ACTIONS", "Action", "action", "unmask"]

Action = Callable[[str, str], str]

ACTIONS = ("Redact", "Replace", "Hash", "Tokenize", "Partial")
DIGESTS = "masking-digests"
TOKENS = "masking-tokens"

_KEPT = 4
_DIGEST_BYTES = 12
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_TOKEN = re.compile(r"<([A-Z][A-Z0-9_]*)~([A-Za-z2-7]+)>")
_SEPARATORS = str.maketrans("", "", " -().·•")


def action(name: str, keyring: Keyring | None) -> Action:
    """The action called ``name``. Hash and Tokenize take their keys from ``keyring``.

    Raises ValueError for an unknown name or a missing keyring, CryptoError when the key is lost.
    """
    if name == "Redact":
        return lambda *_: ""
    if name == "Replace":
        return lambda entity, _: f"<{entity}>"
    if name == "Partial":
        return _partial
    if name not in ACTIONS:
        raise ValueError(f"masking action: expected one of {', '.join(ACTIONS)}, found {name!r}")
    if keyring is None:
        raise ValueError(
            f"masking action {name} needs the model's key; mount its key file, or choose Redact, Replace or Partial"
        )
    return _hashing(keyring.keyset(DIGESTS)) if name == "Hash" else _tokenizing(keyring.keyset(TOKENS))


def unmask(text: str, keyring: Keyring) -> str:
    """``text`` with every token of this model's key replaced by what it stands for; others stay as they are.

    Raises KeyMissing when there is no such key.
    """
    keyset = keyring.keyset(TOKENS, create=False)

    def value(match: re.Match[str]) -> str:
        entity, token = match.groups()
        try:
            sealed = base64.b32decode(token.upper() + "=" * (-len(token) % 8))
            return keyset.detokenize(sealed, entity.encode()).decode()
        except (binascii.Error, CryptoError):  # not a token of ours
            return match.group()

    return _TOKEN.sub(value, text)


def _hashing(keyset: Keyset) -> Action:
    """Keyed and one-way (HMAC-SHA256, RFC 2104, 96 bits); the same value gives the same digest however it was
    written."""

    def digest(entity: str, value: str) -> str:
        bare = fold(value).translate(_SEPARATORS).upper()
        code = keyset.digest(f"{entity}\0{bare}".encode(), _DIGEST_BYTES).hex().encode().translate(_LETTERS)
        return f"<{entity}#{code.decode()}>"

    return digest


def _tokenizing(keyset: Keyset) -> Action:
    """Reversible (AES-SIV, RFC 5297): base32 of the ciphertext, the entity as associated data."""

    def token(entity: str, value: str) -> str:
        sealed = keyset.tokenize(value.encode(), entity.encode())
        return f"<{entity}~{base64.b32encode(sealed).decode().rstrip('=').lower()}>"

    return token


def _partial(_: str, value: str) -> str:
    """The last four letters or digits stay, separators too; a value of fewer than eight keeps only its last quarter."""
    places = [i for i, c in enumerate(value) if c.isalnum()]
    kept = _KEPT if len(places) >= 2 * _KEPT else len(places) // 4
    hidden = set(places[: len(places) - kept])
    return "".join("*" if i in hidden else c for i, c in enumerate(value))

"""What can go wrong with keys; each message is one line for a person: expected, found, what to do.

CryptoError
├── KekError        the key-encryption key can't be used (missing, wrong length, readable by others)
├── WrongKek        a keyset was wrapped by another KEK
├── KeyMissing      no keyset for the purpose, or the data was sealed under a key that isn't in it
├── KeyDestroyed    the keyset was destroyed on purpose; what it sealed is gone
├── KeysetChanged   somebody else changed the keyset meanwhile: read it again
└── Tampered        the data isn't what was sealed
"""

__all__ = ["CryptoError", "KekError", "KeyDestroyed", "KeyMissing", "KeysetChanged", "Tampered", "WrongKek"]


class CryptoError(Exception):
    """Root of the errors of this room."""


class KekError(CryptoError):
    """The key-encryption key can't be used."""


class WrongKek(CryptoError):
    """The keyset was wrapped by another key-encryption key."""


class KeyMissing(CryptoError):
    """The key that is needed isn't there."""


class KeyDestroyed(CryptoError):
    """The key was destroyed on purpose."""


class KeysetChanged(CryptoError):
    """The stored keyset isn't the one that was read."""


class Tampered(CryptoError):
    """Ciphertext that doesn't authenticate: changed, cut, or put into another place."""

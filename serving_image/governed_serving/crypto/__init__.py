"""Keys and what they seal; see README.md."""

from governed_serving.crypto.coins import COIN, COINS, Coins, coin_key
from governed_serving.crypto.document import KeyInfo, is_keyset_document, is_purpose
from governed_serving.crypto.errors import (
    CryptoError,
    KekError,
    KeyDestroyed,
    KeyMissing,
    KeysetChanged,
    Tampered,
    WrongKek,
)
from governed_serving.crypto.kek import Kek, load_kek
from governed_serving.crypto.keyring import KeyEvent, Keyring
from governed_serving.crypto.keyset import Keyset
from governed_serving.crypto.rotation import KeyWatch, rotate_due
from governed_serving.crypto.sealed import is_sealed
from governed_serving.crypto.segment import SegmentCipher, SegmentKey
from governed_serving.crypto.store import DirectoryStore, KeysetStore
from governed_serving.crypto.subjects import SUBJECT, Subjects, canonical, purposes_of

__all__ = [
    "COIN",
    "COINS",
    "SUBJECT",
    "Coins",
    "CryptoError",
    "DirectoryStore",
    "Kek",
    "KekError",
    "KeyDestroyed",
    "KeyEvent",
    "KeyInfo",
    "KeyMissing",
    "KeyWatch",
    "Keyring",
    "Keyset",
    "KeysetChanged",
    "KeysetStore",
    "SegmentCipher",
    "SegmentKey",
    "Subjects",
    "Tampered",
    "WrongKek",
    "canonical",
    "coin_key",
    "is_keyset_document",
    "is_purpose",
    "is_sealed",
    "load_kek",
    "purposes_of",
    "rotate_due",
]

"""Draws that decide between thresholds: a number in [0, 1) for each row, the same for ever and known to nobody outside.

A keyed pseudo-random function of the row's own bytes, or of the one input that says whom the decision is about: no
batch, replica, retry or restart changes it, and no row depends on another. BLAKE2b's keyed mode (RFC 7693) is a MAC, so
that who hasn't the key can't tell a draw from chance. The key is drawn for the model, not for a training: sealed with
the artefact, it is what it was after keysets were rotated and after another training.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from governed_serving.crypto.errors import CryptoError
from governed_serving.crypto.keyring import Keyring
from governed_serving.crypto.subjects import canonical

__all__ = ["COIN", "COINS", "Coins", "coin_key"]

COIN = "decision/coin"
"""Input of a graph that takes draws, FP64 [rows, 1]; clients don't send it."""
COINS = "decision-coins"
"""Purpose of the keyset that the key of a model's draws comes from. It isn't rotated, as those of masking aren't."""
KEY_BYTES = 32
_PERSON = b"governed coin"
_STEP = 2.0**-53


def coin_key(keyring: Keyring) -> bytes:
    """The key of a model's draws, one for all its trainings. Raises CryptoError, and what the keyring's store
    raises."""
    return keyring.keyset(COINS).digest(_PERSON, KEY_BYTES)


class Coins:
    """Draws under ``key``. ``subject``: the place of the input they depend on; None: all of the row.

    Raises CryptoError for a key of another length.
    """

    def __init__(self, key: bytes, subject: int | None) -> None:
        if len(key) != KEY_BYTES:
            raise CryptoError(f"coin.key: expected {KEY_BYTES} bytes, found {len(key)}: train the model again")
        self._key, self._subject = key, subject

    @property
    def commitment(self) -> str:
        """SHA-256 of the key, which tells nothing of it: who is shown the key later can check that it is this one."""
        return f"sha256:{hashlib.sha256(self._key).hexdigest()}"

    def draw(self, columns: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
        """One draw a row, shape (rows, 1), from the model's inputs, shape (rows, 1) each, in the signature's order."""
        if self._subject is not None:
            whose = columns[self._subject].ravel().tolist()
            parts: Iterable[bytes] = (canonical(who).encode("utf-8", "surrogatepass") for who in whose)
        else:
            parts = map(b"".join, zip(*map(_bytes, columns), strict=True))
        drawn = [int.from_bytes(self._digest(part), "big") >> 11 for part in parts]
        return np.array(drawn, np.float64)[:, np.newaxis] * _STEP

    def _digest(self, part: bytes) -> bytes:
        return hashlib.blake2b(part, digest_size=8, key=self._key, person=_PERSON).digest()


def _bytes(column: NDArray[np.generic]) -> list[bytes]:
    """Each value so that rows are alike where their values are: 0.0 and −0.0, and all NaN."""
    if column.dtype == object:
        texts = [str(value).encode("utf-8", "surrogatepass") for value in column.ravel().tolist()]
        return [len(text).to_bytes(8, "big") + text for text in texts]
    values = column.ravel().astype(">f8") + 0.0
    values[np.isnan(values)] = np.nan
    raw, width = values.astype(">f8").tobytes(), 8
    return [raw[at : at + width] for at in range(0, len(raw), width)]

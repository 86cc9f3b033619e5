"""References: small JSON pointers per model, such as ``artefact-<digest>`` → {"blob": …}.

Sealed under the archive's keyring; their history is in the ledger.
"""

import threading
from math import inf
from pathlib import Path

from governed_serving.archive.ledger.entrylog import Cipher
from governed_serving.archive.store.named import NamedFiles, Prepared
from governed_serving.decoding import decode_json

__all__ = ["References"]


class References:
    """Sealed JSON pointers: ``{root}/{model}/{name}``."""

    MAX_BYTES = 16 << 10

    def __init__(self, root: Path, cipher: Cipher):
        self.files = NamedFiles(root)
        self._cipher = cipher
        self._numbers: dict[tuple[str, str, str], float] = {}
        self._lock = threading.Lock()

    def number(self, model: str, name: str, field: str) -> float:
        """A number that a pointer holds, kept for the next look; 0 where there is none, ∞ for one beyond float64."""
        key = (model, name, field)
        with self._lock:
            number = self._numbers.get(key)
            if number is None:
                data = self.get(model, name)
                value = decode_json(data).get(field) if data else None
                number = self._numbers[key] = _number(value)
            return number

    def get(self, model: str, name: str) -> bytes | None:
        """JSON bytes, or None."""
        return self.opened(model, name, self.files.read(model, name))

    def opened(self, model: str, name: str, sealed: bytes | None) -> bytes | None:
        """JSON bytes of what is stored, or is to be stored, under a name; None of None. Raises CryptoError."""
        return None if sealed is None else self._cipher.open(sealed, self._aad(model, name))

    def prepare(self, model: str, name: str, data: bytes, digest: str) -> Prepared:
        """JSON bytes, to be put in place once the ledger has their ``digest`` (SHA-256, hex). Raises OSError."""
        sealed = self._cipher.seal(data, self._aad(model, name))
        return self.files.prepare(model, name, sealed, digest)

    def put_in_place(self, prepared: Prepared) -> None:
        """Raises OSError."""
        with self._lock:
            prepared.put_in_place()
            self._numbers = {k: v for k, v in self._numbers.items() if k[:2] != (prepared.model, prepared.name)}

    def _aad(self, model: str, name: str) -> bytes:
        return f"governed reference 1\0{model}\0{name}".encode()


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf

"""States: sealed bytes per model that are replaced, such as a replica's counts; of what they were, the ledger has the
digests.

What is replaced again and again is no blob: nothing would ever name the old ones, or delete them.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from governed_serving.archive.errors import Refused
from governed_serving.archive.store.blobs import NOT_SEALED
from governed_serving.archive.store.named import NamedFiles, Prepared

__all__ = ["States"]


class States:
    """``{root}/{model}/{name}``; ``sealed`` as in :class:`BlobStore`. The only writer below ``root``."""

    MAX_BYTES = 32 << 20

    def __init__(self, root: Path, sealed: Callable[[bytes], bool]):
        self.files = NamedFiles(root)
        self._sealed = sealed
        self._digests: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def digest(self, model: str, name: str) -> str | None:
        """SHA-256 (hex) of what is stored, kept for the next look; None when there is nothing."""
        with self._lock:
            digest = self._digests.get((model, name))
            if digest is None and (data := self.get(model, name)) is not None:
                digest = self._digests[model, name] = hashlib.sha256(data).hexdigest()
            return digest

    def get(self, model: str, name: str) -> bytes | None:
        """Sealed bytes, or None."""
        return self.files.read(model, name)

    def check(self, data: bytes) -> None:
        """Raises :class:`Refused` for what may not be stored (413, 415)."""
        if len(data) > self.MAX_BYTES:
            raise Refused(413, f"a state may have at most {self.MAX_BYTES} bytes, found {len(data)}")
        if not self._sealed(data[:64]):
            raise Refused(415, NOT_SEALED)

    def prepare(self, model: str, name: str, data: bytes, digest: str) -> Prepared:
        """What was checked, to be put in place once the ledger has its ``digest`` (SHA-256, hex). Raises OSError."""
        return self.files.prepare(model, name, data, digest)

    def put_in_place(self, prepared: Prepared) -> None:
        """Raises OSError."""
        with self._lock:
            self._digests.pop((prepared.model, prepared.name), None)
            prepared.put_in_place()

"""Where wrapped keysets lie: a protocol, and its implementation over a directory.

A store never sees a key in plaintext. The archive's client implements the same protocol over HTTP.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from governed_api.regular_files import read_regular
from governed_serving.crypto.errors import KeyDestroyed, KeysetChanged
from governed_serving.durable import fsync_folder, is_regular, replace_file

__all__ = ["DirectoryStore", "KeysetStore"]


class KeysetStore(Protocol):
    """Wrapped keysets by purpose (one store per model)."""

    def get(self, purpose: str) -> bytes | None:
        """The document, None when there was never one; raises KeyDestroyed when it was destroyed."""
        ...

    def create(self, purpose: str, document: bytes) -> bytes:
        """Create if absent, and return what is stored now: ``document``, or the one that was there first.

        Raises KeyDestroyed when the purpose's keyset was destroyed.
        """
        ...

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        """Put ``document`` in the place of ``expected``; raises KeysetChanged when something else is stored."""
        ...

    def destroy(self, purpose: str, receipt: bytes) -> None:
        """Remove the document for good, and keep ``receipt`` (JSON) in its place."""
        ...

    def purposes(self) -> list[str]:
        """Purposes with a document, sorted."""
        ...


class DirectoryStore:
    """Documents as files ``{purpose}.keyset.json`` (0600) below ``root``; safe among processes of one machine. What is
    no regular file isn't there."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def get(self, purpose: str) -> bytes | None:
        try:
            return read_regular(self._path(purpose))
        except FileNotFoundError:
            if is_regular(self._receipt(purpose)):
                raise KeyDestroyed(
                    f"the {purpose!r} keyset was destroyed ({self._receipt(purpose).name} tells when); what it sealed can't be read any more"  # noqa: E501
                ) from None
            return None

    def create(self, purpose: str, document: bytes) -> bytes:
        with self._locked():
            there = self.get(purpose)
            if there is None:
                replace_file(self._path(purpose), document)
            return there or document

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        with self._locked():
            if self.get(purpose) != expected:
                raise KeysetChanged(f"the {purpose!r} keyset was changed by another process meanwhile; try again")
            replace_file(self._path(purpose), document)

    def destroy(self, purpose: str, receipt: bytes) -> None:
        with self._locked():
            replace_file(self._receipt(purpose), receipt)
            path = self._path(purpose)
            going = path.with_name(f".{path.name}.going")
            if is_regular(path):  # else a kill came before whoever destroyed it knew
                path.rename(going)  # half of a key is nobody's
            if is_regular(going):
                _overwrite(going)
                going.unlink()
            fsync_folder(self.root)

    def purposes(self) -> list[str]:
        suffix = ".keyset.json"
        return sorted(p.name.removesuffix(suffix) for p in self.root.glob(f"*{suffix}") if is_regular(p))

    def _path(self, purpose: str) -> Path:
        return self.root / f"{purpose}.keyset.json"

    def _receipt(self, purpose: str) -> Path:
        return self.root / f"{purpose}.destroyed.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _overwrite(path: Path) -> None:
    """Best effort: on a journalled or copy-on-write disk the old blocks may live on, still wrapped by the KEK."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())

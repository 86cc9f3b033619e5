"""Wrapped keysets: the archive's, with a copy in the spool so that a restart doesn't need the archive."""

from collections.abc import Callable
from pathlib import Path

from governed_api.regular_files import read_regular
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Unreachable
from governed_serving.crypto import (
    DirectoryStore,
    Kek,
    Keyring,
    Keyset,
    KeysetStore,
    KeyWatch,
    Subjects,
)
from governed_serving.durable import replace_file
from governed_serving.environment import Token
from governed_serving.hosting.logs import log
from governed_serving.journal import Journal

__all__ = ["CachedStore", "key_watch", "model_keyring", "subject_keys"]


def model_keyring(kek: Kek, spool: Path, model: str, archive: str, token: Token) -> Keyring:
    """``model``'s keysets: those of the archive at URL ``archive``, with copies below ``spool``; without one, the
    spool's own.

    Opening a keyset raises CryptoError, and ArchiveError where the archive is unreachable and the spool has no copy.
    """
    store: KeysetStore = DirectoryStore(spool / "keysets")
    if archive:
        client = ArchiveClient(archive, token, model, patience=20.0)
        store = CachedStore(client.keysets(), spool / "keyset-cache")
    return Keyring(kek, store)


def subject_keys(kek: Kek, spool: Path, model: str, archive: str, token: Token) -> Subjects:
    """As :func:`model_keyring`, the keys of data subjects: without a copy in the spool, where a destroyed one would
    live on."""
    if not archive:
        return Subjects(kek, DirectoryStore(spool / "keysets"))
    return Subjects(kek, ArchiveClient(archive, token, model, patience=5.0).keysets())


def key_watch(keyset: Keyset, period: float, journal: Journal, rotate: Callable[[], object] = lambda: None) -> KeyWatch:
    """Takes new keys of the journal's keyset while the process runs: the next record begins a segment under the new
    one."""

    def new(key: int) -> None:
        journal.roll()
        log("info", "the journal continues under a new key", key=key)

    def trouble(error: Exception) -> None:
        log("warning", "key maintenance failed, retrying", error=str(error))

    return KeyWatch(keyset, period, new, trouble, rotate)


class CachedStore:
    """``store``, and the last document seen of each purpose as a file below ``folder``. Documents are wrapped:
    ciphertext."""

    def __init__(self, store: KeysetStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def get(self, purpose: str) -> bytes | None:
        """From the archive; from the copy while the archive is unreachable. Raises KeyDestroyed (which also removes the
        copy), Unreachable."""
        copy = self._folder / f"{purpose}.json"
        try:
            document = self._store.get(purpose)
        except Unreachable:
            if not copy.is_file():
                raise
            log("warning", "archive unreachable; using the keyset's copy in the spool", purpose=purpose)
            return read_regular(copy)
        except Exception:
            copy.unlink(missing_ok=True)
            raise
        if document is not None:
            self._keep(copy, document)
        return document

    def create(self, purpose: str, document: bytes) -> bytes:
        stored = self._store.create(purpose, document)
        self._keep(self._folder / f"{purpose}.json", stored)
        return stored

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        self._store.replace(purpose, expected, document)

    def destroy(self, purpose: str, receipt: bytes) -> None:
        self._store.destroy(purpose, receipt)
        (self._folder / f"{purpose}.json").unlink(missing_ok=True)

    def purposes(self) -> list[str]:
        return self._store.purposes()

    def _keep(self, copy: Path, document: bytes) -> None:
        """A copy that can't be kept is missed when the archive is unreachable, not before."""
        try:
            replace_file(copy, document)
        except OSError as error:
            log("warning", "the keyset's copy in the spool couldn't be written", path=str(copy), error=str(error))

"""The model's keysets: from the archive, or from the spool where there is none (a model run by hand)."""

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.settings import Settings
from governed_serving.crypto import DirectoryStore, Keyring, KeysetStore, load_kek
from governed_serving.server.keys import CachedStore

__all__ = ["keyring_of"]


def keyring_of(settings: Settings) -> Keyring:
    """Raises CryptoError, OSError; opening a keyset: ArchiveError where the archive is away and there's no copy in the spool."""
    kek = load_kek(settings.kek_file)
    store: KeysetStore = DirectoryStore(settings.spool_dir / "keysets")
    if settings.archive_url:
        client = ArchiveClient(settings.archive_url, settings.archive_token, settings.model, patience=20.0)
        store = CachedStore(client.keysets(), settings.spool_dir / "keyset-cache")
    return Keyring(kek, store)

"""The journal's keyset: from the archive, or from the spool where there is none (a model run by hand)."""

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.settings import Settings
from governed_serving.crypto import DirectoryStore, Keyring, Keyset, KeysetStore, load_kek
from governed_serving.server.keys import CachedStore

__all__ = ["keyset_of"]


def keyset_of(settings: Settings) -> Keyset:
    """Raises CryptoError, ArchiveError (the archive is away and there's no copy in the spool), OSError."""
    kek = load_kek(settings.kek_file)
    store: KeysetStore = DirectoryStore(settings.spool_dir / "keysets")
    if settings.archive_url:
        client = ArchiveClient(settings.archive_url, settings.archive_token, settings.model, patience=20.0)
        store = CachedStore(client.keysets(), settings.spool_dir / "keyset-cache")
    return Keyring(kek, store).keyset("journal")

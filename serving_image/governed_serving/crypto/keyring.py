"""All keysets of one model (or of the archive): made when first needed, rotated, destroyed with a receipt, listed."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
from tink import KeysetHandle

from governed_serving.crypto.document import KeyInfo, KeysetDocument, handle_of
from governed_serving.crypto.errors import KeyMissing, KeysetChanged
from governed_serving.crypto.kek import Kek
from governed_serving.crypto.keyset import Keyset, new_handle, with_new_primary, without_key
from governed_serving.crypto.store import KeysetStore
from governed_serving.records import LedgerEntry, timestamp

__all__ = ["KeyEvent", "Keyring"]


class KeyEvent(msgspec.Struct, frozen=True):
    """Something that happened to a keyset. ``action``: created | rotated | destroyed | key-destroyed | rewrapped.

    ``digest`` is the SHA-256 (hex) of the wrapped keyset concerned, ``keys`` the ids of the keys it is about.
    """

    action: str
    purpose: str
    keys: list[int]
    kek: str
    digest: str
    time: str

    def entry(self, namespace: str, model: str, revision: str = "") -> LedgerEntry:
        """The event as a leaf of the ledger."""
        summary = {"action": self.action, "purpose": self.purpose, "keys": self.keys, "kek": self.kek}
        return LedgerEntry(
            "key",
            namespace,
            model,
            f"{self.purpose}:{self.action}",
            self.time,
            revision,
            digest=self.digest,
            summary=summary,
        )


class Keyring:
    """Opens the keysets of ``store`` with ``kek``. ``on_event`` is told of every change (for the ledger)."""

    def __init__(
        self,
        kek: Kek,
        store: KeysetStore,
        *,
        on_event: Callable[[KeyEvent], None] | None = None,
        clock: Callable[[], datetime] | None = None,
    ):
        self._kek = kek
        self._store = store
        self._on_event = on_event or (lambda _: None)
        self._clock = clock or (lambda: datetime.now(UTC))
        self._open: dict[str, Keyset] = {}

    def keyset(self, purpose: str, create: bool = True) -> Keyset:
        """The keyset of ``purpose``: data, artefact, journal, blobs, ledger, ledger-signing, masking-tokens,
        masking-digests, …

        Raises KeyMissing (not there, and not to be created), WrongKek, KeyDestroyed.
        """
        if purpose not in self._open:
            if self._store.get(purpose) is None:
                if not create:
                    raise KeyMissing(
                        f"no {purpose!r} keyset is stored; whoever writes this kind of data creates it first"
                    )
                self._create(purpose)
            self._open[purpose] = Keyset(*self._load(purpose), reload=lambda: self._load(purpose))
        return self._open[purpose]

    def rotate(self, purpose: str, primary: int | None = None) -> KeyEvent:
        """Add a key and make it primary; older ones still open what they sealed. ``primary``: the one that it takes the
        place of.

        Raises KeysetChanged on a race, and when another key is primary already.
        """
        stored, document, handle = self._stored(purpose)
        if primary not in (None, handle.keyset_info().primary_key_id):
            raise KeysetChanged(f"the {purpose!r} keyset was rotated by another process meanwhile; its key counts")
        rotated = handle_of(with_new_primary(handle, purpose))
        return self._replace("rotated", purpose, stored, document, rotated, [rotated.keyset_info().primary_key_id])

    def destroy_key(self, purpose: str, key_id: int) -> KeyEvent:
        """Shred what one retired key sealed: its material leaves the keyset for good."""
        stored, document, handle = self._stored(purpose)
        return self._replace(
            "key-destroyed", purpose, stored, document, handle_of(without_key(handle, key_id)), [key_id]
        )

    def destroy(self, purpose: str) -> KeyEvent:
        """Crypto-shredding: the purpose's keyset is removed, and nothing that it sealed can be opened again, by anyone.

        The event is the receipt; the store keeps it in the keyset's place. Backups of the store must be destroyed as
        well: a copy of the wrapped keyset opens with the KEK.
        """
        stored = self._store.get(purpose)
        if stored is None:
            raise KeyMissing(f"no {purpose!r} keyset is stored; nothing to destroy")
        info = KeysetDocument.parse(stored, purpose).info()
        event = self._event("destroyed", purpose, [k.key_id for k in info], stored)
        self._store.destroy(purpose, msgspec.json.encode(event))
        self._open.pop(purpose, None)
        self._on_event(event)
        return event

    def rewrap(self, kek: Kek) -> list[KeyEvent]:
        """Rotate the KEK: wrap every keyset by ``kek``. Interrupted, it can be run again with the same two keys."""
        events = []
        for purpose in self._store.purposes():
            stored, document = self._parsed(purpose)
            if document.kek != kek.id:
                keyset = document.unwrap(self._kek)
                wrapped = KeysetDocument.wrap(purpose, keyset, kek, {k.id: k.created for k in document.keys})
                self._store.replace(purpose, stored, wrapped)
                events.append(self._event("rewrapped", purpose, [k.id for k in document.keys], wrapped, kek))
        self._kek = kek
        for event in events:
            self._on_event(event)
        return events

    def inventory(self) -> list[KeyInfo]:
        """Every key of every purpose, without material; works with a wrong KEK too."""
        keys: list[KeyInfo] = []
        for purpose in self._store.purposes():
            keys += self._parsed(purpose)[1].info()
        return keys

    def _create(self, purpose: str) -> None:
        handle = new_handle(purpose)
        key_id = handle.keyset_info().primary_key_id
        document = KeysetDocument.wrap(purpose, handle, self._kek, {key_id: self._now()})
        if self._store.create(purpose, document) == document:  # else another process was first: theirs counts
            self._on_event(self._event("created", purpose, [key_id], document))

    def _stored(self, purpose: str) -> tuple[bytes, KeysetDocument, KeysetHandle]:
        stored, document = self._parsed(purpose)
        return stored, document, document.unwrap(self._kek)

    def _parsed(self, purpose: str) -> tuple[bytes, KeysetDocument]:
        stored = self._store.get(purpose)
        if stored is None:
            raise KeyMissing(f"no {purpose!r} keyset is stored; it is made when first used")
        return stored, KeysetDocument.parse(stored, purpose)

    def _load(self, purpose: str) -> tuple[KeysetDocument, KeysetHandle]:
        _, document, handle = self._stored(purpose)
        return document, handle

    def _replace(
        self, action: str, purpose: str, stored: bytes, document: KeysetDocument, handle: KeysetHandle, keys: list[int]
    ) -> KeyEvent:
        created = {k.id: k.created for k in document.keys}
        for key in handle.keyset_info().key_info:
            created.setdefault(key.key_id, self._now())
        wrapped = KeysetDocument.wrap(purpose, handle, self._kek, created)
        self._store.replace(purpose, stored, wrapped)
        if purpose in self._open:
            self._open[purpose].refresh()
        event = self._event(action, purpose, keys, wrapped)
        self._on_event(event)
        return event

    def _event(self, action: str, purpose: str, keys: list[int], document: bytes, kek: Kek | None = None) -> KeyEvent:
        return KeyEvent(action, purpose, keys, (kek or self._kek).id, sha256(document).hexdigest(), self._now())

    def _now(self) -> str:
        return timestamp(self._clock().timestamp())

"""Payload retention: what requests said is deleted after a model's window, and the ledger keeps a receipt for it.

A model's window is its reference ``retention`` ({"payloads": seconds}), whose history is in the ledger. What is old is
told by the time in the entries, of a whole chunk by its newest. The receipt is written before anything is deleted,
lists every address, and names the time before which entries may be concerned: verification holds each missing blob
against it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from governed_serving.archive.ledger.entrylog import Cipher
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.store.blobs import BlobStore
from governed_serving.crypto import CryptoError
from governed_serving.decoding import decode_msgpack, decode_with
from governed_serving.durable import replace_file
from governed_serving.records import LedgerEntry, timestamp

__all__ = ["DELETION", "PAYLOADS", "Receipts", "Retention", "RetentionState", "read_state"]

DELETION = "deletion"
"""Type of a receipt; only the archive writes it."""
PAYLOADS = frozenset({"prediction", "explanation", "label", "deadLetter"})
"""Entries whose blob holds, or may hold, what a request said. A chunk that holds one of them goes as a whole."""

_AAD = b"governed retention state 1"
_SLICE = 1000
_EACH = 500
"""Addresses in one receipt: an entry stays far below its limit."""
_decoder = msgspec.json.Decoder(LedgerEntry)
Note = Callable[[str, str, str, str, Mapping[str, object]], None]


class RetentionState(msgspec.Struct):
    """Up to which entry the ledger was read for ``models``, and the payload blobs found: address → (model, newest
    time)."""

    models: list[str] = []
    scanned: int = 0
    waiting: dict[str, tuple[str, str]] = {}


class Retention:
    """Deletes from ``blobs`` what is past its model's window. ``note(model, type, id, digest, summary)`` writes the
    receipt.

    One caller at a time. Memory and state: about 150 bytes per blob that is not deleted yet.
    """

    def __init__(self, path: Path, cipher: Cipher, ledger: Ledger, blobs: BlobStore, note: Note):
        self._path, self._cipher = path, cipher
        self._ledger, self._blobs, self._note = ledger, blobs, note
        self._state = self._read()
        self.deleted = 0
        """Blobs deleted since the start."""

    def sweep(self, windows: dict[str, float], now: float) -> int:
        """Delete what is due by ``windows`` (seconds by model); the number of blobs. Raises ArchiveError, OSError: what
        is left is found again."""
        if not windows:
            return 0
        if not set(windows) <= set(self._state.models):
            self._state = RetentionState()  # entries of a model that had no window were passed over
        known = (self._state.models, self._state.scanned)
        self._state.models = sorted(windows)
        self._scan(set(windows))
        count = 0
        for model, window in windows.items():
            before = timestamp(now - window)
            due = sorted(b for b, (of, newest) in self._state.waiting.items() if of == model and newest < before)
            for start in range(0, len(due), _EACH):
                self._delete(model, due[start : start + _EACH], before, window)
            count += len(due)
        if count or known != (self._state.models, self._state.scanned):
            self._write()
        self.deleted += count
        return count

    def _scan(self, models: set[str]) -> None:
        state = self._state
        while state.scanned < self._ledger.size:
            leaves = self._ledger.entries(state.scanned, state.scanned + _SLICE)
            for leaf in leaves:
                entry = decode_with(_decoder, leaf)
                if entry.model in models and entry.blob and entry.frame is not None and entry.type in PAYLOADS:
                    self._found(entry)
            state.scanned += len(leaves)

    def _found(self, entry: LedgerEntry) -> None:
        known = self._state.waiting.get(entry.blob)
        if known is not None:
            self._state.waiting[entry.blob] = (entry.model, max(known[1], entry.time))
        elif self._blobs.size(entry.blob) is not None:
            self._state.waiting[entry.blob] = (entry.model, entry.time)

    def _delete(self, model: str, due: list[str], before: str, window: float) -> None:
        summary = {"reason": "governance.privacy.retention.payloads", "seconds": window, "before": before, "blobs": due}
        self._note(model, DELETION, f"retention:{before}", "", summary)
        for digest in due:
            self._blobs.expire(digest)
            del self._state.waiting[digest]

    def _read(self) -> RetentionState:
        """Derived from the ledger: where it can't be read, all entries are read again."""
        try:
            return read_state(self._path, self._cipher) if self._path.exists() else RetentionState()
        except (CryptoError, msgspec.DecodeError) as error:
            self._ledger.say(f"{self._path} couldn't be read ({error}): it is made anew from the entries")
            return RetentionState()

    def _write(self) -> None:
        replace_file(self._path, self._cipher.seal(msgspec.msgpack.encode(self._state), _AAD))


def read_state(path: Path, cipher: Cipher) -> RetentionState:
    """What a sweep keeps at ``path``. Raises CryptoError, msgspec.DecodeError, OSError."""
    return decode_msgpack(cipher.open(path.read_bytes(), _AAD), type=RetentionState)


class Receipts:
    """What receipts in a ledger cover, gathered while its entries go by: address → (model, before)."""

    def __init__(self) -> None:
        self._covered: dict[str, tuple[str, str]] = {}

    def add(self, entry: LedgerEntry) -> None:
        """Take in an entry, if it is a receipt."""
        if entry.type == DELETION:
            for digest in self.addresses(entry):
                self._covered[digest] = (entry.model, str(entry.summary.get("before", "")))

    @staticmethod
    def addresses(entry: LedgerEntry) -> Iterator[str]:
        """Blobs that a receipt lists."""
        listed = entry.summary.get("blobs", []) if entry.type == DELETION else []
        yield from (str(digest) for digest in listed)

    def problem(self, entry: LedgerEntry) -> str | None:
        """Why the blob that ``entry`` names may not be missing; None when a receipt covers it."""
        model, before = self._covered.get(entry.blob, ("", ""))
        if model != entry.model or entry.frame is None:
            return f"its blob {entry.blob} is missing, and no deletion receipt covers it"
        if entry.type in PAYLOADS and entry.time >= before:
            return f"its blob {entry.blob} was deleted too early: the receipt is for payloads before {before}"
        return None  # a payload, or another record in the same chunk

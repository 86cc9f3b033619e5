"""Payload retention: what requests said is deleted after a model's window, and the ledger keeps a receipt for it.

A model's window is its reference ``retention`` ({"payloads": seconds}), whose history is in the ledger. What is old is
told by the time in the entries, of a whole chunk by its newest. The receipt is written before anything is deleted,
lists every address, and names the time before which entries may be concerned: verification holds each missing blob
against it.

What was deleted doesn't come back, so a clock that jumps ahead deletes nothing at once: retention's own moment never
runs faster than :data:`CATCH_UP` times the time that really passes. After an outage it lags for a while.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from governed_serving.archive.ledger.entrylog import Cipher
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.store.blobs import BlobStore
from governed_serving.archive.times import AHEAD, RECEIVED, STANDS_IN
from governed_serving.crypto import CryptoError
from governed_serving.decoding import decode_msgpack, decode_with
from governed_serving.durable import replace_file
from governed_serving.records import LedgerEntry, timestamp

__all__ = ["CATCH_UP", "DELETION", "PAYLOADS", "Pace", "Receipts", "Retention", "RetentionState", "read_state"]

DELETION = "deletion"
"""Type of a receipt; only the archive writes it."""
PAYLOADS = frozenset({"prediction", "explanation", "label", "deadLetter"})
"""Entries whose blob holds, or may hold, what a request said. A chunk that holds one of them goes as a whole."""

_AAD = b"governed retention state 1"
CATCH_UP = 24.0
"""Times as fast as time passes, retention's moment may follow the archive's clock: a day in an hour."""
_TOLD = 3600.0
"""Seconds behind the clock that are told."""
_SAVED = 3600.0
"""Seconds after which its moment is written down though nothing else changed."""
_SLICE = 1000
_EACH = 500
"""Addresses in one receipt: an entry stays far below its limit."""
_decoder = msgspec.json.Decoder(LedgerEntry)
Note = Callable[[str, str, str, str, Mapping[str, object]], None]


class RetentionState(msgspec.Struct):
    """Up to which entry the ledger was read for ``models``, and the payload blobs found: address → (model, newest
    time). ``ahead``: by model when entries last came whose times can't be, and the newest of them;
    ``newest``: time of an entry; ``moment``: retention's own (seconds since the epoch; 0: not known)."""

    models: list[str] = []
    scanned: int = 0
    waiting: dict[str, tuple[str, str]] = {}
    ahead: dict[str, tuple[str, str]] = {}
    newest: str = ""
    moment: float = 0.0


class Pace:
    """How fast retention's moment may go; ``passing``: seconds that really pass, from any start (a monotonic clock)."""

    def __init__(self, passing: Callable[[], float]):
        self._passing, self._last = passing, passing()
        self._reached = 0.0
        self._began: tuple[float, float] | None = None
        self.behind = 0.0
        """Seconds by which the archive's clock was ahead of retention's moment at the last look."""

    def moment(self, before: float, now: float) -> float:
        """Retention's moment, which was ``before`` (0: not known), while the archive's clock says ``now``."""
        passing = self._passing()
        passed, self._last = max(0.0, passing - self._last), passing
        moment = max(before, min(now, before + CATCH_UP * passed)) if before else now
        self.behind, self._reached = max(0.0, now - moment), moment
        return moment

    def lag(self, now: float) -> float:
        """Seconds by which the archive's clock, which says ``now``, is ahead of the moment (also between two looks), or
        of what passed since this was asked first: a clock that stays wrong stays so after the moment caught up."""
        passing = self._passing()
        began, then = self._began = self._began or (passing, now)
        jumped = now - then - (passing - began)
        behind = now - self._reached - CATCH_UP * max(0.0, passing - self._last) if self._reached else 0.0
        return max(0.0, jumped, behind)

    def problem(self) -> str:
        """What an operator should know of a clock that runs ahead, in words that stay the same for hours; or ""."""
        if self.behind < _TOLD:
            return ""
        return (
            "the archive's clock went ahead of the time that passed: payloads are deleted as if it were earlier, a day "
            "further each hour, until it catches up. After an outage that is as it should be; else set the node's clock"
        )


class Retention:
    """Deletes from ``blobs`` what is past its model's window. ``note(model, type, id, digest, summary)`` writes the
    receipt.

    One caller at a time. Memory and state: about 150 bytes per blob that is not deleted yet.
    """

    def __init__(self, path: Path, cipher: Cipher, ledger: Ledger, blobs: BlobStore, note: Note):
        self._path, self._cipher = path, cipher
        self._ledger, self._blobs, self._note = ledger, blobs, note
        self._state = self._read()
        self._saved = self._state.moment
        self.deleted = 0
        """Blobs deleted since the start."""

    def sweep(self, windows: dict[str, float], now: float, pace: Pace | None = None) -> int:
        """Delete what is due by ``windows`` (seconds by model); the number of blobs. ``now`` is believed as far as
        ``pace`` lets it. Raises ArchiveError, OSError: what is left is found again."""
        if not windows:
            self._moment(now, pace)
            return 0
        if not set(windows) <= set(self._state.models):  # entries of a model that had no window were passed over
            self._state = RetentionState(moment=self._state.moment)
        counted = (self._state.models, self._state.scanned)
        self._state.models = sorted(windows)
        self._scan(set(windows))
        now = min(now, self._moment(now, pace))
        count = 0
        for model, window in windows.items():
            before = timestamp(now - window)
            due = sorted(b for b, (of, newest) in self._state.waiting.items() if of == model and newest < before)
            for start in range(0, len(due), _EACH):
                self._delete(model, due[start : start + _EACH], before, window)
            count += len(due)
        saved = self._state.moment - self._saved < _SAVED
        if count or counted != (self._state.models, self._state.scanned) or not saved:
            self._write()
        self.deleted += count
        return count

    def _moment(self, now: float, pace: Pace | None) -> float:
        """Where no moment is known, that of the newest entry is: the state may have been lost as the clock jumped."""
        if pace is None:
            return now
        state = self._state
        state.moment = pace.moment(state.moment or min(_seconds(state.newest), now), now)
        return state.moment

    def _scan(self, models: set[str]) -> None:
        state = self._state
        while state.scanned < self._ledger.size:
            leaves = self._ledger.entries(state.scanned, state.scanned + _SLICE)
            for leaf in leaves:
                entry = decode_with(_decoder, leaf)
                if entry.type not in STANDS_IN:  # whose times nobody checked
                    state.newest = max(state.newest, entry.time)
                if entry.type == RECEIVED:
                    self._state.ahead[entry.model] = entry.time, str(entry.summary.get("newest", ""))
                if entry.model in models and entry.blob and entry.frame is not None and entry.type in PAYLOADS:
                    self._found(entry)
            state.scanned += len(leaves)

    def _found(self, entry: LedgerEntry) -> None:
        waiting, time = self._state.waiting.get(entry.blob), self._time(entry)
        if waiting is not None:
            self._state.waiting[entry.blob] = (entry.model, max(waiting[1], time))
        elif self._blobs.size(entry.blob) is not None:
            self._state.waiting[entry.blob] = (entry.model, time)

    def _time(self, entry: LedgerEntry) -> str:
        """What an entry claims; where that lies behind the moment in which it came, that moment: else a clock that was
        years ahead would keep for years what was refused for it."""
        ahead = self._state.ahead.get(entry.model)
        if ahead is None or entry.type not in STANDS_IN or not ahead[0] < entry.time <= ahead[1]:
            return entry.time
        came = ahead[0]
        return came if entry.time > timestamp(_seconds(came) + AHEAD) else entry.time

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
        self._saved = self._state.moment


def _seconds(time: str) -> float:
    """Since the epoch; 0 for what is no time."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def read_state(path: Path, cipher: Cipher) -> RetentionState:
    """What a sweep keeps at ``path``. Raises CryptoError, msgspec.DecodeError, OSError."""
    return decode_msgpack(cipher.open(path.read_bytes(), _AAD), type=RetentionState)


class Receipts:
    """What receipts in a ledger cover, gathered while its entries go by: address → (model, before, when)."""

    def __init__(self) -> None:
        self._covered: dict[str, tuple[str, str, str]] = {}

    def add(self, entry: LedgerEntry) -> None:
        """Take in an entry, if it is a receipt."""
        if entry.type == DELETION:
            for digest in self.addresses(entry):
                self._covered[digest] = (entry.model, str(entry.summary.get("before", "")), entry.time)

    @staticmethod
    def addresses(entry: LedgerEntry) -> Iterator[str]:
        """Blobs that a receipt lists."""
        listed = entry.summary.get("blobs", []) if entry.type == DELETION else []
        yield from (str(digest) for digest in listed)

    def problem(self, entry: LedgerEntry) -> str | None:
        """Why the blob that ``entry`` names may not be missing; None when a receipt covers it."""
        model, before, when = self._covered.get(entry.blob, ("", "", ""))
        if model != entry.model or entry.frame is None:
            return f"its blob {entry.blob} is missing, and no deletion receipt covers it"
        if entry.type in STANDS_IN and entry.time > when:
            return None  # a claim that can't be: it was there before it was deleted
        if entry.type in PAYLOADS and entry.time >= before:
            return f"its blob {entry.blob} was deleted too early: the receipt is for payloads before {before}"
        return None  # a payload, or another record in the same chunk

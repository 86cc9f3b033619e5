"""A signed promise, held against a ledger: who signed it, and whether it was kept.

What the ledger can show of time is the newest time that any of its entries has: archives take none from further ahead
than ``AHEAD``. A promise is broken once the ledger went on for longer than its delay, and that much, without its
record; before that, a ledger without it shows nothing yet.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from governed_api.regular_files import read_regular
from governed_serving.archive.ledger.note import Checkpoint, NoteError
from governed_serving.archive.ledger.promise import (
    KEY_TYPE,
    MOST_BYTES,
    AnnouncedKey,
    Promise,
    SignedPromise,
    decode_key,
)
from governed_serving.archive.times import AHEAD, STANDS_IN
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.sources import LogSource
from governed_serving.crypto import CryptoError
from governed_serving.decoding import decode_json
from governed_serving.journal import JournalError, frame_of_chunk
from governed_serving.records import LedgerEntry

__all__ = ["check_promise", "is_promise", "read_promise"]

_START = b"eyJhbGciOiJFZERTQSIs"
"""base64url of ``{"alg":"EdDSA",``, with which every promise begins."""
_CHOSEN = "the bundle holds chosen entries alone, which show no absence: export it whole, or name the archive"


@dataclass(frozen=True)
class _Placed:
    index: int
    entry: LedgerEntry
    reached: float
    """Newest time of an entry up to this one, seconds since the epoch."""


@dataclass
class _Seen:
    """What one pass over the ledger finds of a promise."""

    key: _Placed | None = None
    kept: _Placed | None = None
    dead: _Placed | None = None
    unreadable: _Placed | None = None
    others: int = 0
    """Entries with its id about another place."""
    reached: float = 0.0


def is_promise(path: Path) -> bool:
    """Whether a file begins as a promise does."""
    with path.open("rb") as file:
        return file.read(len(_START)) == _START


def read_promise(path: Path) -> SignedPromise:
    """Raises NoteError, OSError."""
    try:
        return SignedPromise.parse(read_regular(path, MOST_BYTES, follow=True).decode("ascii"))
    except UnicodeDecodeError:
        raise NoteError("a promise must be ASCII: it was changed") from None


def check_promise(signed: SignedPromise, id: str, source: LogSource, findings: Findings) -> None:
    """Signature, key and whether it was kept, by a ledger whose entries were verified before. ``id``: whose promise it
    must be, or "". Raises ArchiveError, NoteError."""
    promise = signed.promise
    checkpoint = Checkpoint.unverified(source.checkpoint())
    seen = _look(signed, source, checkpoint.size)
    findings.hold(
        "promise",
        f"record of answer {promise.id} of {promise.namespace}/{promise.model}, revision {promise.revision or 'none'}, "
        f"made {promise.time}, within {promise.delay:,} s",
    )
    findings.hold("ledger", f"{checkpoint.origin}, {checkpoint.size:,} entries, root {checkpoint.root.hex()}")
    if id and id != promise.id:
        findings.fault("promise", f"is for id {promise.id}, expected {id}: it was given for another answer")
    if _check_key(signed, seen, source, findings):
        _check_kept(promise, seen, source, findings)


def _look(signed: SignedPromise, source: LogSource, size: int) -> _Seen:
    seen, promise = _Seen(), signed.promise
    for leaf in source.leaves(size):
        entry = decode_json(leaf.data, type=LedgerEntry)
        if entry.type not in STANDS_IN:  # whose times nobody checked
            seen.reached = max(seen.reached, _seconds(entry.time) or 0.0)
        here = _Placed(leaf.index, entry, seen.reached)
        if entry.type == KEY_TYPE and entry.id == signed.key:
            seen.key = seen.key or here
        elif (entry.namespace, entry.model) != (promise.namespace, promise.model):
            continue
        elif entry.id == promise.id and entry.type in ("prediction", "deadLetter"):
            if (entry.frame, entry.index) != (promise.frame, promise.index):
                seen.others += 1
            elif entry.type == "prediction":
                seen.kept = seen.kept or here
            else:
                seen.dead = seen.dead or here
        elif entry.type == "unreadable" and _covers(entry, promise):
            seen.unreadable = here
    return seen


def _check_key(signed: SignedPromise, seen: _Seen, source: LogSource, findings: Findings) -> bool:
    """Whether the ledger announced the key that signed, for this model, revision and time."""
    promise, made = signed.promise, _seconds(signed.promise.time)
    if made is None:
        findings.fault("time", f"{promise.time!r} is no time: the promise was changed")
        return False
    if seen.key is None:
        if seen.reached <= made + AHEAD:  # entries may be as far ahead: this ledger may be older than key and promise
            why = f"this ledger ends at {_shown(seen.reached)}, before the promise was made or about then: take a newer"
            findings.skip("key", why)
        elif not source.complete:
            findings.skip("key", _CHOSEN)
        else:
            findings.fault("key", f"no entry announces key {signed.key}: the promise is not by a server of this ledger")
        return False
    entry, about = seen.key.entry, f"entry {seen.key.index:,} announces key {signed.key}"
    try:
        key = msgspec.convert(entry.summary, AnnouncedKey)
        signed.verify(decode_key(key))
    except (msgspec.ValidationError, NoteError) as error:
        findings.fault("signature", str(error))
        return False
    findings.hold("signature", f"holds, by the key of {entry.namespace}/{entry.model}; {about}, {entry.time}")
    before = len(findings.wrong)
    if (entry.namespace, entry.model) != (promise.namespace, promise.model):
        whose = f"{entry.namespace}/{entry.model}"
        findings.fault("key", f"{about} for another model ({whose}), which may promise nothing of this one")
    elif entry.revision != promise.revision:
        findings.fault("key", f"{about} for revision {entry.revision!r}, the promise is of {promise.revision!r}")
    start, end = _seconds(key.not_before), _seconds(key.not_after)
    if start is None or end is None or not start <= made <= end:
        findings.fault("time", f"made {promise.time}, outside of the key's time ({key.not_before} to {key.not_after})")
    recorded = _seconds(promise.recorded)
    if recorded is None or abs(made - recorded) > AHEAD:
        why = "one of the two was invented, or a clock jumped between them"
        findings.fault("time", f"made {promise.time} of what was recorded {promise.recorded}: {why}")
    return len(findings.wrong) == before


def _check_kept(promise: Promise, seen: _Seen, source: LogSource, findings: Findings) -> None:
    due = (_seconds(promise.time) or 0.0) + promise.delay + AHEAD
    kept = seen.kept or seen.dead
    if kept is None:
        _not_kept(promise, seen, source, due, findings)
        return
    entry, where = kept.entry, f"entry {kept.index:,}"
    assert seen.key is not None, "checked before"
    if seen.key.index > kept.index:
        findings.fault("key", f"was announced behind what it promised ({where}): not before it was used")
    said = (entry.time, entry.revision)
    if entry.type == "prediction" and said != (promise.recorded, promise.revision):
        findings.fault("record", f"{where} is of {entry.time}, revision {entry.revision!r}: not what was promised")
        return
    if kept.reached > due:
        late = f"{where} came when the ledger had reached {_shown(kept.reached)}"
        findings.fault("delay", f"broken promise: {late}, later than {promise.delay:,} s after the answer")
        return
    if seen.kept is None:
        findings.note("record", "the archive refused the answer's own entry; a dead letter stands in its place")
    findings.hold("inclusion", f"kept: {where} is the promised record's ({entry.type} {entry.id}, {entry.time})")
    _check_content(promise, entry, source, findings)


def _check_content(promise: Promise, entry: LedgerEntry, source: LogSource, findings: Findings) -> None:
    try:
        frame = frame_of_chunk(source.blob_bytes(entry.blob), promise.frame)
    except FileNotFoundError:
        findings.note("content", "the blob isn't here (retention, or a bundle without): the entry alone was compared")
        return
    except (CryptoError, JournalError) as error:
        findings.fault("content", f"blob {entry.blob} is no chunk of a journal: {error}")
        return
    digest = hashlib.sha256(frame or b"").hexdigest()
    if digest != promise.record:
        what = f"has frame {promise.frame} with SHA-256 {digest}, promised was {promise.record}"
        findings.fault("content", f"broken promise: blob {entry.blob} {what}: another record took its place")
    else:
        findings.hold("content", f"frame {promise.frame} of blob {entry.blob} is the promised record, bit for bit")


def _not_kept(promise: Promise, seen: _Seen, source: LogSource, due: float, findings: Findings) -> None:
    evidence = f"the ledger has reached {_shown(seen.reached)}, due was {_shown(due - AHEAD)} (clocks may differ by "
    evidence += f"{AHEAD:.0f} s); signed promise and checkpoint show it"
    if not source.complete:
        findings.skip("inclusion", _CHOSEN)
    elif seen.unreadable is not None:
        where = f"entry {seen.unreadable.index:,} says that frame {promise.frame} of {promise.stream} can't be read"
        findings.fault("inclusion", f"broken promise: {where}; {evidence}")
    elif seen.reached > due:
        other = f"; {seen.others} other entries have its id" if seen.others else ""
        findings.fault("inclusion", f"broken promise: not included within {promise.delay:,} s{other}; {evidence}")
    else:
        findings.skip("inclusion", f"not included yet, and not due in this ledger: {evidence}; take a newer one later")


def _covers(entry: LedgerEntry, promise: Promise) -> bool:
    """Whether an entry about unreadable frames stands for the promised one."""
    stream, first, last = (entry.summary.get(name) for name in ("stream", "first", "last"))
    if not (isinstance(stream, str) and isinstance(first, int) and isinstance(last, int)):
        return False
    return stream.rpartition(".")[0] == promise.stream and first <= promise.frame <= last


def _seconds(time: str) -> float | None:
    """Since the epoch; None for what is no time, also for one without a zone: it would be another one elsewhere."""
    try:
        read = datetime.fromisoformat(time)
        return read.timestamp() if read.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _shown(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"

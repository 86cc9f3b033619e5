"""The ledger: entries, tree, streams and index as one append-only log on a volume.

What is true lies in the entry segments; tiles, index and ``state`` are derived, held against the entries at the start,
as they are read and in the background (:meth:`Ledger.inspect`), and made anew where they are missing or damaged. An
append is durable (one fsync for a group) before it is answered, and numbered: (model, stream, seq) is appended once
however often it is sent. Memory: the tree's edge, one segment of index entries, and about 50 bytes per run of a stream.
"""

import secrets
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import LedgerDamaged, Refused
from governed_serving.archive.ledger.entrylog import REMEDY, Batch, Cipher, EntryLog
from governed_serving.archive.ledger.idindex import IdIndex, IndexDamaged
from governed_serving.archive.ledger.merkle import hash_leaf
from governed_serving.archive.ledger.note import (
    Checkpoint,
    NoteError,
    Signer,
    open_checkpoint,
    sign_checkpoint,
    sign_dossier,
)
from governed_serving.archive.ledger.streams import Streams
from governed_serving.archive.ledger.tiles import WIDTH, TiledTree
from governed_serving.decoding import decode_msgpack, decode_with
from governed_serving.durable import replace_file
from governed_serving.records import VERDICT, LedgerEntry

__all__ = ["INDEX_AAD", "LOSS", "STATE_AAD", "Anchor", "Appended", "FoundEntry", "Ledger", "Snapshot"]

STATE_AAD = b"governed ledger state 1"
INDEX_AAD = b"governed ledger index key 1"
LOSS = "loss"
"""Type of the entry that says what a person let go."""
_SCAN_LIMIT = 20_000
_SAID = 64
_RUN = 65_536
_DAMAGED = ".damaged"
_entry_decoder = msgspec.json.Decoder(LedgerEntry)


@dataclass(frozen=True)
class Appended:
    """Answer to an append: ``ranges`` (first index, count) cover the batch's entries in order; ``size`` is the
    ledger's."""

    first_index: int
    ranges: tuple[tuple[int, int], ...]
    size: int


@dataclass(frozen=True)
class FoundEntry:
    """An entry and where it is."""

    index: int
    entry: bytes


class Page(NamedTuple):
    """Some of the entries that were asked for, ascending; those before index ``rest`` weren't looked at."""

    found: list[FoundEntry]
    rest: int


class Snapshot(msgspec.Struct, array_like=True):
    """``state``: what is derived from the first ``size`` entries, so that a start needn't read them all."""

    size: int
    edge: list[bytes]
    streams: list[tuple[str, str, list[tuple[int, int, int]]]]
    runs: list[str]
    sums: list[bytes] = []
    """SHA-256 of the index's runs; none in a snapshot of an older version."""


def _says_loss(batch: Batch) -> bool:
    return any(decode_with(_entry_decoder, entry).type == LOSS for entry in batch.entries)


def _nothing() -> Snapshot:
    return Snapshot(0, [], [], [])


@dataclass(frozen=True)
class Anchor:
    """A checkpoint of this log that was kept elsewhere (``place``): what the log must still have."""

    place: str
    checkpoint: Checkpoint


class Ledger:
    """One log below ``root``. Thread-safe; one process at a time (the caller holds the directory's lock).

    ``signer.name`` is the log's origin; ``older`` signers sign after it. ``keep``: a file outside ``root`` where each
    checkpoint is kept as well; ``told``: notes of others that were kept, by their place. Raises :class:`LedgerDamaged`
    when the files contradict one of them or the last checkpoint; with ``accept_loss`` the log goes on with what can be
    read, and ``lost`` says what was.
    """

    def __init__(
        self,
        root: Path,
        cipher: Cipher,
        signer: Signer,
        older: tuple[Signer, ...] = (),
        *,
        keep: Path | None = None,
        told: Mapping[str, str] = MappingProxyType({}),
        accept_loss: bool = False,
    ):
        self.root = root
        self._cipher = cipher
        self._signer, self._older = signer, older
        self._keep, self._told, self._accept_loss = keep, told, accept_loss
        self._lock = threading.RLock()
        self.rebuilt = 0
        """Derived files that weren't what the entries make, and were made anew."""
        self.said: deque[str] = deque(maxlen=_SAID)
        """What was made anew, in words, the newest last; taken by whoever tells of it."""
        self.faults: dict[int, str] = {}
        """What the last look found in the log itself, by the entry it began with: only a backup has it."""
        self.lost: Anchor | None = None
        self._judged: set[str] = set()
        root.mkdir(parents=True, exist_ok=True)
        self._log = EntryLog(root / "log", cipher, signer.name)
        self._key = self._index_key()
        replace_file(root / "vkey", f"{signer.verifier}\n".encode())
        self._stale = False
        self._note: tuple[int, str] | None = None
        self._load()

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Entries that are durable."""
        return self._tree.size

    @property
    def vkey(self) -> str:
        """Verifier key of the checkpoints."""
        return str(self._signer.verifier)

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._signer.name

    def root_hash(self, size: int | None = None) -> bytes:
        """Root over the first ``size`` entries."""
        with self._lock:
            return self._tree.root_hash(size)

    def checkpoint(self) -> str:
        """Signed note over all entries; on disk before anyone sees it, so that a restart can't forget it."""
        with self._lock:
            if self._note is None or self._note[0] != self.size:
                note = sign_checkpoint(self._signer, self.size, self._tree.root_hash(), older=self._older)
                # The edge first: with the full tiles it lets a verifier name the entry that differs.
                replace_file(self.root / "edge", msgspec.msgpack.encode((self.size, self._tree.edge)))
                replace_file(self.root / "checkpoint", note.encode())
                if self._keep is not None:
                    replace_file(self._keep, note.encode())
                self._note = (self.size, note)
            return self._note[1]

    def signed_dossier(self, model: str, digest: str) -> str:
        """Signed note that a dossier about ``model`` has the index with this SHA-256 (hex)."""
        with self._lock:
            return sign_dossier(model, digest, self._signer, self._older)

    def sign_with(self, signer: Signer, older: tuple[Signer, ...]) -> None:
        """From now on: a rotated key, and those that sign after it."""
        with self._lock:
            self._signer, self._older = signer, older
            self._note = None
            replace_file(self.root / "vkey", f"{signer.verifier}\n".encode())
            self.checkpoint()

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Inclusion proof; ValueError outside 0 ≤ index < size ≤ :attr:`size`."""
        with self._lock:
            return self._tree.inclusion(index, size)

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Consistency proof; ValueError outside 1 ≤ first ≤ second ≤ :attr:`size`."""
        with self._lock:
            return self._tree.consistency(first, second)

    def contradicting(self, note: str) -> Checkpoint | None:
        """The checkpoint of a note that one of our keys signed, where this ledger doesn't go on from it. Raises
        NoteError."""
        signed = self._opened_note(note)
        with self._lock:
            holds = signed.size <= self.size and self._tree.root_hash(signed.size) == signed.root
        return None if holds else signed

    def was_let_go(self, checkpoint: Checkpoint) -> bool:
        """Whether an entry says that a person let go of what this checkpoint signed."""
        for loss in self.find(ARCHIVE, type=LOSS, limit=_SCAN_LIMIT):
            entry = decode_with(_entry_decoder, loss.entry)
            if (entry.digest, entry.summary.get("signed")) == (checkpoint.root.hex(), checkpoint.size):
                return True
        return False

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Hashes of a tile; KeyError beyond the tree."""
        with self._lock:
            return self._tree.tile(level, number, width)

    def entries(self, start: int, end: int) -> list[bytes]:
        """Entries ``start`` … min(``end``, size) − 1."""
        with self._lock:
            return list(self._log.read(start, min(end, self.size)))

    def extent(self, size: int) -> list[tuple[str, int]]:
        """(file name below ``log/``, bytes) of what holds the first ``size`` entries; a checkpoint's size."""
        with self._lock:
            return self._log.extent(size)

    def find(self, model: str, id: str = "", type: str = "", limit: int = 100) -> list[FoundEntry]:
        """The newest ``limit`` entries of ``model`` with this id and type (either may be empty), ascending."""
        return self.page(model, id, type, limit).found

    def page(self, model: str, id: str = "", type: str = "", limit: int = 100, before: int | None = None) -> Page:
        """The newest ``limit`` such entries of those before index ``before``.

        By id, or by type other than prediction, through the index; otherwise the newest 20,000 entries are looked
        through.
        """
        with self._lock:
            end = self.size if before is None else min(before, self.size)
            if id:
                candidates: Iterable[int] = reversed(self._index.find(self._index.hash(model, id)))
            elif type and type != "prediction":
                candidates = reversed(self._index.find(self._index.hash(model, f"\1{type}")))
            else:
                candidates = range(end - 1, max(end - 1 - _SCAN_LIMIT, -1), -1)
            entries: list[FoundEntry] = []
            rest = max(end - _SCAN_LIMIT, 0) if isinstance(candidates, range) else 0
            for index in candidates:
                if index >= end:
                    continue
                leaf = next(self._log.read(index, index + 1))
                entry = decode_with(_entry_decoder, leaf)
                if entry.model == model and id in ("", entry.id) and type in ("", entry.type):
                    entries.append(FoundEntry(index, leaf))
                    if len(entries) >= limit:
                        rest = index
                        break
            return Page(entries[::-1], rest)

    def take_judged(self) -> set[str]:
        """Models about which a verdict has come since this was asked last."""
        with self._lock:
            judged, self._judged = self._judged, set()
            return judged

    def next_seq(self, model: str, stream: str) -> int | None:
        """Number of the next entry of a stream; None for a stream never seen."""
        with self._lock:
            return self._streams.next_seq(model, stream)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> Appended:
        """Append one batch; see :meth:`append_group`."""
        result = self.append_group([batch])[0]
        if isinstance(result, Refused):
            raise result
        return result

    def append_group(self, batches: list[Batch]) -> list[Appended | Refused]:
        """Append batches of different streams with one fsync. Entries sent before are answered with their old indices.

        A batch that leaves a gap, or repeats a number with other content, is answered with :class:`Refused` (409).
        Raises OSError when nothing could be written; the log is then unchanged.
        """
        with self._lock:
            self._reload_if_stale()
            if any(b.model == ARCHIVE and _says_loss(b) for b in batches):
                self._loss = self.size
            if len({(b.model, b.stream) for b in batches}) != len(batches):
                raise ValueError("a group must hold each stream once")
            plans: list[Batch | Refused] = [self._plan(b) for b in batches]
            fresh: list[tuple[int, Batch]] = []
            first = self.size
            for plan in plans:
                if isinstance(plan, Batch) and plan.entries:
                    fresh.append((first, plan))
                    first += len(plan.entries)
            if fresh:
                self._write(fresh)
            return [p if isinstance(p, Refused) else self._answer(b) for b, p in zip(batches, plans, strict=True)]

    def close(self) -> None:
        """Snapshot, so that the next start is quick."""
        with self._lock:
            if not self._stale:
                self.checkpoint()
                self._snapshot()
            self._log.close()

    def _plan(self, batch: Batch) -> Batch | Refused:
        """What of ``batch`` is new."""
        expected = self._streams.next_seq(batch.model, batch.stream)
        if (expected is None or batch.first_seq > expected) and self._lost_since(batch):
            return batch
        if expected is None:
            if batch.first_seq not in (0, 1):
                return Refused(
                    409, f"stream {batch.stream} is new and must begin at 0 or 1, found {batch.first_seq}", expected=0
                )
            return batch
        if batch.first_seq > expected:
            return Refused(
                409,
                f"stream {batch.stream}: expected seq {expected}, found {batch.first_seq}: entries between are missing",
                expected=expected,
            )
        repeated = min(expected - batch.first_seq, len(batch.entries))
        for seq, entry in enumerate(batch.entries[:repeated], batch.first_seq):
            index = self._index_of(batch.model, batch.stream, seq)
            if index is None:  # not damage: whoever sends it may be wrong, and others share the group
                return Refused(
                    409,
                    f"stream {batch.stream}: expected seq {expected}, found {batch.first_seq}: "
                    f"entry {seq} isn't in the ledger",
                    expected=expected,
                )
            if self._tree.node(0, index) != hash_leaf(entry):
                return Refused(
                    409,
                    f"entry {seq} of stream {batch.stream} was appended before with other content, as index {index}",
                )
        return Batch(batch.model, batch.stream, batch.first_seq + repeated, batch.entries[repeated:])

    def _lost_since(self, batch: Batch) -> bool:
        """Whether a loss that a person accepted may have taken what came before ``batch``: none of its stream has come
        since."""
        if self._loss < 0:
            return False
        seq = self._streams.next_seq(batch.model, batch.stream)
        return seq is None or self._locate(batch.model, batch.stream, seq - 1) < self._loss

    def _answer(self, batch: Batch) -> Appended:
        ranges: list[tuple[int, int]] = []
        seq, end = batch.first_seq, batch.first_seq + len(batch.entries)
        while seq < end:
            index = self._locate(batch.model, batch.stream, seq)
            run = self._streams.run_at(batch.model, batch.stream, seq)
            count = min(end - seq, run[0] + run[2] - seq) if run else 1
            ranges.append((index, count))
            seq += count
        return Appended(ranges[0][0] if ranges else self.size, tuple(ranges), self.size)

    def _locate(self, model: str, stream: str, seq: int) -> int:
        index = self._index_of(model, stream, seq)
        if index is None:
            raise LedgerDamaged(f"entry {seq} of stream {stream} of {model} can't be found", index=0)
        return index

    def _index_of(self, model: str, stream: str, seq: int) -> int | None:
        run = self._streams.run_at(model, stream, seq)
        if run:
            return run[1] + seq - run[0]
        # Older than what is remembered of the stream: rare, so the log itself is read.
        for first, batch in self._log.batches():
            if batch.model == model and batch.stream == stream and 0 <= seq - batch.first_seq < len(batch.entries):
                return first + seq - batch.first_seq
        return None

    def _write(self, fresh: list[tuple[int, Batch]]) -> None:
        self._log.append(fresh)
        try:
            for first, batch in fresh:
                self._apply(first, batch)
            if self._log.full:
                self.checkpoint()
                self._log.roll(self.size)
                self._snapshot()
        except OSError:
            # The entries are durable, what is derived from them is not: rebuild it before the next append.
            self._stale = True
            raise

    def _apply(self, first: int, batch: Batch) -> None:
        self._tree.extend([hash_leaf(e) for e in batch.entries])
        self._streams.add(batch.model, batch.stream, batch.first_seq, first, len(batch.entries))
        self._add_ids(first, batch)

    def _add_ids(self, first: int, batch: Batch) -> None:
        for index, leaf in enumerate(batch.entries, first):
            entry = decode_with(_entry_decoder, leaf)
            self._index.add(self._index.hash(entry.model, entry.id), index)
            if entry.type == VERDICT:
                self._judged.add(entry.model)
            if entry.type != "prediction":
                self._index.add(self._index.hash(entry.model, f"\1{entry.type}"), index)

    # -- state --------------------------------------------------------------------------------------------------------

    def _index_key(self) -> bytes:
        path = self.root / "index-key"
        if path.exists():
            try:
                return self._cipher.open(path.read_bytes(), INDEX_AAD)
            except Exception:  # each cipher has an error type of its own
                if not self._log.opens():  # it may be another archive's key that we were given
                    raise
            path.rename(path.with_name(f"index-key{_DAMAGED}"))
        if self._log.segments:
            self.say("index-key was damaged or missing: a new one was made, and the index with it")
            (self.root / "state").unlink(missing_ok=True)
        key = secrets.token_bytes(32)
        replace_file(path, self._cipher.seal(key, INDEX_AAD))
        return key

    def say(self, what: str) -> None:
        """Something derived was made anew."""
        self.rebuilt += 1
        self.said.append(what)

    def _load(self) -> None:
        """Bring tree, streams and index up to the entries on disk, from the snapshot where there is one."""
        anchors = self._known()
        self._log = EntryLog(self.root / "log", self._cipher, self._signer.name)
        least = 0 if self._accept_loss else max((a.checkpoint.size for a in anchors), default=0)
        self._log.recover(least, accept_loss=self._accept_loss)
        self._log.check_segments()
        state = self._read_state()
        try:
            self._index = IdIndex(self.root / "index", self._key, state.runs, state.sums)
        except IndexDamaged as error:
            self.say(f"{error}: the index is made anew from the entries")
            state = _nothing()
            self._index = IdIndex(self.root / "index", self._key)
        self._tree = TiledTree(self.root / "tile", state.size, state.edge, leaves=self._leaves, mended=self._say_tile)
        self._streams = Streams.load(state.streams)
        for first, batch in self._log.batches(state.size):
            if first != self._tree.size:
                raise LedgerDamaged(
                    f"entries from {self._tree.size} on are missing, the next are {first}", index=self._tree.size
                )
            self._apply(first, batch)
        self._note = None
        for anchor in anchors:
            self._hold_against(anchor)
        self._say_missing()
        self._accept_loss = False  # what was asked for once isn't granted to what comes later
        losses = self.find(ARCHIVE, type=LOSS, limit=1)
        self._loss = losses[-1].index if losses else -1

    def _leaves(self, start: int, end: int) -> list[bytes]:
        return [hash_leaf(entry) for entry in self._log.read(start, end)]

    def _say_tile(self, path: str) -> None:
        self.say(f"tile/{path} wasn't what the entries make: it was made anew")

    def _known(self) -> list[Anchor]:
        """Checkpoints that were signed of this log: the last one, the copy of it, and what others keep."""
        signed = self._signed()
        anchors = [Anchor(f"{self.root / 'checkpoint'}", signed)] if signed else []
        notes = dict(self._told)
        if self._keep is not None and self._keep.is_file():
            notes[str(self._keep)] = self._keep.read_text(errors="replace")
        for place, note in notes.items():
            try:
                anchors.append(Anchor(place, self._opened_note(note)))
            except NoteError as error:  # it holds nothing up: somebody else may have written it
                self.say(f"{place} is no checkpoint of ours ({error}): it is written anew")
        return anchors

    def _say_missing(self) -> None:
        """Of the two notes that hold a later start to what was signed: without either, a cut tail is harder to see."""
        if self._keep is None or not self.size:
            return
        missing = [path for path in (self.root / "checkpoint", self._keep) if not path.is_file()]
        if len(missing) == 2 and not (self.root / "state").exists():
            return  # killed before it had signed any
        for path in missing:
            self.say(
                f"{path.name} isn't there though {self.size} entries are: somebody took it away, or the archive was "
                "killed as it first signed. It is written anew; run verify with a checkpoint kept elsewhere"
            )

    def _hold_against(self, anchor: Anchor) -> None:
        size, root = anchor.checkpoint.size, anchor.checkpoint.root
        if size <= self.size and self._tree.root_hash(size) == root:
            return
        if not self._accept_loss:
            what = (
                f"the first {size} entries don't have the root of the signed checkpoint"
                if size <= self.size
                else f"{self.size} entries can be read, {size} were signed"
            )
            raise LedgerDamaged(f"{anchor.place}: {what}; run verify to see which differs. To go on: {REMEDY}", index=0)
        if self.lost is None or size > self.lost.checkpoint.size:
            self.lost = anchor

    def _reload_if_stale(self) -> None:
        if self._stale:
            self._log.close()
            self._load()
            self._stale = False

    def _read_state(self) -> Snapshot:
        path = self.root / "state"
        if not path.exists():
            return _nothing()
        try:
            state = decode_msgpack(self._cipher.open(path.read_bytes(), STATE_AAD), type=Snapshot)
        except Exception as error:  # each cipher has an error type of its own
            if not self._log.opens():
                raise
            self.say(f"state couldn't be opened ({error or type(error).__name__}): it is made anew from the entries")
            return _nothing()
        if state.size > self._log.end:
            if not self._accept_loss:
                raise LedgerDamaged(
                    f"{self._log.end} entries can be read, {path} was written when there were {state.size}; {REMEDY}",
                    index=self._log.end,
                )
            return _nothing()
        return state

    def _signed(self) -> Checkpoint | None:
        path = self.root / "checkpoint"
        if not path.exists():
            return None
        try:
            return self._opened_note(path.read_text(errors="replace"))
        except NoteError as error:
            copy = self._copy()
            if copy is None:
                raise LedgerDamaged(f"{path}: {error}; {REMEDY}", index=0) from None
            self.say(f"checkpoint couldn't be read ({error}): the copy beside the ledger has it")
            return copy

    def _copy(self) -> Checkpoint | None:
        try:
            return self._opened_note(self._keep.read_text(errors="replace")) if self._keep else None
        except (NoteError, FileNotFoundError):
            return None

    def _opened_note(self, note: str) -> Checkpoint:
        """Of a note that one of our keys signed: the newest may never have, when a rotation was interrupted. Raises
        NoteError."""
        problem: NoteError | None = None
        for signer in (self._signer, *self._older):
            try:
                return open_checkpoint(note, signer.verifier)
            except NoteError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    # -- looking after what lies on the disk --------------------------------------------------------------------------

    def inspect(self, start: int, count: int = 2048) -> int:
        """Read ``count`` entries from ``start`` on and their tiles from the disk, and hold them against the tree in
        memory; behind the last entry the index and the small files. Where to go on; 0: from the beginning.

        What is derived is made anew where it differs (``said``), what isn't is a fault (``faults``). Raises OSError.
        """
        with self._lock:
            self._reload_if_stale()
            start -= start % WIDTH
            end = min(start + count - count % WIDTH, self.size)
            self._log.forget()
            problem = self._inspect_entries(start, end)
            if problem:
                self.faults[start] = problem
            else:
                self.faults.pop(start, None)
            if end < self.size:
                return end
            self._inspect_rest()
            return 0

    def _inspect_entries(self, start: int, end: int) -> str:
        try:
            self._inspect_tiles(start, end)
            leaves = self._leaves(start, end)
        except LedgerDamaged as error:
            return f"{error}; restore the archive from a backup"
        for index, leaf_hash in enumerate(leaves, start):
            if self._tree.node(0, index) != leaf_hash:
                return f"entry {index} isn't the one that was signed: restore the archive from a backup"
        return "" if len(leaves) == end - start else f"entries between {start} and {end} are missing from the log"

    def _inspect_tiles(self, start: int, end: int) -> None:
        for tile in range(start // WIDTH, end // WIDTH):
            self._tree.check(0, tile)
            level, number = 0, tile
            while (number + 1) % WIDTH == 0:  # the one above is full by now
                level, number = level + 1, number // WIDTH
                self._tree.check(level, number)

    def _inspect_rest(self) -> None:
        try:
            for run in self._index.runs:
                self._index.check(run)
        except IndexDamaged as error:
            self.say(f"{error}: the index is made anew from the entries")
            self._index_anew()
        state = self.root / "state"
        if state.exists():
            try:
                self._cipher.open(state.read_bytes(), STATE_AAD)
            except Exception:  # each cipher has an error type of its own
                self.say("state couldn't be opened: it was written anew")
                self._snapshot()
        self._inspect_note()

    def _inspect_note(self) -> None:
        files = {self.root / "vkey": f"{self._signer.verifier}\n"}
        if self._note is not None:
            files[self.root / "checkpoint"] = self._note[1]
            files |= {self._keep: self._note[1]} if self._keep is not None else {}
        for path, text in files.items():
            if not path.exists() or path.read_bytes() != text.encode():
                replace_file(path, text.encode())
                self.say(f"{path.name} wasn't what was signed: it was written anew")

    def _index_anew(self) -> None:
        self._index = IdIndex(self.root / "index", self._key)
        for first, batch in self._log.batches():
            self._add_ids(first, batch)
            if first % _RUN < len(batch.entries):
                self._index.flush()
        self._snapshot()

    def _snapshot(self) -> None:
        self._tree.sync()
        self._index.flush()
        state = Snapshot(self.size, self._tree.edge, self._streams.dump(), self._index.runs, self._index.sums)
        replace_file(self.root / "state", self._cipher.seal(msgspec.msgpack.encode(state), STATE_AAD))
        self._index.sweep()

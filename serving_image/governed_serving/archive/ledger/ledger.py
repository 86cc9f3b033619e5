"""The ledger: entries, tree, streams and index as one append-only log on a volume.

What is true lies in the entry segments; tiles, index and ``state`` are derived and rebuilt when they are missing. An
append is durable (one fsync for a group) before it is answered, and numbered: (model, stream, seq) is appended once
however often it is sent. Memory: the tree's edge, one segment of index entries, and about 50 bytes per run of a stream.
"""

import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from governed_serving.archive.errors import LedgerDamaged, Refused
from governed_serving.archive.ledger.entrylog import Batch, Cipher, EntryLog
from governed_serving.archive.ledger.idindex import IdIndex
from governed_serving.archive.ledger.merkle import hash_leaf
from governed_serving.archive.ledger.note import Checkpoint, NoteError, Signer, open_checkpoint, sign_checkpoint
from governed_serving.archive.ledger.streams import Streams
from governed_serving.archive.ledger.tiles import TiledTree
from governed_serving.decoding import decode_msgpack, decode_with
from governed_serving.durable import replace_file
from governed_serving.records import LedgerEntry

__all__ = ["INDEX_AAD", "STATE_AAD", "Appended", "Found", "Ledger", "Snapshot"]

STATE_AAD = b"governed ledger state 1"
INDEX_AAD = b"governed ledger index key 1"
_SCAN_LIMIT = 20_000
_entry_decoder = msgspec.json.Decoder(LedgerEntry)


@dataclass(frozen=True)
class Appended:
    """Answer to an append: ``ranges`` (first index, count) cover the batch's entries in order; ``size`` is the
    ledger's."""

    first_index: int
    ranges: tuple[tuple[int, int], ...]
    size: int


@dataclass(frozen=True)
class Found:
    """An entry and where it is."""

    index: int
    entry: bytes


class Snapshot(msgspec.Struct, array_like=True):
    """``state``: what is derived from the first ``size`` entries, so that a start needn't read them all."""

    size: int
    edge: list[bytes]
    streams: list[tuple[str, str, list[tuple[int, int, int]]]]
    runs: list[str]


class Ledger:
    """One log below ``root``. Thread-safe; one process at a time (the caller holds the directory's lock).

    ``signer.name`` is the log's origin; ``older`` signers sign after it. Raises :class:`LedgerDamaged` when the files
    contradict the last checkpoint.
    """

    def __init__(self, root: Path, cipher: Cipher, signer: Signer, older: tuple[Signer, ...] = ()):
        self.root = root
        self._cipher = cipher
        self._signer, self._older = signer, older
        self._lock = threading.RLock()
        root.mkdir(parents=True, exist_ok=True)
        replace_file(root / "vkey", f"{signer.verifier}\n".encode())
        self._key = self._index_key()
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
                self._note = (self.size, note)
            return self._note[1]

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

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Hashes of a tile; KeyError beyond the tree."""
        with self._lock:
            return self._tree.tile(level, number, width)

    def entries(self, start: int, end: int) -> list[bytes]:
        """Entries ``start`` … min(``end``, size) − 1."""
        with self._lock:
            return list(self._log.read(start, min(end, self.size)))

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Every batch with its first index, for verification."""
        return self._log.batches()

    def find(self, model: str, id: str = "", type: str = "", limit: int = 100) -> list[Found]:
        """The newest ``limit`` entries of ``model`` with this id and type (either may be empty), ascending.

        By id, or by type other than prediction, through the index; otherwise the newest 20,000 entries are looked
        through.
        """
        with self._lock:
            if id:
                candidates: Iterable[int] = reversed(self._index.find(self._index.hash(model, id)))
            elif type and type != "prediction":
                candidates = reversed(self._index.find(self._index.hash(model, f"\1{type}")))
            else:
                candidates = range(self.size - 1, max(self.size - 1 - _SCAN_LIMIT, -1), -1)
            found: list[Found] = []
            for index in candidates:
                leaf = next(self._log.read(index, index + 1))
                entry = decode_with(_entry_decoder, leaf)
                if entry.model == model and id in ("", entry.id) and type in ("", entry.type):
                    found.append(Found(index, leaf))
                    if len(found) >= limit:
                        break
            return found[::-1]

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
        known = min(expected - batch.first_seq, len(batch.entries))
        for seq, entry in enumerate(batch.entries[:known], batch.first_seq):
            index = self._locate(batch.model, batch.stream, seq)
            if self._tree.node(0, index) != hash_leaf(entry):
                return Refused(
                    409,
                    f"entry {seq} of stream {batch.stream} was appended before with other content, as index {index}",
                )
        return Batch(batch.model, batch.stream, batch.first_seq + known, batch.entries[known:])

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
        run = self._streams.run_at(model, stream, seq)
        if run:
            return run[1] + seq - run[0]
        # Older than what is remembered of the stream: rare, so the log itself is read.
        for first, batch in self._log.batches():
            if batch.model == model and batch.stream == stream and 0 <= seq - batch.first_seq < len(batch.entries):
                return first + seq - batch.first_seq
        raise LedgerDamaged(f"entry {seq} of stream {stream} of {model} can't be found", index=0)

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
        for index, leaf in enumerate(batch.entries, first):
            entry = decode_with(_entry_decoder, leaf)
            self._index.add(self._index.hash(entry.model, entry.id), index)
            if entry.type != "prediction":
                self._index.add(self._index.hash(entry.model, f"\1{entry.type}"), index)

    # -- state --------------------------------------------------------------------------------------------------------

    def _index_key(self) -> bytes:
        path = self.root / "index-key"
        if path.exists():
            return self._cipher.open(path.read_bytes(), INDEX_AAD)
        key = secrets.token_bytes(32)
        replace_file(path, self._cipher.seal(key, INDEX_AAD))
        return key

    def _load(self) -> None:
        """Bring tree, streams and index up to the entries on disk, from the snapshot where there is one."""
        signed = self._signed()
        state = self._read_state()
        self._tree = TiledTree(self.root / "tile", state.size, state.edge)
        self._streams = Streams.load(state.streams)
        self._index = IdIndex(self.root / "index", self._key, state.runs)
        self._log = EntryLog(self.root / "log", self._cipher, self._signer.name)
        self._log.recover(at_least=signed.size if signed else 0)
        for first, batch in self._log.batches(state.size):
            if first != self._tree.size:
                raise LedgerDamaged(
                    f"entries from {self._tree.size} on are missing, the next are {first}", index=self._tree.size
                )
            self._apply(first, batch)
        self._note = None
        if signed and self._tree.root_hash(signed.size) != signed.root:
            raise LedgerDamaged(
                f"the first {signed.size} entries don't have the root of the signed checkpoint; run verify to see which differs",  # noqa: E501
                index=0,
            )

    def _reload_if_stale(self) -> None:
        if self._stale:
            self._log.close()
            self._load()
            self._stale = False

    def _read_state(self) -> Snapshot:
        empty = Snapshot(0, [], [], [])
        path = self.root / "state"
        if not path.exists():
            return empty
        state = decode_msgpack(self._cipher.open(path.read_bytes(), STATE_AAD), type=Snapshot)
        complete = all((self.root / "index" / run).exists() for run in state.runs)
        return state if complete else empty

    def _signed(self) -> Checkpoint | None:
        path = self.root / "checkpoint"
        if not path.exists():
            return None
        problem = ""
        for signer in (self._signer, *self._older):  # the newest may never have signed: a rotation that was interrupted
            try:
                return open_checkpoint(path.read_text(), signer.verifier)
            except NoteError as error:
                problem = problem or str(error)
        raise LedgerDamaged(f"{path}: {problem}", index=0)

    def _snapshot(self) -> None:
        self._tree.sync()
        self._index.flush()
        state = Snapshot(self.size, self._tree.edge, self._streams.dump(), self._index.runs)
        replace_file(self.root / "state", self._cipher.seal(msgspec.msgpack.encode(state), STATE_AAD))
        self._index.sweep()

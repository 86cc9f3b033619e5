"""What the entries themselves say, gathered in one pass: everything else in the folder is held against it.

Memory: 16 bytes an entry for the index, and what grows with names, streams and tiles' edges.
"""

from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec

from governed_api.json_types import Json
from governed_api.names import ARCHIVE
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.idindex import id_hash
from governed_serving.archive.ledger.ledger import LOSS
from governed_serving.archive.ledger.merkle import Frontier, hash_leaf
from governed_serving.archive.ledger.streams import Streams
from governed_serving.archive.ledger.tiles import WIDTH, TiledTree, tile_path
from governed_serving.archive.service import ERASURE, OWN_STREAM
from governed_serving.archive.store.retention import Receipts
from governed_serving.decoding import decode_with
from governed_serving.records import DECISION_STREAM, LedgerEntry, is_bias_verdict

__all__ = ["HeldTiles", "Shipped", "Truth"]

_decoder = msgspec.json.Decoder(LedgerEntry)
_TRAINED = frozenset({"dataset", "training", "gates", "artefact"})


class HeldTiles(TiledTree):
    """The tree that the entries make; full tiles are held against those below ``root`` instead of being written.

    ``report(path below ledger/, problem, entries that the tile needs)`` is told of each that differs.
    """

    def __init__(self, root: Path, report: Callable[[str, str, int], None]):
        super().__init__(root)
        self._report = report
        self.paths: set[str] = set()

    def _write(self, level: int, number: int, data: bytes) -> None:
        self._remember((level, number), data)
        name = f"tile/{tile_path(level, number)}"
        self.paths.add(name)
        path = self.root / tile_path(level, number)
        entries = (number + 1) * WIDTH ** (level + 1)
        if not path.is_file():
            self._report(name, "is missing: the entries make it a full tile", entries)
        elif path.read_bytes() != data:
            self._report(name, "doesn't hold the hashes of its entries: it was changed", entries)


class Shipped(msgspec.Struct):
    """What the ledger has of one stream of a journal: the newest frame, the chunk that holds it, dead letters, frames
    that couldn't be read and in which ranges."""

    model: str
    frame: int = -1
    blob: str = ""
    dead_letters: int = 0
    unreadable: int = 0
    gaps: list[tuple[int, int]] = []


class Truth:
    """Fed with every batch of the log in order; ``asked``: sizes at which root, edge and streams are kept."""

    def __init__(self, namespace: str, index_key: bytes | None, tiles: HeldTiles, asked: set[int], wanted: set[int]):
        self._namespace, self._index_key, self._tiles = namespace, index_key, tiles
        self._asked, self._wanted = asked, wanted
        self._frontier = Frontier()
        self.streams = Streams()
        self.ids, self.places = array("Q"), array("Q")
        self.roots: dict[int, bytes] = {}
        self.edges: dict[int, list[bytes]] = {}
        self.runs: dict[int, list[tuple[str, str, list[tuple[int, int, int]]]]] = {}
        self.entries: dict[int, tuple[LedgerEntry, str]] = {}
        """Those whose index is wanted, with their stream."""
        self.trained: dict[str, list[LedgerEntry]] = {}
        """What the trainer put in, by model."""
        self.losses: list[int] = []
        """Entries that say what a person let go."""
        self.verdicts: dict[tuple[str, str], int] = {}
        """Index of the newest verdict, by model and revision."""
        self.keysets: dict[tuple[str, str], list[LedgerEntry]] = {}
        """The archive's own entries about each keyset, in order."""
        self.erased: set[tuple[str, str]] = set()
        """Model and purpose of the keysets that entries say persons were erased with."""
        self.shipped: dict[str, Shipped] = {}
        """By the stream's identity."""
        self.blobs: set[str] = set()
        self.receipts = Receipts()
        self.deleted: set[str] = set()
        self.problems: list[str] = []
        self._keep()

    @property
    def size(self) -> int:
        return self._frontier.size

    def entry(self, index: Json) -> tuple[LedgerEntry | None, str]:
        """The wanted entry that a report names by ``index``, with its stream; (None, "") where it names none."""
        return (isinstance(index, int) and self.entries.get(index)) or (None, "")

    def keysets_of(self) -> set[str]:
        """Models that have, or had, a keyset."""
        return {model for model, _ in self.keysets}

    def take(self, first: int, batch: Batch) -> None:
        """The next batch. Raises ArchiveError where it doesn't follow the one before."""
        if first != self.size:
            raise ArchiveError(f"entries {self.size} to {first - 1} are missing")
        expected = self.streams.next_seq(batch.model, batch.stream)
        fits = batch.first_seq in ((0, 1) if expected is None else (expected,))
        if not fits and not self._behind_loss(batch, expected):
            raise ArchiveError(
                f"entry {first}: stream {batch.stream} of {batch.model} goes on at {batch.first_seq}, "
                f"expected {expected or 0}: entries were left out"
            )
        self.streams.add(batch.model, batch.stream, batch.first_seq, first, len(batch.entries))
        for index, leaf in enumerate(batch.entries, first):
            self._entry(index, leaf, batch)

    def _behind_loss(self, batch: Batch, expected: int | None) -> bool:
        """Whether a loss that a person accepted came since the stream's last entry: what it took may be between."""
        if not self.losses or batch.first_seq < (expected or 0):
            return False
        run = self.streams.run_at(batch.model, batch.stream, expected - 1) if expected else None
        return run is None or run[1] + run[2] <= self.losses[-1]

    def _entry(self, index: int, leaf: bytes, batch: Batch) -> None:
        digest = hash_leaf(leaf)
        self._frontier.append(digest)
        self._tiles.append(digest)
        entry = decode_with(_decoder, leaf)
        if entry.model != batch.model or entry.namespace != self._namespace:
            raise ArchiveError(
                f"entry {index} is of {entry.namespace}/{entry.model}, its batch of {self._namespace}/{batch.model}"
            )
        if self._index_key is not None:
            self._index(index, entry)
        self._say(index, entry, batch.stream)
        self._keep()

    def _index(self, index: int, entry: LedgerEntry) -> None:
        assert self._index_key is not None
        names = [entry.id] if entry.type == "prediction" else [entry.id, f"\1{entry.type}"]
        for name in names:
            self.ids.append(id_hash(self._index_key, entry.model, name))
            self.places.append(index)

    def _say(self, index: int, entry: LedgerEntry, stream: str) -> None:
        if index in self._wanted:
            self.entries[index] = (entry, stream)
        if entry.type in _TRAINED:
            self.trained.setdefault(entry.model, []).append(entry)
        if entry.type == LOSS and entry.model == ARCHIVE:
            self.losses.append(index)
        if is_bias_verdict(entry):
            self.verdicts[entry.model, entry.revision] = index
        if entry.type == "key" and (stream == OWN_STREAM or entry.model == ARCHIVE):
            purpose = str(entry.summary.get("purpose", ""))
            self.keysets.setdefault((entry.model, purpose), []).append(entry)
        if entry.type == ERASURE and stream == OWN_STREAM:
            self.erased.add((entry.model, str(entry.summary.get("purpose", ""))))
        if entry.blob:
            self.blobs.add(entry.blob)
        self.receipts.add(entry)
        self.deleted.update(Receipts.addresses(entry))
        if entry.type == "unreadable":
            self._unreadable(entry, stream)
        if entry.frame is not None and entry.blob and not stream.startswith(DECISION_STREAM):
            shipped = self.shipped.setdefault(stream, Shipped(entry.model))
            shipped.dead_letters += entry.type == "deadLetter"
            if entry.frame >= shipped.frame:
                shipped.frame, shipped.blob = entry.frame, entry.blob

    def _unreadable(self, entry: LedgerEntry, stream: str) -> None:
        first, last = entry.summary.get("first"), entry.summary.get("last")
        if isinstance(first, int) and isinstance(last, int):
            shipped = self.shipped.setdefault(stream, Shipped(entry.model))
            shipped.gaps.append((first, last))
            shipped.unreadable += last + 1 - first
            shipped.frame = max(shipped.frame, last)

    def _keep(self) -> None:
        if self.size in self._asked:
            self.roots[self.size] = self._frontier.root()
            self.edges[self.size] = self._tiles.edge
            self.runs[self.size] = self.streams.dump()

"""The tree on disk, in the C2SP tlog-tiles layout: 256-wide tiles, so that appending is O(1) amortised and memory
constant.

A tile (level L, number N) holds the hashes of complete subtrees of 256^L leaves, 32 bytes each. Full tiles are written
once; the rightmost tile of each level stays in memory (at most 8 KiB a level) and is handed out as a partial tile.
https://c2sp.org/tlog-tiles
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from governed_serving.archive.errors import LedgerDamaged
from governed_serving.archive.ledger.merkle import (
    consistency_proof,
    hash_children,
    inclusion_proof,
    tree_root,
)
from governed_serving.durable import fsync_file, fsync_folder, replace_file

__all__ = ["WIDTH", "TiledTree", "tile_path"]

WIDTH = 256
_HASH = 32
_CACHED_TILES = 256


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Path of a tile below ``tile/``: ``0/x001/x234/067``, with ``.p/W`` for a partial one of W hashes."""
    groups = [f"{number % 1000:03d}"]
    rest = number // 1000
    while rest > 0:
        groups.append(f"x{rest % 1000:03d}")
        rest //= 1000
    path = f"{level}/" + "/".join(reversed(groups))
    return path if width == WIDTH else f"{path}.p/{width}"


class TiledTree:
    """An append-only Merkle tree whose full tiles live below ``root``; about 8 KiB of memory per level plus a small
    cache.

    Tiles are not fsynced as they are written: they can be rebuilt from the entries, and :meth:`sync` makes them durable
    before the log's snapshot says so.

    With ``leaves`` (start, end) → leaf hashes of the entries, each tile is held against the tile above it as it is read
    from the disk, up to the edge in memory: one that doesn't fit is made anew from the entries, and ``mended`` is told
    its path. Without, tiles are taken as they are.
    """

    def __init__(
        self,
        root: Path,
        size: int = 0,
        edge: list[bytes] | None = None,
        *,
        leaves: Callable[[int, int], list[bytes]] | None = None,
        mended: Callable[[str], None] = lambda _: None,
    ):
        self.root = root
        self._leaves, self._mended = leaves, mended
        self.size = size
        self._edge = [bytearray(e) for e in (edge or [])]
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._unsynced: list[Path] = []

    @property
    def edge(self) -> list[bytes]:
        """The rightmost, partial tile of every level, bottom up: what a snapshot keeps."""
        return [bytes(e) for e in self._edge]

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash (32 bytes)."""
        self.size += 1
        level, value = 0, leaf
        while True:
            if level == len(self._edge):
                self._edge.append(bytearray())
            tile = self._edge[level]
            tile += value
            if len(tile) < WIDTH * _HASH:
                return
            full = bytes(tile)
            tile.clear()
            self._write(level, (self.size >> (8 * level + 8)) - 1, full)
            level, value = level + 1, self._rows(level, (self.size >> (8 * level + 8)) - 1)[-1]

    def extend(self, leaves: list[bytes]) -> None:
        """Add many leaf hashes."""
        for leaf in leaves:
            self.append(leaf)

    def node(self, height: int, index: int) -> bytes:
        """Hash of a complete node; reads one tile."""
        level, rest = divmod(height, 8)
        first = index << rest
        number, offset = divmod(first, WIDTH)
        if number < self.size >> (8 * level + 8):
            place = (offset >> rest) * _HASH
            return self._rows(level, number)[rest][place : place + _HASH]
        hashes = self._tile(level, number)[offset * _HASH : (offset + (1 << rest)) * _HASH]
        if len(hashes) != _HASH << rest:
            raise ValueError(f"node ({height}, {index}) is not complete in a tree of {self.size} entries")
        return _rows(hashes)[-1]

    def root_hash(self, size: int | None = None) -> bytes:
        """Root over the first ``size`` leaves (default: all)."""
        return tree_root(self.node, self.size if size is None else size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Inclusion proof of leaf ``index`` in the tree of ``size`` (≤ current size)."""
        self._known(size)
        return inclusion_proof(self.node, index, size)

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Proof that the tree of ``first`` leaves is a prefix of that of ``second``."""
        self._known(second)
        return consistency_proof(self.node, first, second)

    def tile(self, level: int, number: int, width: int = WIDTH) -> bytes:
        """``width``·32 bytes of a tile; KeyError when the tree hasn't that much."""
        data = self._tile(level, number)[: width * _HASH]
        if len(data) != width * _HASH:
            raise KeyError(f"tile {tile_path(level, number, width)} is beyond a tree of {self.size} entries")
        return data

    def sync(self) -> None:
        """Make every full tile written since the last call durable."""
        folders = set()
        for path in self._unsynced:
            fsync_file(path)
            folders.add(path.parent)
        for folder in folders:
            fsync_folder(folder)
        self._unsynced.clear()

    def _known(self, size: int) -> None:
        if size > self.size:
            raise ValueError(f"size must be at most {self.size}, the entries there are, found {size}")

    def _tile(self, level: int, number: int) -> bytes:
        if number == self.size >> (8 * level + 8):
            return bytes(self._edge[level]) if level < len(self._edge) else b""
        if number > self.size >> (8 * level + 8):
            return b""
        return self._rows(level, number)[0]

    def _rows(self, level: int, number: int) -> list[bytes]:
        """A full tile and the eight rows of hashes above it (16 KiB), so that a proof hashes each tile at most once."""
        key = (level, number)
        rows = self._cache.get(key)
        if rows is None:
            rows = self._remember(key, self._read(level, number))
        else:
            self._cache.move_to_end(key)
        return rows

    def check(self, level: int, number: int) -> bool:
        """Look at a full tile on the disk, whatever is remembered of it; False when it had to be made anew. Raises
        LedgerDamaged, OSError."""
        rows = self._rows(level, number)
        if self._on_disk(level, number) == rows[0]:
            return True
        self._put(level, number, rows[0])
        self._mended(tile_path(level, number))
        return False

    def _read(self, level: int, number: int) -> bytes:
        """The tile that fits below the one above it. Raises LedgerDamaged where the entries don't make it either."""
        if self._leaves is None:
            return (self.root / tile_path(level, number)).read_bytes()
        data = self._on_disk(level, number)
        if self._fits(level, number, data):
            return data
        for from_log in (False, True):
            data = self._made(level, number, from_log=from_log)
            if self._fits(level, number, data):
                self._put(level, number, data)
                self._mended(tile_path(level, number))
                return data
        first = number * WIDTH ** (level + 1)
        raise LedgerDamaged(
            f"entries {first} to {first + WIDTH ** (level + 1) - 1} don't make the tree that was signed: the log was changed; "  # noqa: E501
            "restore it from a backup, and run verify to see which entry differs",
            index=first,
        )

    def _on_disk(self, level: int, number: int) -> bytes:
        try:
            return (self.root / tile_path(level, number)).read_bytes()
        except FileNotFoundError:
            return b""

    def _fits(self, level: int, number: int, data: bytes) -> bool:
        """Whether a tile's root is what the tile above, or the edge, has in its place."""
        if len(data) != WIDTH * _HASH:
            return False
        above, place = number // WIDTH, number % WIDTH * _HASH
        if above < self.size >> (8 * level + 16):
            hashes = self._rows(level + 1, above)[0]
        else:
            hashes = bytes(self._edge[level + 1])
        return hashes[place : place + _HASH] == _rows(data)[-1]

    def _made(self, level: int, number: int, *, from_log: bool) -> bytes:
        """A tile from the entries; one above the lowest level from the tiles below it as they lie there, or from the
        entries as well."""
        assert self._leaves is not None
        if level == 0:
            return b"".join(self._leaves(number * WIDTH, (number + 1) * WIDTH))
        below = range(number * WIDTH, (number + 1) * WIDTH)
        if from_log:
            return b"".join(_rows(self._made(level - 1, n, from_log=True))[-1] for n in below)
        below_tiles = [self._on_disk(level - 1, n) for n in below]
        return b"".join(_rows(data)[-1] for data in below_tiles if len(data) == WIDTH * _HASH)

    def _remember(self, key: tuple[int, int], data: bytes) -> list[bytes]:
        rows = self._cache[key] = _rows(data)
        if len(self._cache) > _CACHED_TILES:
            self._cache.popitem(last=False)
        return rows

    def _write(self, level: int, number: int, data: bytes) -> None:
        self._put(level, number, data)
        self._remember((level, number), data)

    def _put(self, level: int, number: int, data: bytes) -> None:
        path = self.root / tile_path(level, number)
        replace_file(path, data, durable=False)  # a reader of the directory never sees half a tile
        self._unsynced.append(path)


def _rows(hashes: bytes) -> list[bytes]:
    """A power-of-two run of 32-byte hashes and the rows above it, the last being their root."""
    rows = [hashes]
    while len(rows[-1]) > _HASH:
        row = rows[-1]
        rows.append(
            b"".join(
                hash_children(row[i : i + _HASH], row[i + _HASH : i + 2 * _HASH]) for i in range(0, len(row), 2 * _HASH)
            )
        )
    return rows

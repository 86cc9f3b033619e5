"""The tree on disk, in the C2SP tlog-tiles layout: 256-wide tiles, so that appending is O(1) amortised and memory
constant.

A tile (level L, number N) holds the hashes of complete subtrees of 256^L leaves, 32 bytes each. Full tiles are written
once; the rightmost tile of each level stays in memory (at most 8 KiB a level) and is handed out as a partial tile.
https://c2sp.org/tlog-tiles
"""

from collections import OrderedDict
from pathlib import Path

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
    while rest:
        groups.append(f"x{rest % 1000:03d}")
        rest //= 1000
    path = f"{level}/" + "/".join(reversed(groups))
    return path if width == WIDTH else f"{path}.p/{width}"


class TiledTree:
    """An append-only Merkle tree whose full tiles live below ``root``; about 8 KiB of memory per level plus a small
    cache.

    Tiles are not fsynced as they are written: they can be rebuilt from the entries, and :meth:`sync` makes them durable
    before the log's snapshot says so.
    """

    def __init__(self, root: Path, size: int = 0, edge: list[bytes] | None = None):
        self.root = root
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
            rows = self._remember(key, (self.root / tile_path(level, number)).read_bytes())
        else:
            self._cache.move_to_end(key)
        return rows

    def _remember(self, key: tuple[int, int], data: bytes) -> list[bytes]:
        rows = self._cache[key] = _rows(data)
        if len(self._cache) > _CACHED_TILES:
            self._cache.popitem(last=False)
        return rows

    def _write(self, level: int, number: int, data: bytes) -> None:
        path = self.root / tile_path(level, number)
        replace_file(path, data, durable=False)  # a reader of the directory never sees half a tile
        self._unsynced.append(path)
        self._remember((level, number), data)


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

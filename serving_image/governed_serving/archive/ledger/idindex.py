"""Which entries speak of an id: a keyed index on disk, sorted runs of (64-bit keyed hash, entry index), 16 bytes an
entry.

Ids come from clients and may name people, so only their keyed BLAKE2b hash is stored. New entries wait in memory (at
most one segment, 65,536 entries) until the log's snapshot; then they become a run. A run is merged into its elder
unless that is more than twice as long, so a lookup searches O(log n) memory-mapped runs. The index is a cache: it is
rebuilt from the entries when it is missing. A hash may collide: the caller compares the entries found.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAIR", "IdIndex", "IndexDamaged", "id_hash"]

PAIR = np.dtype([("key", "<u8"), ("index", "<u8")])
"""A pair on disk: keyed hash of model and id, index of the entry."""
_MERGED_MAXIMUM = 1 << 24


def id_hash(key: bytes, model: str, id: str) -> int:
    """The keyed 64-bit hash under which an id of a model is stored."""
    return int.from_bytes(hashlib.blake2b(f"{model}\0{id}".encode(), digest_size=8, key=key).digest(), "little")


class IndexDamaged(Exception):
    """A run isn't what was written: the index is to be made anew."""


class IdIndex:
    """Keyed multimap id → entry indices below ``root``; ``runs`` are the names that the last snapshot knew, ``sums``
    their SHA-256 (of an older snapshot: none). Raises IndexDamaged, OSError."""

    def __init__(self, root: Path, key: bytes, runs: Iterable[str] = (), sums: Iterable[bytes] = ()):
        self.root = root
        self._key = key
        root.mkdir(parents=True, exist_ok=True)
        self._runs: list[tuple[str, NDArray[np.void]]] = []
        self._sums = dict(zip(runs := list(runs), sums, strict=False))
        for name in runs:
            self.check(name)
            self._runs.append((name, self._load(name)))
        self._fresh: dict[int, list[int]] = {}
        kept = {name for name, _ in self._runs}
        for path in root.glob("*.run"):
            if path.name not in kept:
                path.unlink()

    @property
    def runs(self) -> list[str]:
        """Names of the runs that make up the index on disk."""
        return [name for name, _ in self._runs]

    @property
    def sums(self) -> list[bytes]:
        """SHA-256 of :attr:`runs`, as they were written."""
        return [self._sums[name] for name in self.runs]

    def check(self, name: str) -> None:
        """Raises IndexDamaged when a run isn't what was written."""
        try:
            with (self.root / name).open("rb") as file:
                hashed = hashlib.file_digest(file, "sha256").digest()
        except FileNotFoundError:
            raise IndexDamaged(f"index run {name} is missing") from None
        if self._sums.setdefault(name, hashed) != hashed:
            raise IndexDamaged(f"index run {name} isn't what was written")

    def hash(self, model: str, id: str) -> int:
        """The keyed 64-bit hash under which an id is stored."""
        return id_hash(self._key, model, id)

    def add(self, key: int, index: int) -> None:
        """Remember that entry ``index`` speaks of ``key``."""
        self._fresh.setdefault(key, []).append(index)

    def find(self, key: int) -> list[int]:
        """Indices of entries stored under ``key``, ascending, each once; collisions are the caller's to sort out."""
        indices: set[int] = set()
        for _, run in self._runs:
            low = int(np.searchsorted(run["key"], np.uint64(key), side="left"))
            high = int(np.searchsorted(run["key"], np.uint64(key), side="right"))
            indices.update(int(i) for i in run["index"][low:high])
        indices.update(self._fresh.get(key, ()))
        return sorted(indices)

    def flush(self) -> None:
        """Turn what waits in memory into a run on disk, merging runs of like size. The caller then snapshots
        :attr:`runs`."""
        if not self._fresh:
            return
        pairs = [(key, index) for key, indices in self._fresh.items() for index in indices]
        self._fresh = {}
        self._runs.append(self._store(_sorted(np.array(pairs, dtype=PAIR))))
        while self._mergeable():
            (_, newer), (_, older) = self._runs.pop(), self._runs.pop()
            self._runs.append(self._store(_sorted(np.concatenate([older, newer]))))

    def _mergeable(self) -> bool:
        """A run is merged into its elder unless that is more than twice as long, or both are at their greatest."""
        if len(self._runs) < 2:
            return False
        older, newer = len(self._runs[-2][1]), len(self._runs[-1][1])
        return older <= 2 * newer and older + newer <= _MERGED_MAXIMUM

    def sweep(self) -> None:
        """Delete runs that were merged away; only after the snapshot that no longer names them is durable."""
        kept = set(self.runs)
        for path in self.root.glob("*.run"):
            if path.name not in kept:
                path.unlink()
        self._sums = {name: self._sums[name] for name in kept}

    def _store(self, run: NDArray[np.void]) -> tuple[str, NDArray[np.void]]:
        name = f"{int(run['index'].min()):020d}-{int(run['index'].max()):020d}-{len(run)}.run"
        path = self.root / name
        self._sums[name] = hashlib.sha256(run.tobytes()).digest()
        with path.open("wb") as file:
            run.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        return name, self._load(name)

    def _load(self, name: str) -> NDArray[np.void]:
        path = self.root / name
        if path.stat().st_size != int(path.stem.rpartition("-")[2]) * PAIR.itemsize:
            raise IndexDamaged(f"index run {name} has the wrong length")
        return np.memmap(path, dtype=PAIR, mode="r")


def _sorted(run: NDArray[np.void]) -> NDArray[np.void]:
    """By key; stable, so that indices of one key keep their (ascending) order."""
    return run[np.argsort(run["key"], kind="stable")]

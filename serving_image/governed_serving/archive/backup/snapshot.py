"""A backup as a stream of bytes, taken while the archive runs.

First the checkpoint: with it everything that lies under a name, and the archive's own keys, are copied into an unnamed
file, while nothing of that can change. Then the log's frames up to the checkpoint's size, which never change again, and
the blobs, of which retention deletes none until the stream ends. Wrapped keys and ciphertext only.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import IO

import msgspec

from governed_api.regular_files import read_regular
from governed_serving.archive.backup.members import (
    CHECKPOINT,
    CHUNK,
    END,
    MANIFEST,
    PLACES,
    Manifest,
    Stored,
    header,
    padding,
)
from governed_serving.archive.errors import Unverified
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import ROLES_SINCE
from governed_serving.decoding import decode_with
from governed_serving.durable import is_regular
from governed_serving.records import LedgerEntry, timestamp

__all__ = ["Snapshot"]

_NAMED = ("keys", "keysets", "refs", "states")
_LEDGER = ("ledger/vkey", "ledger/index-key")
_FAULTS = 20
_SLICE = 1000
_decoder = msgspec.json.Decoder(LedgerEntry)


class Snapshot:
    """Made: the checkpoint is signed and what can change is copied; then :meth:`chunks` once, then :meth:`close`.

    One at a time. Raises Busy while another one is under way, OSError.
    """

    def __init__(self, archive: Archive, clock: Callable[[], float] = time.time):
        self._archive, self._clock = archive, clock
        archive.hold_payloads()
        try:
            self._copy: IO[bytes] = tempfile.TemporaryFile(dir=archive.root)  # noqa: SIM115
        except BaseException:
            archive.let_payloads_go()
            raise
        self._files: list[Stored] = []
        self._faults: list[str] = []
        self._faulty = 0
        try:
            self._copied: list[tuple[str, int]] = []
            witnessed = archive.witnessed.note  # before the checkpoint, which goes on from it
            with archive.frozen() as self.checkpoint:
                self._take(CHECKPOINT, self.checkpoint.encode())
                if witnessed:
                    self._take(f"ledger/{WITNESSED}", witnessed.encode())
                since = [ROLES_SINCE] if is_regular(archive.root / ROLES_SINCE) else []
                for place in (*_LEDGER, *since, *self._names()):
                    self._take(place, read_regular(archive.root / place))
            self._copy.flush()
            signed = Checkpoint.unverified(self.checkpoint)
            self.origin, self.size = signed.origin, signed.size
            self._segments = archive.ledger.extent(self.size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Retention goes on."""
        self._copy.close()
        self._archive.let_payloads_go()

    def chunks(self) -> Iterator[bytes]:
        """The backup's bytes. Raises ArchiveError, OSError: then what was written is no backup."""
        self._copy.seek(0)
        for place, size in self._copied:
            yield from self._file(place, size, self._copy)
        for name, size in self._segments:
            with (self._archive.root / "ledger" / "log" / name).open("rb") as file:
                yield from self._file(f"ledger/log/{name}", size, file)
        blobs = blob_bytes = 0
        for digest in self._archive.blobs.addresses():
            if (length := (yield from self._blob(digest))) is not None:
                blobs, blob_bytes = blobs + 1, blob_bytes + length
        self._look_for_missing()
        manifest = msgspec.json.encode(
            Manifest(
                self.origin,
                self.size,
                self.checkpoint,
                timestamp(self._clock()),
                self._files,
                blobs,
                blob_bytes,
                self._faults,
                self._faulty,
            )
        )
        yield header(MANIFEST, len(manifest)) + manifest + padding(len(manifest)) + END

    def _names(self) -> Iterator[str]:
        root = self._archive.root
        for kind in _NAMED:
            for path in sorted((root / kind).rglob("*")):
                place = path.relative_to(root).as_posix()
                if path.name.startswith(".") or (path.is_dir() and not path.is_symlink()):
                    continue  # beside its place, or a lock
                if is_regular(path) and PLACES.fullmatch(place):
                    yield place
                else:
                    self._fault(f"{place}: nothing of ours makes such a file: it isn't in the backup")

    def _take(self, place: str, data: bytes) -> None:
        self._copy.write(data)
        self._copied.append((place, len(data)))

    def _file(self, place: str, size: int, file: IO[bytes]) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), size
        yield header(place, size)
        while left:
            chunk = file.read(min(left, CHUNK))
            if not chunk:
                raise OSError(f"{place}: expected {size} bytes, found {size - left}: it was cut meanwhile")
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        yield padding(size)
        self._files.append(Stored(place, size, digest.hexdigest()))

    def _blob(self, address: str) -> Generator[bytes, None, int | None]:
        """The value of ``yield from`` is its size; None for one that object storage changed: it isn't in the
        backup."""
        try:
            with self._archive.blobs.opened(address) as file:
                size, digest = os.fstat(file.fileno()).st_size, hashlib.sha256()
                yield header(f"blobs/{address[:2]}/{address}", size)
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    yield chunk
        except Unverified as error:
            self._fault(str(error))
            return None
        yield padding(size)
        if digest.hexdigest() != address:
            self._fault(f"blob {address} has SHA-256 {digest.hexdigest()}: it was changed")
        return size

    def _look_for_missing(self) -> None:
        """What an entry names must be there, or deleted under retention: a backup without it says so itself."""
        blobs, before = self._archive.blobs, ""
        for start in range(0, self.size, _SLICE):
            leaves = self._archive.ledger.entries(start, min(start + _SLICE, self.size))
            for index, leaf in enumerate(leaves, start):
                digest = decode_with(_decoder, leaf).blob
                if digest in ("", before):
                    continue
                before = digest
                if blobs.size(digest) is None and not blobs.expired(digest):
                    self._fault(f"entry {index}: its blob {digest} is missing")

    def _fault(self, what: str) -> None:
        self._faulty += 1
        if len(self._faults) < _FAULTS:
            self._faults.append(what)

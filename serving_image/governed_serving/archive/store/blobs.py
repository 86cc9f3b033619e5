"""Content-addressed blobs: ciphertext under the SHA-256 of itself, written once.

``{root}/ab/abcdef…``. What arrives must be sealed already (by the model's keysets); anything whose first bytes are not
those of one of our sealed formats is refused, so that plaintext can't end up here by mistake.
"""

import hashlib
import heapq
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from governed_api import runtime
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.archive.store.objects import BLOB_BYTES, OBJECTS, Bucket, Place, is_address
from governed_serving.durable import fsync_folder, open_new, put_in_place, replace_file

__all__ = ["NOT_SEALED", "BlobStore", "BlobWriter", "addresses", "check_address", "settle_place"]

NOT_SEALED = "the body is not sealed: encrypt it with the model's keyset before it is archived"
_CHUNK = 1 << 20
RESERVE = 64 << 20
"""Bytes of the volume that copies of blobs leave free."""


def check_address(digest: str) -> str:
    """``digest`` when it is 64 lower-case hex digits; raises :class:`Refused` (400)."""
    if not is_address(digest):
        raise Refused(400, f"a blob's address is its SHA-256 in 64 lower-case hex digits, found {digest[:80]!r}")
    return digest


def addresses(root: Path) -> Iterator[str]:
    """Addresses of the blobs that lie below a store's ``root``, sorted; what was deleted or is still coming in is
    none."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(p.name for p in folder.iterdir() if len(p.name) == 64 and p.name.startswith(folder.name))


class BlobStore:
    """Blobs below ``root``; ``sealed`` tells from the first 64 bytes whether a body is one of our sealed formats.

    With a ``bucket`` they are there, and ``root`` has what is coming in, the marks of what was deleted, and blobs of
    before that :meth:`move_out` hasn't moved yet. Raises Busy while the bucket can't be reached.
    """

    def __init__(
        self, root: Path, sealed: Callable[[bytes], bool], max_bytes: int = BLOB_BYTES, *, bucket: Bucket | None = None
    ):
        self.bucket = bucket
        self.away = ""
        """Why the bucket didn't answer when it was last asked."""
        self.root = root
        self.max_bytes = max_bytes
        self._sealed = sealed
        self._incoming = root / ".incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()  # of a process that was killed while receiving

    def path(self, digest: str) -> Path:
        """Where the blob is or would be."""
        return self.root / digest[:2] / check_address(digest)

    def expired(self, digest: str) -> bool:
        """Whether the blob was here and was deleted for good."""
        return self._marker(digest).exists()

    def expire(self, digest: str) -> None:
        """Delete a blob for good: sent again, it is not stored again."""
        if self.bucket is not None:
            self.bucket.delete(check_address(digest))  # first: while it can't be, nothing says that it was
        marker = self._marker(digest)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch(mode=0o600)
        fsync_folder(marker.parent)
        path = self.path(digest)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            fsync_folder(path.parent)

    def _marker(self, digest: str) -> Path:
        return self.root / "expired" / digest[:2] / check_address(digest)

    def is_here(self, digest: str) -> bool:
        """Whether the volume has a blob. Whether a bucket has it, is seen when it is put there: only then its bytes are
        looked at."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it isn't here."""
        path = self.path(digest)
        if path.exists():
            return path.stat().st_size
        return self.bucket.size(digest) if self.bucket is not None else None

    def writer(self, digest: str) -> "BlobWriter":
        """Receive a blob in chunks."""
        return BlobWriter(self.path(digest), self._aside(), self._sealed, self.max_bytes, self.bucket)

    def _aside(self) -> Path:
        return self._incoming / secrets.token_hex(8)

    def put(self, digest: str, data: bytes) -> bool:
        """Store a blob; False when it was here already. Raises :class:`Refused`, OSError."""
        with self.writer(digest) as writer:
            writer.write(data)
            return writer.commit()

    def read(self, digest: str) -> Iterator[bytes]:
        """The blob in chunks of 1 MiB; raises FileNotFoundError, Unverified."""
        with self.opened(digest) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    @contextmanager
    def opened(self, digest: str) -> Iterator[IO[bytes]]:
        """The blob as a file. Raises FileNotFoundError, Unverified."""
        path, copy = self.fetched(digest)
        try:
            with path.open("rb") as file:
                yield file
        finally:
            if copy:
                path.unlink(missing_ok=True)

    def fetched(self, digest: str) -> tuple[Path, bool]:
        """A file with the blob, and whether it is a copy that the caller removes. Raises FileNotFoundError,
        Unverified."""
        path = self.path(digest)
        if self.bucket is None:
            return path, False
        copy = self._aside()
        try:
            os.link(path, copy)  # not the file itself: it may be on its way out
            return copy, True
        except FileNotFoundError:
            pass
        try:
            with open_new(copy) as file:
                self.bucket.fetch(digest, file, self._room())
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return copy, True

    def _room(self) -> int:
        """Bytes that a copy may have: the ledger lies on the same volume, and is written to meanwhile."""
        volume = os.statvfs(self._incoming)
        return min(self.max_bytes, max(volume.f_bavail * volume.f_frsize - RESERVE, 0))

    def addresses(self) -> Iterator[str]:
        """Of all blobs, sorted, wherever they are."""
        here = addresses(self.root)
        if self.bucket is None:
            return here
        return (a for a, _ in itertools.groupby(heapq.merge(here, self.bucket.addresses())))

    def move_out(self, most: int = 1000) -> int:
        """Put up to ``most`` blobs of the volume into the bucket; how many."""
        moved = 0
        if self.bucket is None:
            return moved
        for digest in itertools.islice(addresses(self.root), most):
            path = self.path(digest)
            self.bucket.put(digest, path)
            path.unlink()
            moved += 1
        return moved


def settle_place(root: Path, bucket: Bucket | None) -> None:
    """Keep in an archive's folder where its blobs are. Raises ArchiveError where they are elsewhere than in
    ``bucket``."""
    note = root / OBJECTS
    kept = note.read_text() if note.is_file() else ""
    if bucket is None and kept:
        raise ArchiveError(
            f"{root}: its blobs are in object storage, {kept}: say so again ({runtime.OBJECTS}; governed run --objects)"
        )
    if bucket is None:
        return
    if kept and Place.parse(kept).key != bucket.place.key:
        raise ArchiveError(
            f"{root}: expected its blobs in {kept}, found {bucket.place.text}: copy all objects there, then write "
            f"the new address into {note}"
        )
    replace_file(note, bucket.place.text.encode())


class BlobWriter:
    """One blob on its way in: hashed as it comes, visible only once its address is right and it is on disk."""

    def __init__(
        self,
        target: Path,
        aside: Path,
        sealed: Callable[[bytes], bool],
        max_bytes: int,
        bucket: Bucket | None = None,
    ):
        self._target, self._bucket = target, bucket
        self._aside = aside
        self._sealed = sealed
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._head = b""
        self._length = 0
        self._file = open_new(aside)

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises :class:`Refused` (413) beyond the limit, OSError."""
        self._length += len(chunk)
        if self._length > self._max_bytes:
            raise Refused(413, f"a blob may have at most {self._max_bytes} bytes")
        if len(self._head) < 64:
            self._head = (self._head + chunk)[:64]
        self._hash.update(chunk)
        self._file.write(chunk)

    def commit(self) -> bool:
        """Check address and seal, make it durable and visible; False when it was here already."""
        hexdigest = self._hash.hexdigest()
        if hexdigest != self._target.name:
            raise Refused(400, f"the body's SHA-256 is {hexdigest}, the address says {self._target.name}")
        if not self._sealed(self._head):
            raise Refused(415, NOT_SEALED)
        if self._target.exists():
            return False
        self._file.flush()
        if self._bucket is not None:
            return self._bucket.put(hexdigest, self._aside)
        os.fsync(self._file.fileno())
        self._target.parent.mkdir(exist_ok=True)
        put_in_place(self._aside, self._target)
        fsync_folder(self._target.parent.parent)
        return True

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)

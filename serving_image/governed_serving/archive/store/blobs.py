"""Content-addressed blobs: ciphertext under the SHA-256 of itself, written once.

``{root}/ab/abcdef…``. What arrives must be sealed already (by the model's keysets); anything whose first bytes are not
those of one of our sealed formats is refused, so that plaintext can't end up here by mistake.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from governed_serving.archive.errors import Refused
from governed_serving.durable import fsync_folder, open_new, put_in_place

__all__ = ["NOT_SEALED", "BlobStore", "BlobWriter", "addresses", "check_address"]

NOT_SEALED = "the body is not sealed: encrypt it with the model's keyset before it is archived"
_CHUNK = 1 << 20


def check_address(digest: str) -> str:
    """``digest`` when it is 64 lower-case hex digits; raises :class:`Refused` (400)."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise Refused(400, f"a blob's address is its SHA-256 in 64 lower-case hex digits, found {digest[:80]!r}")
    return digest


def addresses(root: Path) -> Iterator[str]:
    """Addresses of the blobs that lie below a store's ``root``, sorted; what was deleted or is still coming in is
    none."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(p.name for p in folder.iterdir() if len(p.name) == 64 and p.name.startswith(folder.name))


class BlobStore:
    """Blobs below ``root``; ``sealed`` tells from the first 64 bytes whether a body is one of our sealed formats."""

    def __init__(self, root: Path, sealed: Callable[[bytes], bool], max_bytes: int = 8 << 30):
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

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it isn't here."""
        path = self.path(digest)
        return path.stat().st_size if path.exists() else None

    def writer(self, digest: str) -> "BlobWriter":
        """Receive a blob in chunks."""
        return BlobWriter(self.path(digest), self._incoming / secrets.token_hex(8), self._sealed, self.max_bytes)

    def put(self, digest: str, data: bytes) -> bool:
        """Store a blob; False when it was here already. Raises :class:`Refused`, OSError."""
        with self.writer(digest) as writer:
            writer.write(data)
            return writer.commit()

    def read(self, digest: str) -> Iterator[bytes]:
        """The blob in chunks of 1 MiB; raises FileNotFoundError."""
        with self.path(digest).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


class BlobWriter:
    """One blob on its way in: hashed as it comes, visible only once its address is right and it is on disk."""

    def __init__(self, target: Path, aside: Path, sealed: Callable[[bytes], bool], max_bytes: int):
        self._target = target
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
        found = self._hash.hexdigest()
        if found != self._target.name:
            raise Refused(400, f"the body's SHA-256 is {found}, the address says {self._target.name}")
        if not self._sealed(self._head):
            raise Refused(415, NOT_SEALED)
        if self._target.exists():
            return False
        self._file.flush()
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

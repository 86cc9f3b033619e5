"""Blobs of an archive's folder, on its volume or in object storage, read without changing anything."""

import hashlib
import heapq
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from governed_serving.archive.errors import ArchiveError, Busy, Unverified
from governed_serving.archive.store.blobs import addresses
from governed_serving.archive.store.objects import Bucket, kept_in
from governed_serving.environment import InvalidSettings

__all__ = ["MISSING", "HeldBlobs"]

MISSING: Final = "is missing"
"""What is said of a blob that isn't there."""
_THERE = "there and unchanged"


class HeldBlobs:
    """``are``: what can be said of them. Where the object storage can't be asked, blobs that aren't on the volume are
    passed over: ``unseen``, and ``are`` says why."""

    def __init__(self, root: Path) -> None:
        self._root = root / "blobs"
        self._bucket: Bucket | None = None
        self.are, self.unseen = _THERE, False
        try:
            self._bucket = kept_in(root)
            problem = self._bucket.problem() if self._bucket is not None else ""
        except (ArchiveError, InvalidSettings) as error:
            problem = str(error)
        if problem:
            self._bucket, self.unseen = None, True
            self.are = f"in object storage, which couldn't be asked: {problem}"

    def path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def problem(self, digest: str) -> str | None:
        """What is wrong with a blob; None: it is there and unchanged, or couldn't be looked at."""
        try:
            with self.path(digest).open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
            return None if actual == digest else f"has SHA-256 {actual}: it was changed"
        except FileNotFoundError:
            if self._bucket is None:
                return None if self.unseen else MISSING
        try:
            with tempfile.TemporaryFile() as copy:
                self._bucket.fetch(digest, copy)
        except FileNotFoundError:
            return MISSING
        except Unverified as error:
            return f"was changed: {error}"
        return None

    def addresses(self) -> Iterator[str]:
        """Of all that lie there, sorted."""
        here = addresses(self._root)
        if self._bucket is None:
            return here
        return (a for a, _ in itertools.groupby(heapq.merge(here, self._bucket.addresses())))

    def is_there(self, digest: str) -> bool:
        return self.path(digest).exists() or (self._bucket is not None and self._bucket.size(digest) is not None)

    def content(self, digest: str) -> bytes:
        """Ciphertext. Raises FileNotFoundError, Busy, Unverified."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            if self.unseen:
                raise Busy(f"blob {digest} is in object storage, which couldn't be asked") from None
            if self._bucket is None:
                raise
        with tempfile.TemporaryFile() as copy:
            self._bucket.fetch(digest, copy)
            copy.seek(0)
            return copy.read()

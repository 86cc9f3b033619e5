"""What was fetched, and the one digest that pins it.

The digest of a single file is its SHA-256. That of a folder is the SHA-256 of a text: for each file, sorted by the
bytes of its path (UTF-8), a line ``SHA256 SIZE PATH`` with one space between, SHA-256 in lowercase hex, the size in
decimal, each line ended by a line feed. So ``sha256sum`` and a few lines of any language recompute it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from governed_api.regular_files import open_regular
from governed_serving.sources.errors import Differs, Refused
from governed_serving.sources.names import MOST_LISTED, safe, together
from governed_serving.sources.pickles import refuse_pickle

__all__ = ["CHUNK", "File", "Tree", "sha256_of"]

CHUNK = 1 << 20
"""Bytes that are read at a time."""


@dataclass(frozen=True, order=True)
class File:
    """A file of a tree; ``sha256`` in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Tree:
    """Files at ``place``: a file where ``single``, a folder otherwise."""

    place: Path
    files: tuple[File, ...]
    single: bool

    @classmethod
    def of(cls, place: Path, *, wanted: Callable[[str], bool] = lambda _: True) -> "Tree":
        """Read a file, or the wanted files of a folder. Raises Refused for names, links and pickles; OSError."""
        if not place.is_dir():
            size, sha256 = sha256_of(place)
            refuse_pickle(place, place.name)
            return cls(place, (File(place.name, size, sha256),), single=True)
        every = list(islice((path for path in place.rglob("*") if not path.is_dir()), MOST_LISTED + 1))
        if len(every) > MOST_LISTED:
            raise Refused(f"{place}: expected at most {MOST_LISTED} files below it, found more")
        by_name = {path.relative_to(place).as_posix(): path for path in every}
        paths = {safe(name): path for name, path in by_name.items() if wanted(name)}
        together(paths)
        root = place.resolve()
        for name, path in paths.items():
            if not path.resolve().is_relative_to(root) or not path.is_file():
                raise Refused(f"{name}: expected a regular file in its folder, found a link out of it, or a device")
            refuse_pickle(path, name)
        if not paths:
            raise Refused(f"{place}: expected files, found none")
        files = (File(name, *sha256_of(path)) for name, path in paths.items())
        return cls(place, tuple(sorted(files, key=lambda file: file.path.encode())), single=False)

    @property
    def digest(self) -> str:
        """``sha256:…``, as the module says."""
        if self.single:
            return f"sha256:{self.files[0].sha256}"
        lines = (f"{file.sha256} {file.size} {file.path}\n" for file in self.files)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def check(self, digest: str, pinned: Mapping[str, str], uri: str) -> None:
        """Raises Differs, naming the files where ``pinned`` (path → ``sha256:…``) or there being one file tells."""
        wrong = [
            f"{file.path} has sha256:{file.sha256}, expected {pinned[file.path]}"
            for file in self.files
            if pinned.get(file.path, f"sha256:{file.sha256}") != f"sha256:{file.sha256}"
        ]
        if wrong:
            raise Differs(f"{uri}: {_in_words(wrong)}: it is not served")
        if not digest or self.digest == digest:
            return
        if self.single:
            raise Differs(f"{uri}: expected digest {digest}, found {self.digest}: it is not served")
        listed = _in_words(f"{file.path} sha256:{file.sha256[:16]}…" for file in self.files)
        raise Differs(
            f"{uri}: expected digest {digest}, found {self.digest} over {len(self.files)} files ({listed}): it is not "
            "served; compare with what `governed pin` printed, and list files with their digests in storage.files to "
            "be told which one differs"
        )


def _in_words(parts: Iterable[str], most: int = 5) -> str:
    listed = list(parts)
    more = f"; and {len(listed) - most} more" if len(listed) > most else ""
    return "; ".join(listed[:most]) + more


def sha256_of(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256 in hex). Raises OSError."""
    hashed, size = hashlib.sha256(), 0
    with open_regular(path, follow=True) as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    return size, hashed.hexdigest()

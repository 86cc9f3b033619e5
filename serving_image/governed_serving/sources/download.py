"""The download of what a source lists: each file resumed where it was cut off, bounded, hashed as it comes.

Below a folder of its own: ``parts/`` has what is being fetched, ``files/`` what is whole. A process that is started
again goes on from there. Nobody reads ``files/`` before the digest over all of it is the expected one.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from governed_api.pauses import pause
from governed_serving.decoding import decode_json
from governed_serving.durable import replace_file
from governed_serving.sources.errors import Changed, Differs, NoRoom, Refused, SourceError, Unavailable
from governed_serving.sources.source import Listed, Source
from governed_serving.sources.tree import CHUNK

__all__ = ["Bounds", "Download", "Progress"]

WINDOW, SLOWEST = 60.0, 1024
"""Seconds over which a pace is looked at, and the least bytes a second."""

Progress = Callable[[str, int, int], None]
"""Told the file, bytes of it so far, bytes of it in all (0: not known)."""


@dataclass(frozen=True)
class Bounds:
    """``most`` bytes in all. Pauses between tries of at most ``first``·2ⁿ, at most ``longest`` seconds; ``attempts``
    tries in a row that bring less than CHUNK; a server may ask for at most ``patience`` seconds."""

    most: int = 1 << 30
    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    patience: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class _Begun(msgspec.Struct, frozen=True):
    """Beside a part: which file it is of."""

    uri: str
    path: str
    version: str
    sha256: str


class Download:
    """Of ``source``, called ``uri`` (without credentials), into ``folder``."""

    def __init__(
        self,
        source: Source,
        uri: str,
        folder: Path,
        bounds: Bounds,
        progress: Progress,
    ) -> None:
        self._source, self._uri, self._bounds = source, uri, bounds
        self._parts, self.files = folder / "parts", folder / "files"
        self._progress = progress
        self._left = bounds.most

    def fetch(self, listed: Listed) -> Path:
        """The whole file. Raises SourceError, OSError."""
        self._parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        if listed.size is not None and listed.size > self._left:
            raise Refused(self._too_large(listed.path, listed.size))
        try:
            path = _Part(self, listed).fetched()
        except OSError as error:
            raise _of_disk(error, self._uri, listed, self._parts) from error
        self._left -= path.stat().st_size
        return path

    def listed(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """What the source lists, asked again while another try may help. Raises SourceError."""
        tries = _Tries(self._bounds)
        while True:
            try:
                return self._source.files(wanted)
            except Unavailable as error:
                tries.again(error)

    def _too_large(self, path: str, size: int) -> str:
        return f"{self._uri}: {path} has {size} bytes, at most {self._bounds.most} are taken in all; raise volumeSize"


class _Tries:
    """Bounded tries with full jitter (Brooker 2015), heeding Retry-After."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds, self._failed = bounds, 0

    def again(self, error: Unavailable, brought: int = 0) -> None:
        """Wait before another try. Raises ``error`` where there is none left; ``brought``: bytes of the last one."""
        bounds = self._bounds
        self._failed = 1 if brought >= CHUNK else self._failed + 1
        seconds = pause(bounds.first, bounds.longest, self._failed, error.after)
        if self._failed >= bounds.attempts or error.after > bounds.patience:
            raise error
        bounds.sleep(seconds)


class _Pace:
    """A server that drips bytes would hold us for ever."""

    def __init__(self, bounds: Bounds, have: int) -> None:
        self._bounds, self._since, self._have = bounds, bounds.clock(), have

    def keep(self, have: int) -> None:
        """Raises Unavailable where a minute brought less than SLOWEST bytes a second."""
        elapsed = self._bounds.clock() - self._since
        if elapsed < WINDOW:
            return
        if have - self._have < SLOWEST * elapsed:
            raise Unavailable(f"it brings less than {SLOWEST} bytes a second")
        self._since, self._have = self._bounds.clock(), have


class _Part:
    """One file on its way: what is on disk, its hash so far, which version it is of."""

    def __init__(self, download: Download, listed: Listed) -> None:
        self._all, self._listed = download, listed
        name = hashlib.sha256(f"{download._uri}\n{listed.path}".encode()).hexdigest()[:32]
        self._path, self._about = download._parts / name, download._parts / f"{name}.json"
        self._hash, self._have, self._version = hashlib.sha256(), 0, ""
        self._resume()

    def _resume(self) -> None:
        """Go on with what an earlier process left, where it is of the same file for sure."""
        try:
            begun = decode_json(self._about.read_bytes(), _Begun)
        except (OSError, msgspec.DecodeError):
            return
        same = begun.uri == self._all._uri and begun.path == self._listed.path
        told = bool(begun.version) if not self._listed.version else begun.version == self._listed.version
        pinned = bool(begun.sha256) and begun.sha256 == self._listed.sha256
        if not (same and (told or pinned)):
            return
        try:
            with self._path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self._hash.update(chunk)
                    self._have += len(chunk)
        except OSError:
            return
        self._version = begun.version
        if not pinned and not self._listed.version and self._whole():
            self._anew()  # nobody would be asked whether it still is the file

    def fetched(self) -> Path:
        tries, moved = _Tries(self._all._bounds), 0
        while not self._whole():
            before = self._have
            try:
                self._read()
                break
            except Changed as error:
                moved += 1
                self._anew()
                if moved > 2:
                    raise Refused(f"{self._all._uri}: {self._listed.path} changes while it is read: {error}") from error
            except Unavailable as error:
                tries.again(error, self._have - before)
        hexdigest = self._hash.hexdigest()
        if self._listed.sha256 and hexdigest != self._listed.sha256:
            self._anew()
            raise Differs(
                f"{self._all._uri}: {self._listed.path} has SHA-256 {hexdigest}, and the source lists it with "
                f"{self._listed.sha256}: it is not served"
            )
        return self._path

    def _whole(self) -> bool:
        return self._listed.size is not None and self._have == self._listed.size and self._have > 0

    def _anew(self) -> None:
        self._path.unlink(missing_ok=True)
        self._hash, self._have, self._version = hashlib.sha256(), 0, ""

    def _read(self) -> None:
        """One try. Raises Unavailable where it brought less than all."""
        listed = self._listed
        if not (self._version or listed.sha256):
            self._anew()  # nothing tells whether the rest would be of the same file
        with self._all._source.read(listed, self._have, self._version or listed.version) as part:
            if part.offset != self._have:  # the server sends all of it again
                self._anew()
            self._note(part.version)
            size = listed.size if listed.size is not None else part.size
            with self._path.open("ab") as file:
                pace = _Pace(self._all._bounds, self._have)
                for chunk in part.chunks:
                    pace.keep(self._have)
                    self._take(chunk, size)
                    file.write(chunk)
                    self._hash.update(chunk)
                    self._have += len(chunk)
                    self._all._progress(listed.path, self._have, size or 0)
        if size is not None and self._have < size:
            raise Unavailable(f"{self._all._uri}: {listed.path} ends after {self._have} of {size} bytes")

    def _note(self, version: str) -> None:
        if version != self._version or not self._about.exists():
            self._version = version
            begun = _Begun(self._all._uri, self._listed.path, version, self._listed.sha256)
            replace_file(self._about, msgspec.json.encode(begun), durable=False)

    def _take(self, chunk: bytes, size: int | None) -> None:
        after = self._have + len(chunk)
        if size is not None and after > size:
            self._anew()
            raise Refused(
                f"{self._all._uri}: {self._listed.path} goes on after the {size} bytes that were announced: it is not "
                "taken"
            )
        if after > self._all._left:
            self._anew()
            raise Refused(self._all._too_large(self._listed.path, after))


def _of_disk(error: OSError, uri: str, listed: Listed, folder: Path) -> SourceError | OSError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    try:
        free = f", {shutil.disk_usage(folder).free} are free"
    except OSError:
        free = ""
    size = f" of {listed.size} bytes" if listed.size else ""
    return NoRoom(
        f"{uri}: no room for {listed.path}{size} on the volume ({os.strerror(error.errno)}{free}); raise volumeSize, "
        "or take fewer files by storage.files"
    )

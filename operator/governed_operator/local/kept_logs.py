"""What the containers of a local run wrote, in bounded files of its work directory that only the caller may read."""

import errno
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

__all__ = ["FILE_BYTES", "KeptLogs", "LogLine", "Reader", "containers"]

FILE_BYTES = 4 << 20
"""Of a container's file; then it becomes the older one, whose content goes. So twice as much is kept of each."""
_OLDER = ".older"
_SUFFIX = ".log"
_STAMP = 27
"""Characters of a line's time: RFC 3339, UTC, microseconds."""

LogLine = tuple[str, str, str]
"""(time, container, text as the container wrote it)."""


class KeptLogs:
    """Appends to ``folder``/CONTAINER.log. A full disk ends no run: lines are dropped, and counted; the first that can
    be written again stands behind a line that says how many are missing there."""

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES) -> None:
        self._folder, self._bytes = folder, file_bytes
        self.dropped = 0
        """Lines that couldn't be written."""
        self.trouble = ""
        """Why the last of them couldn't."""
        self._missing: dict[str, int] = {}
        """Those of each container since one could."""

    def line(self, container: str, text: str) -> None:
        """One line, with the time at which it came."""
        missing = self._missing.get(container, 0)
        try:
            if missing:
                self._write(container, _gap(missing, self.trouble))
                del self._missing[container]
            self._write(container, text)
        except OSError as error:
            self.dropped += 1
            self.trouble = error.strerror or type(error).__name__
            self._missing[container] = self._missing.get(container, 0) + 1

    def _write(self, container: str, text: str) -> None:
        """Raises OSError; then nothing of the line is there."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        one = text.replace("\n", "\\n")
        data = f"{stamp} {one}\n".encode(errors="replace")
        path = _file(self._folder, container)
        if path.exists() and path.lstat().st_size + len(data) > self._bytes:
            path.replace(_older(path))
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(file).st_size
            if os.write(file, data) < len(data):  # the disk is full now: the next line would go on where this one ends
                os.ftruncate(file, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)


def _gap(missing: int, trouble: str) -> str:
    """In the form in which containers log."""
    what = "1 line is" if missing == 1 else f"{missing:,} lines are"
    return json.dumps({"level": "warning", "message": f"{what} missing before the next, not kept: {trouble}"})


def containers(folder: Path) -> list[str]:
    """Whose lines are kept, by name."""
    return sorted({path.name.partition(_SUFFIX)[0] for path in folder.glob(f"*{_SUFFIX}*")}) if folder.is_dir() else []


class Reader:
    """Reads what is kept of some containers, and then what is new. Raises OSError."""

    def __init__(self, folder: Path, container: str | None = None) -> None:
        """``container``: None, all of them, those that begin later too."""
        self._folder, self._container = folder, container
        self._read: dict[str, tuple[int, int]] = {}
        """Inode and length of what was read of each container's file."""

    def last(self, lines: int) -> list[LogLine]:
        """The last ``lines`` of each container, oldest first."""
        kept = (deque(self._all(name), maxlen=lines) for name in self._names())
        return sorted(chain.from_iterable(kept), key=lambda line: line[0])

    def new(self) -> list[LogLine]:
        """What was written since the last call, oldest first."""
        written = chain.from_iterable(self._new(name) for name in self._names())
        return sorted(written, key=lambda line: line[0])

    def _names(self) -> Sequence[str]:
        return [self._container] if self._container else containers(self._folder)

    def _all(self, container: str) -> Iterator[LogLine]:
        yield from self._lines(container, _older(_file(self._folder, container)), 0)
        yield from self._new(container)

    def _new(self, container: str) -> Iterator[LogLine]:
        path = _file(self._folder, container)
        inode, length = self._read.get(container, (0, 0))
        try:
            now = path.stat().st_ino
        except FileNotFoundError:
            return
        if inode and now != inode:  # it became the older one: its end first
            yield from self._lines(container, _older(path), length)
        yield from self._lines(container, path, length if now == inode else 0)

    def _lines(self, container: str, path: Path, start: int) -> Iterator[LogLine]:
        """Whole lines of a file from ``start`` on; one that is being written comes at the next call."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(start)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                start += len(raw)
                line = raw.decode(errors="replace").rstrip("\r\n")
                yield line[:_STAMP], container, line[_STAMP + 1 :]
            if path == _file(self._folder, container):
                self._read[container] = (os.fstat(file.fileno()).st_ino, start)


def _file(folder: Path, container: str) -> Path:
    return folder / f"{container}{_SUFFIX}"


def _older(path: Path) -> Path:
    return path.with_suffix(f"{_SUFFIX}{_OLDER}")

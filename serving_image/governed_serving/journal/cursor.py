"""How far a follower has got in a stream, and where it keeps that over a restart.

A file holds the same line twice, with its SHA-256: one that was damaged is read from the other. What a damaged cursor
says would be done twice, or never.
"""

from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from governed_serving.decoding import decode_json
from governed_serving.durable import replace_file
from governed_serving.hosting.logs import log
from governed_serving.journal.chunk import Chunk
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import RawFrame
from governed_serving.journal.salvage import Gap

__all__ = ["Cursor", "CursorFiles", "cursor_text", "written_twice"]


class Cursor(msgspec.Struct, frozen=True):
    """The next frame of a stream, and the tag (hex) of the one before it, so that a cut or a fork below is noticed.

    ``identity`` is that of :attr:`JournalReader.identity`: a stream made anew under an old name is another one.
    """

    identity: str
    frame: int = 0
    tag: str = ""

    @classmethod
    def behind(cls, last: RawFrame | Chunk | Gap) -> "Cursor":
        """The place behind a frame, or behind the last one of a chunk or a gap."""
        return Cursor(last.identity, last.last_seq + 1, last.tag.hex())

    @property
    def previous(self) -> bytes | None:
        """Tag of the frame before, for :meth:`JournalReader.frames`; None where none was read yet."""
        return bytes.fromhex(self.tag) or None


C = TypeVar("C", bound=Cursor)


def written_twice(text: bytes) -> bytes:
    """``text`` (JSON, one line), a tab and its SHA-256 (hex), as a line, twice."""
    return 2 * (text + b"\t" + sha256(text).hexdigest().encode() + b"\n")


def cursor_text(data: bytes) -> tuple[bytes, bool]:
    """The JSON in a cursor's file, and whether all of the file is as it was written. Raises ValueError where neither
    of its copies is.

    A file of an older version is the JSON alone, whose damage can't be told.
    """
    half = len(data) // 2
    for copy in (data[:half], data[half:], *data.splitlines(keepends=True)[:3]):  # where one grew or shrank, its line
        text, tab, _ = copy.rpartition(b"\t")
        if tab and 2 * copy == written_twice(text):
            return text, data == 2 * copy
    if data[:1] == b"{" and data[-1:] == b"}":
        return data, True
    raise ValueError("neither of its copies has the SHA-256 that it should have")


class CursorFiles(Generic[C]):
    """One file per stream, ``folder``/``prefix``‖stream: cursors, or a follower's own ``kind`` of them."""

    def __init__(self, folder: Path, kind: type[C], prefix: str = "") -> None:
        self._folder, self._kind, self._prefix = folder, kind, prefix

    def load(self, stream: str, identity: str) -> C | None:
        """What was saved last of the stream with this identity; None at first, and when the name is another stream's by
        now. A file of which a copy is damaged is said, and written anew.

        Raises JournalDamaged when the file can't be read: what was done already is not to be guessed. Raises OSError.
        """
        path = self._path(stream)
        try:
            text, whole = cursor_text(path.read_bytes())
            cursor = decode_json(text, type=self._kind)
        except FileNotFoundError:
            return None
        except (ValueError, msgspec.DecodeError) as error:
            raise JournalDamaged(
                stream,
                0,
                f"its cursor {path} can't be read ({error}); restore it, or remove it to begin anew: what was done "
                "since the journal's oldest segment is then done twice",
            ) from None
        if not whole:
            self.save(stream, cursor)
            log("error", "a cursor was damaged: its other copy is used, and the file was written anew", path=str(path))
        return cursor if cursor.identity == identity else None

    def save(self, stream: str, cursor: C) -> None:
        """Durable on return. Raises OSError."""
        replace_file(self._path(stream), written_twice(msgspec.json.encode(cursor)))

    def _path(self, stream: str) -> Path:
        return self._folder / f"{self._prefix}{stream}"

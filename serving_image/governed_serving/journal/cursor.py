"""How far a follower has got in a stream, and where it keeps that over a restart."""

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from governed_serving.decoding import decode_json
from governed_serving.durable import replace_file
from governed_serving.journal.chunk import Chunk
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import RawFrame
from governed_serving.journal.salvage import Gap

__all__ = ["Cursor", "CursorFiles"]


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


class CursorFiles(Generic[C]):
    """One file per stream, ``folder``/``prefix``‖stream: cursors, or a follower's own ``kind`` of them."""

    def __init__(self, folder: Path, kind: type[C], prefix: str = "") -> None:
        self._folder, self._kind, self._prefix = folder, kind, prefix

    def load(self, stream: str, identity: str) -> C | None:
        """What was saved last of the stream with this identity; None at first, and when the name is another stream's by
        now.

        Raises JournalDamaged when the file can't be read: what was done already is not to be guessed. Raises OSError.
        """
        path = self._path(stream)
        try:
            cursor = decode_json(path.read_bytes(), type=self._kind)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise JournalDamaged(
                stream, 0, f"its cursor {path} can't be read ({error}); remove it to begin anew"
            ) from None
        return cursor if cursor.identity == identity else None

    def save(self, stream: str, cursor: C) -> None:
        """Durable on return. Raises OSError."""
        replace_file(self._path(stream), msgspec.json.encode(cursor))

    def _path(self, stream: str) -> Path:
        return self._folder / f"{self._prefix}{stream}"

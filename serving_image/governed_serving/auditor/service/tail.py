"""Follows all streams into the fold, and keeps where it is together with what it has counted: one sealed file, replaced
at once, that holds the same twice: where one is damaged, the other one is opened.

A restart goes on from that file with the frames behind it, which the journal still holds because trimming waits for it.
So no record is counted twice or not at all, whatever is killed when.
"""

from pathlib import Path

import msgspec

from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.labels import Row
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.merging import merged
from governed_serving.crypto import CryptoError, Keyset, SegmentCipher
from governed_serving.decoding import decode_msgpack
from governed_serving.durable import replace_file
from governed_serving.hosting import log
from governed_serving.journal import Cursor, Gap, JournalReader, RawFrame, streams
from governed_serving.records import Frame

__all__ = ["Tail"]

_AAD = b"auditor state 3"
_STEP = 2000
"""Frames of a stream between two savings of the state."""


class Tail:
    """Reads what is new into ``fold``; ``save`` makes it durable."""

    def __init__(self, spool: Path, keyset: Keyset, cipher: SegmentCipher, fold: Fold, live: Live | None = None):
        self.fold, self.live = fold, live
        self._spool, self._keyset, self._cipher = spool, keyset, cipher
        self._file = spool / "auditor" / "state"
        self._readers: dict[str, JournalReader] = {}
        self._cursors: dict[str, Cursor] = {}
        self._saved: dict[str, int] = {}
        self._changed = False
        self.records = 0
        self.behind = False
        """The last step left frames unread."""
        self.restarted = ""
        """Why the state began anew, when it did."""
        self._restore()

    def step(self, most: int = _STEP) -> int:
        """Fold at most ``most`` new frames per stream; how many there were. Raises JournalError, CryptoError,
        OSError."""
        counts = [self._follow(stream, most) for stream in streams(self._spool)]
        self.behind = most in counts
        return sum(counts)

    def settle(self, request: str, rows: list[Row], dropped: str, correction: bool = False) -> None:
        """See :meth:`Fold.settle`, :meth:`Fold.settle_correction`."""
        (self.fold.settle_correction if correction else self.fold.settle)(request, rows, dropped)
        self._changed = True

    def folded(self, identity: str) -> int | None:
        """Next frame of the stream with this identity, when it is one of this spool's."""
        for cursor in list(self._cursors.values()):
            if cursor.identity == identity:
                return cursor.frame
        return None

    def durable(self, stream: str) -> int:
        """Frames before it won't be read again."""
        return self._saved.get(stream, 0)

    def save(self) -> None:
        """Seal counts and places to the state file, if anything changed. Raises OSError."""
        if not self._changed:
            return
        places = {name: [c.frame, bytes.fromhex(c.tag), c.identity] for name, c in self._cursors.items()}
        live = self.live.dump() if self.live is not None else None
        plain = msgspec.msgpack.encode({"fold": self.fold.dump(), "places": places, "live": live})
        replace_file(self._file, 2 * self._keyset.seal(plain, _AAD))
        self._saved = {name: c.frame for name, c in self._cursors.items()}
        self._changed = False

    def _follow(self, stream: str, most: int) -> int:
        reader = self._readers.setdefault(stream, JournalReader(self._spool, stream, self._cipher))
        cursor = self._cursors.get(stream)
        read: list[Frame] = []
        last: RawFrame | Gap | None = None
        start = cursor.frame if cursor else reader.first_seq or 0
        try:
            for frame in reader.pieces(start, cursor.previous if cursor else None):
                if isinstance(frame, Gap):
                    self._pass_over(frame)
                else:
                    read.append(frame.record())
                last = frame
                if len(read) >= most:
                    break
        finally:  # what was read before the journal broke counts, once
            if last is not None:
                self._take(read)
                self._cursors[stream] = Cursor.behind(last)
        return len(read)

    def _pass_over(self, gap: Gap) -> None:
        """What can't be read isn't counted; what is behind it is."""
        if gap.frames:
            log("error", "frames of the journal can't be read and are not counted", stream=gap.identity, found=str(gap))
            self._changed = True

    def _take(self, read: list[Frame]) -> None:
        for record in merged(read):
            self.fold.record(record)
            if self.live is not None:
                self.live.record(record)
        self._changed = True
        self.records += len(read)

    def _opened(self, sealed: bytes) -> bytes:
        """Of two copies the one that opens; an older version wrote one. Raises CryptoError."""
        half = len(sealed) // 2
        first, second = sealed[:half], sealed[half:]
        for copy in (first, second):
            try:
                plain = self._keyset.open(copy, _AAD)
            except CryptoError:
                continue
            if first != second:
                log("error", "saved counts were damaged: their other copy is used", path=str(self._file))
                self._changed = True
            return plain
        return self._keyset.open(sealed, _AAD)

    def _restore(self) -> None:
        try:
            sealed = self._file.read_bytes()
        except FileNotFoundError:
            return
        try:
            opened = decode_msgpack(self._opened(sealed))
        except (CryptoError, msgspec.DecodeError) as error:
            self.restarted = f"saved counts can't be opened ({error}); counting starts over"
            return
        if not self.fold.load(opened["fold"]):
            self.restarted = "another revision serves, or the rules name other attributes; counting starts over"
        elif self.live is not None and opened["live"] is not None:
            self.live.load(opened["live"])
        for name, (frame, tag, identity) in opened["places"].items():
            reader = self._readers.setdefault(name, JournalReader(self._spool, name, self._cipher))
            if reader.identity == identity:  # otherwise the spool was lost, and this is a new stream
                self._cursors[name] = Cursor(identity, frame, tag.hex())
                self._saved[name] = frame

"""The reading end: follows a stream across segments, checks its chain, hands out frames raw or opened, trims what was
shipped."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from governed_serving.crypto import SegmentCipher, SegmentKey
from governed_serving.journal.chunk import Chunk, pack_chunk
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import FRAME, Header, RawFrame, frames_in, parse_header
from governed_serving.journal.segment import segment_path, segments
from governed_serving.records import Frame

__all__ = ["JournalReader", "streams"]

_BLOCK = 4 << 20
_HEAD = 1 << 17


class _Position(msgspec.Struct):
    """Where the next frame will be."""

    header: Header
    key: SegmentKey
    offset: int
    seq: int
    previous: bytes


def streams(spool: Path | str) -> list[str]:
    """Names of the streams below ``spool``, sorted."""
    root = Path(spool) / "journal"
    return sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


class JournalReader:
    """Reads ``{spool}/journal/{stream}`` while it is being written. Not thread-safe; frames are immutable."""

    def __init__(self, spool: Path | str, stream: str, cipher: SegmentCipher):
        self.folder = Path(spool) / "journal" / stream
        self.stream = stream
        self._cipher = cipher
        self._position: _Position | None = None

    @property
    def identity(self) -> str:
        """``{stream}.{identity}``: unlike the name, it never comes again when a spool is lost. Empty before the first
        frame."""
        for first in segments(self.folder):
            opened = self._open_segment(first)
            if opened is not None:
                return f"{self.stream}.{opened[0].identity}"
        return ""

    @property
    def first_seq(self) -> int | None:
        """The oldest frame that is still there; None when there is none."""
        found = segments(self.folder)
        return found[0] if found else None

    @property
    def newest_segment(self) -> int | None:
        """The frame that the newest segment begins with."""
        found = segments(self.folder)
        return found[-1] if found else None

    def frames(self, from_seq: int = 0, previous: bytes | None = None) -> Iterator[RawFrame]:
        """Frames from ``from_seq`` (or the oldest) to the end as it is now, unopened. Call again later to follow.

        ``previous`` is the tag of frame ``from_seq`` − 1 as remembered by a cursor. Raises JournalDamaged where the
        chain breaks (number missing, segments that don't join, a tail cut below the cursor), CryptoError when a key is
        lost.
        """
        try:
            yield from self._follow(from_seq, previous)
        except FileNotFoundError:  # another process trimmed what we stood in: the next call begins with the oldest left
            self._position = None

    def _follow(self, from_seq: int, previous: bytes | None) -> Iterator[RawFrame]:
        position = self._seek(from_seq)
        if position is not None and position.seq < from_seq:
            raise JournalDamaged(
                self.stream,
                position.seq,
                f"is missing: the stream ends here, but was read up to frame {from_seq} before",
            )
        if position is not None and previous is not None and position.seq == from_seq and position.previous != previous:
            raise JournalDamaged(
                self.stream, from_seq - 1, "isn't the one that was read before: the stream was replaced"
            )
        while position is not None:
            self._position = position
            yield from self._rest(position)
            position = self._next_segment(position)

    def read(self, from_seq: int = 0) -> Iterator[tuple[int, Frame]]:
        """(number, record) from ``from_seq`` on; raises JournalDamaged."""
        for frame in self.frames(from_seq):
            yield frame.seq, frame.record()

    def chunk(self, from_seq: int, max_bytes: int = 4 << 20) -> Chunk | None:
        """Frames from ``from_seq``, at most about ``max_bytes`` and of one segment, to be shipped; None when there is
        nothing new.

        Every frame has been opened, so what is shipped is what was written; ``chunk.records`` are decoded.
        """
        taken: list[RawFrame] = []
        size = 0
        for frame in self.frames(from_seq):
            if taken and (frame.header is not taken[0].header or size + len(frame.ciphertext) > max_bytes):
                break
            taken.append(frame)
            size += FRAME.size + len(frame.ciphertext)
        return pack_chunk(taken) if taken else None

    def trim(self, upto: int) -> int:
        """Delete segments that hold only frames below ``upto``; the last one, which may be being written, stays.
        Returns bytes freed."""
        found = segments(self.folder)
        freed = 0
        for first, following in pairwise(found):
            if following > upto:
                break
            path = segment_path(self.folder, first)
            for file in (*self.folder.glob(f"{path.stem}.torn-*"), path):
                freed += file.stat().st_size
                file.unlink()
        return freed

    def _seek(self, seq: int) -> _Position | None:
        """Position of frame ``seq``, or of the end of the stream when it is shorter; None for an empty stream."""
        position = self._position
        if position is None or position.seq > seq or not self._holds_still(position):
            found = segments(self.folder)
            if not found:
                return None
            first = max((s for s in found if s <= seq), default=found[0])
            position = self._begin(first)
        while position is not None and position.seq < seq:
            for frame in self._rest(position):
                if frame.seq >= seq:
                    break
                self._advance(position, frame)
            if position.seq >= seq:
                break
            following = self._next_segment(position)
            if following is None:
                break
            position = following
        return position

    def _holds_still(self, position: _Position) -> bool:
        """Whether the segment is there as it was: one without a frame is made anew, with another key, when its writer
        was killed."""
        first = position.header.first_seq
        return position.seq > first and segment_path(self.folder, first).exists()

    def _begin(self, first: int) -> _Position | None:
        opened = self._open_segment(first)
        if opened is None:
            return None
        header, offset = opened
        return _Position(header, header.key(self._cipher), offset, header.first_seq, header.previous)

    def _open_segment(self, first: int) -> tuple[Header, int] | None:
        """Header and offset of the first frame; None while its writer has not finished the header."""
        try:
            with segment_path(self.folder, first).open("rb") as file:
                parsed = parse_header(file.read(_HEAD), self.stream)
        except FileNotFoundError:
            return None
        if parsed is not None and (parsed[0].stream != self.stream or parsed[0].first_seq != first):
            raise JournalDamaged(
                self.stream,
                first,
                f"its segment is frame {parsed[0].first_seq} of stream {parsed[0].stream}, put into another's place",
            )
        return parsed

    def _next_segment(self, position: _Position) -> _Position | None:
        """The segment behind ``position``, which stands at the end of its own; None when there is none yet."""
        later = [s for s in segments(self.folder) if s > position.header.first_seq]
        if not later:
            return None
        following = self._begin(later[0])
        if following is None:
            return None
        # The writer may have added frames between our last look and its roll: read them before going on.
        if position.seq < following.seq and any(True for _ in self._rest(position)):
            return position
        if (
            following.seq != position.seq
            or following.previous != position.previous
            or following.header.identity != position.header.identity
        ):
            raise JournalDamaged(
                self.stream,
                position.seq,
                f"is missing or was changed: segment {position.header.first_seq} doesn't lead to segment {following.seq}",  # noqa: E501
            )
        return following

    def _rest(self, position: _Position) -> Iterator[RawFrame]:
        """Whole frames from ``position`` to the end of its segment, moving it along."""
        with segment_path(self.folder, position.header.first_seq).open("rb") as file:
            want = _BLOCK
            while True:
                file.seek(position.offset)
                data = file.read(want)
                before = position.offset
                for frame in frames_in(
                    data, position.header, position.key, position.seq, position.previous, position.offset
                ):
                    yield frame
                    self._advance(position, frame)
                if position.offset == before:
                    if len(data) < want:
                        return
                    want *= 4  # a frame longer than a block

    @staticmethod
    def _advance(position: _Position, frame: RawFrame) -> None:
        position.offset, position.seq, position.previous = frame.end, frame.seq + 1, frame.tag

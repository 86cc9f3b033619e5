"""The reading end: follows a stream across segments, checks its chain, hands out frames raw or opened, trims what was
shipped.

:meth:`JournalReader.frames` and :meth:`JournalReader.read` end at the first frame that can't be read;
:meth:`JournalReader.pieces` says what can't be read and goes on behind it.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from governed_serving.crypto import SegmentCipher, SegmentKey
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.journal.chunk import Chunk, pack_chunk
from governed_serving.journal.errors import JournalDamaged
from governed_serving.journal.format import FRAME, FRAME_LIMIT, NO_TAG, Header, RawFrame, parse_segment
from governed_serving.journal.salvage import Gap, Place, salvage, whole_end
from governed_serving.journal.segment import segment_path, segments
from governed_serving.records import Frame

__all__ = ["JournalReader", "identity_of", "streams"]

_BLOCK = 4 << 20
_HEAD = 1 << 17
_FOREIGN = 64


class _Position(msgspec.Struct):
    """Where the next frame will be.

    ``sure``: ``previous`` is the tag of a frame that authenticated. ``seen``: the file's end when it was read to there;
    ``stuck``: what is wrong with the bytes up to it, if anything is that more of them can't mend.
    """

    header: Header
    key: SegmentKey
    offset: int
    seq: int
    previous: bytes
    sure: bool = True
    seen: int = 0
    stuck: str = ""

    @property
    def place(self) -> Place:
        return Place(self.header, self.key, self.seq, self.previous, self.offset)

    def advance(self, piece: RawFrame | Gap) -> None:
        """To behind it."""
        self.offset, self.seq, self.previous = piece.end, piece.last_seq + 1, piece.tag
        self.sure = isinstance(piece, RawFrame) and piece.plaintext is not None


def streams(spool: Path | str) -> list[str]:
    """Names of the streams below ``spool``, sorted."""
    root = Path(spool) / "journal"
    return sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def identity_of(folder: Path) -> str:
    """:attr:`JournalReader.identity` of the stream in ``folder``, without its key."""
    damaged: JournalDamaged | None = None
    for first in segments(folder):
        try:
            opened = _open_segment(folder, first)
        except JournalDamaged as error:
            damaged = damaged or error
            continue
        if opened is not None:
            return f"{folder.name}.{opened[0].identity}"
    if damaged is not None:
        raise damaged
    return ""


def _open_segment(folder: Path, first: int) -> tuple[Header, int] | None:
    """Header and offset of the first frame; None while its writer has not finished the header."""
    try:
        with segment_path(folder, first).open("rb") as file:
            parsed = parse_segment(file.read(_HEAD), folder.name)
    except FileNotFoundError:
        return None
    if parsed is not None and (parsed[0].stream != folder.name or parsed[0].first_seq != first):
        raise JournalDamaged(
            folder.name,
            first,
            f"its segment is frame {parsed[0].first_seq} of stream {parsed[0].stream}, put into another's place",
        )
    return parsed


class JournalReader:
    """Reads ``{spool}/journal/{stream}`` while it is being written. Not thread-safe; frames are immutable."""

    def __init__(self, spool: Path | str, stream: str, cipher: SegmentCipher):
        self.folder = Path(spool) / "journal" / stream
        self.stream = stream
        self._cipher = cipher
        self._position: _Position | None = None
        self.foreign: dict[tuple[int, int], str] = {}
        """(segment, offset) → what was found between two frames that is none: the first of them."""

    @property
    def identity(self) -> str:
        """``{stream}.{identity}``: unlike the name, it never comes again when a spool is lost. Empty before the first
        frame. Raises JournalDamaged where no segment has a header that can be read."""
        return identity_of(self.folder)

    @property
    def first_seq(self) -> int | None:
        """The oldest frame that is still there; None when there is none."""
        firsts = segments(self.folder)
        return firsts[0] if firsts else None

    @property
    def newest_segment(self) -> int | None:
        """The frame that the newest segment begins with."""
        firsts = segments(self.folder)
        return firsts[-1] if firsts else None

    def frames(self, from_seq: int = 0, previous: bytes | None = None) -> Iterator[RawFrame]:
        """Frames from ``from_seq`` (or the oldest) to the end as it is now. Call again later to follow.

        ``previous`` is the tag of frame ``from_seq`` − 1 as remembered by a cursor. Raises JournalDamaged where the
        chain breaks (a frame that doesn't open, number missing, segments that don't join, a tail cut below the cursor),
        CryptoError when a key is lost.
        """
        for piece in self.pieces(max(from_seq, self.first_seq or 0), previous):
            if isinstance(piece, Gap):
                self._position = None  # the next call finds it again
                raise JournalDamaged(self.stream, piece.seq, f"was changed, or is missing: {piece}")
            yield piece

    def pieces(self, from_seq: int, previous: bytes | None = None) -> Iterator[RawFrame | Gap]:
        """As :meth:`frames`, frames opened, with a gap in the place of what can't be read or is missing from
        ``from_seq`` on.

        Raises JournalDamaged where the stream isn't the one that was read before, and at an unreadable frame behind
        which nothing authenticates: its writer may still be at it, and says so when it starts the next time.
        """
        try:
            yield from self._follow(from_seq, previous)
        except FileNotFoundError:  # another process trimmed what we stood in: the next call begins with the oldest left
            self._position = None

    def _follow(self, from_seq: int, previous: bytes | None) -> Iterator[RawFrame | Gap]:
        position, missing = self._start(from_seq)
        yield from (gap.clipped(from_seq) for gap in missing)
        if position is None:
            return
        while True:
            self._position = position
            yield from _from(from_seq, self._rest(position, from_seq, previous))
            following = self._next_segment(position)
            if following is None:
                break
            yield from _from(from_seq, following[0])
            position = following[1]
        if position.seq < from_seq:
            raise JournalDamaged(
                self.stream,
                position.seq,
                f"is missing: the stream ends here, but was read up to frame {from_seq} before",
            )
        if position.seq == from_seq:
            self._same_stream(position, previous, None)

    def read(self, from_seq: int = 0) -> Iterator[tuple[int, Frame]]:
        """(number, record) from ``from_seq`` on; raises JournalDamaged."""
        for frame in self.frames(from_seq):
            yield frame.seq, frame.record()

    def chunk(self, from_seq: int, max_bytes: int = 4 << 20) -> Chunk | None:
        """Frames from ``from_seq``, at most about ``max_bytes`` and of one segment, to be shipped; None when there is
        nothing new.

        Every frame has been opened, so what is shipped is what was written; ``chunk.records`` are decoded.
        """
        read = self.chunk_or_gap(max(from_seq, self.first_seq or 0), max_bytes)
        if isinstance(read, Gap):
            self._position = None
            raise JournalDamaged(self.stream, read.seq, f"was changed, or is missing: {read}")
        return read

    def chunk_or_gap(
        self, from_seq: int, max_bytes: int = 4 << 20, *, upto: int | None = None, previous: bytes | None = None
    ) -> Chunk | Gap | None:
        """:meth:`chunk`, or the gap that ``from_seq`` lies in; ``upto``: the chunk's last frame, whatever its size.

        Bytes put between two frames are passed over; :attr:`foreign` has the places.
        """
        taken: list[RawFrame] = []
        size = 0
        for piece in self.pieces(from_seq, previous):
            if isinstance(piece, Gap):
                if not piece.frames:
                    self._pass_over(piece)
                    continue
                if not taken:
                    return piece
                break
            if taken and (
                piece.header is not taken[0].header or (upto is None and size + len(piece.ciphertext) > max_bytes)
            ):
                break
            taken.append(piece)
            size += FRAME.size + len(piece.ciphertext)
            if piece.seq == upto:
                break
        return pack_chunk(taken) if taken else None

    def _pass_over(self, gap: Gap) -> None:
        if len(self.foreign) < _FOREIGN:
            self.foreign.setdefault((gap.segment, gap.offset), str(gap))

    def trim(self, upto: int) -> int:
        """Delete segments that hold only frames below ``upto``; the last one, which may be being written, stays.
        Returns bytes freed."""
        firsts = segments(self.folder)
        freed = 0
        for first, following in pairwise(firsts):
            if following > upto:
                break
            path = segment_path(self.folder, first)
            for file in (*self.folder.glob(f"{path.stem}.torn-*"), path):
                freed += file.stat().st_size
                file.unlink()
        return freed

    def _start(self, seq: int) -> tuple[_Position | None, list[Gap]]:
        """A position at or before frame ``seq``, none for an empty stream; or behind it, and the gaps between: what
        can't be opened or was taken away."""
        position = self._position
        if position is not None and position.seq <= seq and self._holds_still(position):
            return position, []
        self._position = None
        firsts = segments(self.folder)
        trouble: JournalDamaged | None = None
        # The last one that opens before the frame leads to it over damaged ones; else the first one behind.
        for first in [*reversed([s for s in firsts if s <= seq]), *[s for s in firsts if s > seq]]:
            try:
                position = self._begin(first)
            except JournalDamaged as error:
                trouble, position = trouble or error, None
            if position is not None:
                return position, self._before(seq, position)
        if trouble is not None:
            raise trouble
        return None, []

    def _before(self, seq: int, position: _Position) -> list[Gap]:
        """What is missing from ``seq`` to ``position``, the oldest that opens."""
        if position.seq <= seq:
            return []
        files = [s for s in segments(self.folder) if s < position.seq]
        holder = max((s for s in files if s <= seq), default=seq)
        parts = [(holder, seq, 0, self._fault(holder)), *((s, s, 0, self._fault(s)) for s in files if s > seq)]
        return self._gaps(parts, position)

    def _fault(self, segment: int) -> str:
        """What is wrong with a segment's header."""
        try:
            parsed = self._open_segment(segment)
        except JournalDamaged as error:
            return error.what
        return "its header can't be opened" if parsed else "its header is missing"

    def _holds_still(self, position: _Position) -> bool:
        """Whether the segment is there as it was: one without a frame is made anew, with another key, when its writer
        was killed."""
        first = position.header.first_seq
        try:
            return position.seq > first and segment_path(self.folder, first).stat().st_size >= position.offset
        except FileNotFoundError:
            return False

    def _begin(self, first: int) -> _Position | None:
        opened = self._open_segment(first)
        if opened is None:
            return None
        header, offset = opened
        return _Position(header, header.key(self._cipher), offset, header.first_seq, header.previous)

    def _open_segment(self, first: int) -> tuple[Header, int] | None:
        return _open_segment(self.folder, first)

    def _next_segment(self, position: _Position) -> tuple[list[RawFrame | Gap], _Position] | None:
        """What lies between the end of ``position``'s segment, where it stands, and the next one that opens; and that
        one's beginning. None when there is none yet. Raises JournalDamaged for an end that can't be read then."""
        damaged: list[int] = []
        following: _Position | None = None
        trouble = JournalDamaged(self.stream, position.seq, position.stuck) if position.stuck else None
        for first in [s for s in segments(self.folder) if s > position.header.first_seq]:
            try:
                following = self._begin(first)
            except JournalDamaged as error:
                trouble = trouble or error
            if following is not None:
                break
            damaged.append(first)
        if following is None:
            if trouble is not None:
                raise trouble
            return None
        # The writer may have added frames between our last look and its roll: read them before going on.
        if segment_path(self.folder, position.header.first_seq).stat().st_size > position.seen:
            return [], position
        return self._between(position, damaged, following), following

    def _between(self, position: _Position, damaged: list[int], following: _Position) -> list[RawFrame | Gap]:
        frames: list[RawFrame | Gap] = []
        if position.seq < following.seq and not damaged:
            rest = self._bytes_from(position.header.first_seq, position.offset)
            mended = salvage(rest, position.place, following.previous)
            if isinstance(mended, RawFrame):
                frames.append(mended)
                position.advance(mended)
        joins = following.seq == position.seq and (following.previous == position.previous or not position.sure)
        declared = following.previous == NO_TAG and following.seq >= position.seq
        if following.header.identity != position.header.identity or not (
            joins or declared or following.seq > position.seq
        ):
            raise JournalDamaged(
                self.stream,
                position.seq,
                f"is missing or was changed: segment {position.header.first_seq} doesn't lead to segment {following.seq}",  # noqa: E501
            )
        if following.seq > position.seq or damaged:
            ahead = not damaged or damaged[0] > position.seq
            parts = [(position.header.first_seq, position.seq, position.offset, "")] if ahead else []
            frames += self._gaps([*parts, *((s, s, 0, self._fault(s)) for s in damaged)], following)
        return frames

    def _gaps(self, parts: list[tuple[int, int, int, str]], following: _Position) -> list[Gap]:
        """One for each of (segment, first frame, offset, why), up to the next one or to ``following``."""
        name = (self.stream, following.header.identity)
        ends = [*(part[1] for part in parts[1:]), following.seq]
        return [
            Gap.of(
                name,
                (first, end),
                (segment, offset),
                self._bytes_from(segment, offset),
                tag=following.previous,
                why=why,
            )
            for (segment, first, offset, why), end in zip(parts, ends, strict=True)
        ]

    def _bytes_from(self, segment: int, offset: int) -> bytes:
        """Nothing where the segment is gone."""
        try:
            with segment_path(self.folder, segment).open("rb") as file:
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            return b""

    def _rest(self, position: _Position, from_seq: int, previous: bytes | None) -> Iterator[RawFrame | Gap]:
        """What there is from ``position`` to the end of its segment, moving it along; frames from ``from_seq`` on are
        opened."""
        want = _BLOCK
        while True:
            with segment_path(self.folder, position.header.first_seq).open("rb") as file:
                file.seek(position.offset)
                data = file.read(want)
            base, bad = position.offset, False
            while not bad and (end := whole_end(data, position.offset - base, position.seq)) is not None:
                frame = _frame(data, position.offset - base, end, position)
                if position.seq == from_seq:
                    self._same_stream(position, previous, frame)
                opened = frame if position.seq < from_seq else frame.opened(position.previous)
                bad = opened is None
                if opened is not None:
                    yield opened
                    position.advance(opened)
            if not bad and len(data) == want:  # the next block begins with what is left; or it is a longer frame
                want = want * 4 if position.offset == base else _BLOCK
                continue
            piece = self._salvaged(position)
            if piece is None:
                return
            yield piece
            position.advance(piece)

    def _salvaged(self, position: _Position) -> RawFrame | Gap | None:
        """What is found behind the last frame that was read: None at the segment's end, or where nothing behind
        authenticates."""
        rest = self._bytes_from(position.header.first_seq, position.offset)
        position.seen, position.stuck = position.offset + len(rest), ""
        if not rest:
            return None
        end = whole_end(rest, 0, position.seq)
        if end is not None and (frame := _frame(rest, 0, end, position).opened(position.previous)) is not None:
            return frame  # it was added meanwhile
        piece = salvage(rest, position.place)
        if piece is None and len(rest) >= FRAME.size and (end is not None or not _may_go_on(rest, position.seq)):
            where = f"segment {position.header.first_seq}, byte {position.offset}"
            position.stuck = f"was changed, or the frame before it isn't the one it follows ({where})"
        return piece

    def _same_stream(self, position: _Position, previous: bytes | None, frame: RawFrame | None) -> None:
        """Raises JournalDamaged when the frame before ``position`` isn't the one with tag ``previous``, remembered by a
        cursor. Where its tag alone was changed on the disk, the frame behind it, ``frame``, proves the remembered one.
        """
        declared = position.previous == NO_TAG  # by a writer that couldn't read what was before
        if previous is None or position.previous == previous or declared:
            return
        if frame is None or frame.opened(previous) is None:
            raise JournalDamaged(
                self.stream, position.seq - 1, "isn't the one that was read before: the stream was replaced"
            )
        position.previous = previous


def _frame(data: bytes, at: int, end: int, position: _Position) -> RawFrame:
    """The whole frame between two places of ``data``, unopened."""
    _, attempt, _ = FRAME.unpack_from(data, at)
    ciphertext = data[at + FRAME.size : end]
    return RawFrame(
        position.header, position.key, position.seq, attempt, position.previous, ciphertext, position.offset
    )


def _may_go_on(data: bytes, seq: int) -> bool:
    """Whether ``data`` begins with the head of frame ``seq``, the rest of which may still come."""
    length, _, number = FRAME.unpack_from(data)
    return bool(number == seq and TAG_BYTES <= length <= FRAME_LIMIT)


def _from(seq: int, pieces: Iterable[RawFrame | Gap]) -> Iterator[RawFrame | Gap]:
    """Those that say something of frame ``seq`` or a later one."""
    for piece in pieces:
        if isinstance(piece, Gap):
            if max(piece.last_seq, piece.seq) >= seq:
                yield piece.clipped(seq)
        elif piece.seq >= seq:
            yield piece

"""What can still be read of a segment from a frame on that can't: the frame itself where only its head or its tag was
changed, otherwise the next one that authenticates, and a :class:`Gap` for what lies between.

Nothing is taken that doesn't authenticate. A frame's associated data hold the tag before it: a frame behind damage is
tried with the bytes that lie before it, which are that tag unless they were changed as well.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from governed_serving.crypto import SegmentKey
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.journal.format import FRAME, FRAME_LIMIT, NO_TAG, Header, RawFrame, frame_aad

__all__ = ["Gap", "Place", "heads_in", "salvage", "whole_end"]

_ATTEMPTS = (0, 1, 2, 3)
_BLOCK = 1 << 20
_TRIED = 256
_TRIED_BYTES = 256 << 20
"""Candidates that don't authenticate, in number and size, after which the search ends: a tamperer may have planted
them."""


class Gap(NamedTuple):
    """Frames ``seq`` … ``last_seq`` that can't be read (none, where bytes were put between two frames).

    They lie in ``length`` bytes (0: not there any more) from ``offset`` of segment ``segment``; ``digest`` is those
    bytes' SHA-256 (hex), ``tag`` what the frame behind them follows, ``why`` what is wrong, where more is known than
    that they were changed. ``identity`` is that of :attr:`~governed_serving.journal.reader.JournalReader.identity`.
    """

    stream: str
    identity: str
    segment: int
    seq: int
    last_seq: int
    offset: int
    length: int
    digest: str
    tag: bytes
    why: str = ""

    @property
    def frames(self) -> int:
        """How many."""
        return self.last_seq + 1 - self.seq

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.offset + self.length

    @classmethod
    def of(
        cls,
        name: tuple[str, str],
        seqs: tuple[int, int],
        place: tuple[int, int],
        data: bytes,
        *,
        tag: bytes,
        why: str = "",
    ) -> "Gap":
        """The gap of ``data``; ``name``: stream and identity, ``seqs``: the first frame and the one behind the last,
        ``place``: segment and offset."""
        segment, offset = place
        digest = hashlib.sha256(data).hexdigest()
        return cls(name[0], ".".join(name), segment, seqs[0], seqs[1] - 1, offset, len(data), digest, tag, why)

    def clipped(self, seq: int) -> "Gap":
        """What of it a reader lacks that has all before ``seq``."""
        return self._replace(seq=max(self.seq, seq))

    def __str__(self) -> str:
        many = f"frames {self.seq} to {self.last_seq} are" if self.frames > 1 else f"frame {self.seq} is"
        what = f"{many} unreadable" if self.frames else f"foreign bytes lie before frame {self.seq}"
        where = f"bytes {self.offset} to {self.end} of segment {self.segment}" if self.length else "nothing is left"
        return f"{what} ({where}, SHA-256 {self.digest}){': ' if self.why else ''}{self.why}"


class Place(NamedTuple):
    """Where frame ``seq`` should begin: at ``offset`` of a segment, behind a frame with tag ``previous``."""

    header: Header
    key: SegmentKey
    seq: int
    previous: bytes
    offset: int

    def frame(self, data: bytes, at: int, end: int, seq: int, previous: bytes, attempt: int) -> RawFrame | None:
        """The frame whose head begins at ``at`` of ``data`` and which ends at ``end``, opened; None when it isn't
        one."""
        if end - at - FRAME.size < TAG_BYTES:
            return None
        ciphertext = data[at + FRAME.size : end]
        return RawFrame(self.header, self.key, seq, attempt, previous, ciphertext, self.offset + at).opened()


def salvage(data: bytes, place: Place, successor: bytes | None = None) -> RawFrame | Gap | None:
    """The next that there is: ``data`` goes from ``place`` to the end of the segment, and doesn't begin with a frame
    that opens there.

    ``successor`` is the tag that the header of the next segment names. None: nothing behind authenticates.
    """
    mended = _by_tag(data, place, successor)
    if mended is not None:
        return mended
    behind = _next_authentic(data, place)
    end = behind.offset - place.offset if behind else len(data)
    mended = _by_head(data, place, end) if behind is None or behind.seq == place.seq + 1 else None
    if mended is not None or behind is None:
        return mended
    name = (place.header.stream, place.header.identity)
    seqs = (place.seq, behind.seq)
    return Gap.of(name, seqs, (place.header.first_seq, place.offset), data[:end], tag=behind.previous)


def whole_end(data: bytes, at: int, seq: int) -> int | None:
    """Where the whole frame ends that begins at ``at``, by its head; None when that isn't the head of ``seq``, or the
    frame goes on beyond ``data``."""
    if len(data) - at < FRAME.size:
        return None
    length, _, number = FRAME.unpack_from(data, at)
    end: int = at + FRAME.size + length
    return end if number == seq and TAG_BYTES <= length <= FRAME_LIMIT and end <= len(data) else None


def heads_in(data: bytes, seq: int) -> int:
    """How many frames from ``seq`` on a segment holds whose key is lost, judged by what looks like their heads."""
    count = 0
    for _, _, _, number in _heads(data, seq):
        if number == seq + count:
            count += 1
    return count


def _by_head(data: bytes, place: Place, end: int) -> RawFrame | None:
    """The frame up to ``end`` whose head alone was changed: its number is known, its length follows from ``end``."""
    said = FRAME.unpack_from(data)[1] if len(data) >= FRAME.size else 0
    for attempt in dict.fromkeys((said, *_ATTEMPTS)):
        frame = place.frame(data, 0, end, place.seq, place.previous, attempt)
        if frame is not None:
            return frame
    return None


def _by_tag(data: bytes, place: Place, successor: bytes | None) -> RawFrame | None:
    """The frame whose tag alone was changed: the one it must have had is named by the frame, or the segment, behind."""
    end = whole_end(data, 0, place.seq)
    if end is None:
        return None
    attempt = FRAME.unpack_from(data)[1]
    body, aad = data[FRAME.size : end - TAG_BYTES], frame_aad(place.header, place.seq, place.previous)
    tag = place.key.tag(attempt, place.seq, body, aad)
    following = whole_end(data, end, place.seq + 1)
    if following is not None:
        attempt_then = FRAME.unpack_from(data, end)[1]
        proven = place.frame(data, end, following, place.seq + 1, tag, attempt_then) is not None
    else:
        proven = end == len(data) and successor is not None and successor == tag != NO_TAG
    if not proven:
        return None
    frame = RawFrame(place.header, place.key, place.seq, attempt, place.previous, body + tag, place.offset)
    return frame.opened()


def _next_authentic(data: bytes, place: Place) -> RawFrame | None:
    """The first frame of a later number, or of this one further on, that authenticates behind what lies before it."""
    tried = size = 0
    for at, length, attempt, seq in _heads(data, place.seq):
        end = at + FRAME.size + length
        before = (data[at - TAG_BYTES : at], *([place.previous] if seq == place.seq else []))
        for previous in before:
            frame = place.frame(data, at, end, seq, previous, attempt)
            if frame is not None:
                return frame
        tried, size = tried + 1, size + length
        if tried >= _TRIED or size >= _TRIED_BYTES:
            return None
    return None


def _heads(data: bytes, seq: int) -> Iterator[tuple[int, int, int, int]]:
    """(offset, length, attempt, number) of whatever has the form of a frame's head behind the first byte, for numbers
    from ``seq`` on that so many bytes can hold."""
    least = FRAME.size + TAG_BYTES
    for start in range(TAG_BYTES, len(data) - least + 1, _BLOCK):
        window = np.frombuffer(data[start : start + _BLOCK + FRAME.size - 1], np.uint8).astype(np.uint64)
        count = len(window) - FRAME.size + 1
        number, length = _words(window[8:], 8, count), _words(window, 4, count)
        offsets = np.arange(start, start + count, dtype=np.uint64)
        most = np.uint64(seq) + offsets // np.uint64(least) + np.uint64(1)
        fits = (length >= TAG_BYTES) & (length <= FRAME_LIMIT) & (offsets + length + np.uint64(FRAME.size) <= len(data))
        for at in np.flatnonzero(fits & (number >= np.uint64(seq)) & (number <= most)).tolist():
            found_length, attempt, number = FRAME.unpack_from(data, start + at)
            yield start + at, found_length, attempt, number


def _words(
    window: "np.ndarray[tuple[int], np.dtype[np.uint64]]", width: int, count: int
) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """Big-endian integers of ``width`` bytes at every offset."""
    value = np.zeros(count, np.uint64)
    for place in range(width):
        value = (value << np.uint64(8)) | window[place : place + count]
    return value

"""Server-sent events as they arrive (WHATWG HTML, 9.2.6): bytes in any pieces to the data of each event."""

from typing import Final

from governed_serving.server.errors import UpstreamFailed

__all__ = ["EventStream"]

MOST: Final = 8 << 20
"""Bytes of one event."""
_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Lines end with CR, LF or both, and with nothing else: generated text may hold U+2028."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._size = most, 0
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._after_cr, self._first = False, True

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end with ``piece``. Raises UpstreamFailed for one that has no end."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        events: list[bytes] = []
        for part in piece.splitlines(keepends=True):
            self._size += len(part)
            if self._size > self._most:
                raise UpstreamFailed(
                    f"runtime: expected events of at most {self._most >> 20} MiB, found a longer one; ask for less"
                )
            self._line.append(part)
            if part.endswith((b"\r", b"\n")):
                self._ended(events)
        return events

    def rest(self) -> list[bytes]:
        """The event that the last line before the end of the stream belongs to: some servers leave the empty line
        out."""
        events: list[bytes] = []
        self._ended(events)
        self._dispatch(events)
        return events

    def _ended(self, events: list[bytes]) -> None:
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))

    def _dispatch(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
        self._data.clear()
        self._size = 0

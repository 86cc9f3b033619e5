"""Server-sent events in any pieces."""

import random

import pytest

from governed_serving.server.chat.event_stream import EventStream
from governed_serving.server.errors import UpstreamFailed


def read(pieces: list[bytes], most: int = 100) -> list[bytes]:
    stream = EventStream(most)
    events = [event for piece in pieces for event in stream.feed(piece)]
    return events + stream.rest()


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata:b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  two\n\n", [b" two"]),
        (b"data\n\ndata:\n\n", [b"", b""]),
        (b": ping\n\nevent: x\nid: 7\ndata: a\nretry: 1\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"datax: a\n\n Data: b\n\n", []),
        ("data: a\u2028b\x85c\n\n".encode(), ["a\u2028b\x85c".encode()]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_the_same_in_any_pieces(text: bytes, events: list[bytes]) -> None:
    assert read([text]) == events
    assert read([bytes([byte]) for byte in text]) == events
    draw = random.Random(1)
    for _ in range(50):
        cuts = sorted(draw.choices(range(len(text) + 1), k=3))
        assert read([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == events


def test_an_event_comes_with_the_line_that_ends_it() -> None:
    """A CR may be the first half of a line's end: the event isn't held back for the other half."""
    stream = EventStream()
    assert stream.feed(b"data: a\r\n\r") == [b"a"]
    assert stream.feed(b"\ndata: b\r\n\r\n") == [b"b"]


@pytest.mark.parametrize("piece", [b"data: ", b"x", b"data: x\n", b": \n"])
def test_an_event_without_an_end_is_refused(piece: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="events of at most"):
        read([piece] * 1001, 1000)


def test_many_events_are_no_long_one() -> None:
    assert len(read([b"data: " + b"x" * 50 + b"\n\n"] * 100)) == 100

"""The answer that is a backup: sent piece by piece, broken off where its client goes or the archive can't read on, and
its snapshot let go whatever happens."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from governed_serving.archive import app
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import ArchiveError

SCOPE = {"type": "http", "method": "GET", "headers": []}


class Pieces:
    """A snapshot of these pieces; ``error`` is raised behind them."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error, self.closed, self.read = pieces, error, 0, 0

    def chunks(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            yield piece
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


async def sent(pieces: Pieces, gone_after: int | None = None) -> list[dict[str, Any]]:
    """Events of the answer; the client is gone once it has had so many pieces."""
    events: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        bodies = sum(event["type"] == "http.response.body" for event in events)
        gone = gone_after is not None and bodies >= gone_after
        return {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": True}

    async def send(event: Any) -> None:
        events.append(event)

    await app._Streamed(cast(Snapshot, pieces))(dict(SCOPE), receive, send)
    return events


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    lines: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(app, "log", lambda level, message, **fields: lines.append((level, message, fields)))
    return lines


async def test_a_whole_backup_ends_with_an_empty_piece(logged: list[Any]) -> None:
    pieces = Pieces(b"one", b"two")
    head, *bodies = await sent(pieces)
    assert (head["type"], head["status"]) == ("http.response.start", 200)
    assert not any(name == b"content-length" for name, _ in head["headers"])
    assert [(event["body"], event.get("more_body", False)) for event in bodies] == [
        (b"one", True), (b"two", True), (b"", False)
    ]  # fmt: skip
    assert (pieces.closed, logged) == (1, [])


async def test_a_client_that_goes_ends_the_reading(logged: list[Any]) -> None:
    pieces = Pieces(b"one", b"two", b"three")
    events = await sent(pieces, gone_after=1)
    assert [event["body"] for event in events[1:]] == [b"one"]
    assert (pieces.read, pieces.closed) == (1, 1)
    assert logged == [("warning", "a backup was broken off by its client", {})]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ArchiveError("frame 7 is damaged"), "frame 7 is damaged"),
        (OSError(), "OSError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
async def test_what_cannot_be_read_on_leaves_a_backup_without_its_end(
    error: Exception, told: str, logged: list[Any]
) -> None:
    pieces = Pieces(b"one", error=error)
    events = await sent(pieces)
    assert [event.get("more_body") for event in events[1:]] == [True], "no last piece: the connection is cut"
    assert pieces.closed == 1
    assert logged == [("error", "a backup was broken off", {"error": told})]

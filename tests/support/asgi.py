"""An application called as a server calls it, for what no client library does."""

from collections.abc import Sequence
from typing import Any

__all__ = ["cut_short"]


async def cut_short(
    app: Any, method: str, path: str, headers: Sequence[tuple[bytes, bytes]] = (), *pieces: bytes
) -> list[int]:
    """Statuses that ``app`` answers to a request whose client goes after ``pieces`` of the body, more of which was to
    come."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,  # noqa: E501
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": list(headers),
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses

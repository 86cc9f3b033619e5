"""Closed-loop load: every connection sends the same request again as soon as its answer is there."""

import asyncio
import json
import sys

import uvloop


class Client(asyncio.Protocol):
    """One connection. ``tally`` is [answers, errors]."""

    def __init__(self, request: bytes, tally: list[int]) -> None:
        self.request, self.tally = request, tally
        self.buffer, self.needed = b"", 0
        self.running = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            start = head.index(b"content-length:") + 15
            self.needed = end + 4 + int(head[start:].split(b"\r\n", 1)[0])
        if len(self.buffer) < self.needed:
            return
        self.tally[0 if self.buffer.startswith(b"HTTP/1.1 200") else 1] += 1
        self.buffer, self.needed = b"", 0
        if self.running:
            self.transport.write(self.request)  # type: ignore[attr-defined]
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.running:
            self.tally[1] += 1


async def run(port: int, path: str, body: bytes, connections: int, seconds: float, header: str = "") -> list[int]:
    """[answers with 200, anything else] within ``seconds``; ``header``: one more field."""
    more = header.encode() + b"\r\n" if header else b""
    request = (
        b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path.encode(), more, len(body), body)
    )
    tally = [0, 0]
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request, tally), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(seconds)
    for _, client in made:
        client.running = False
    return tally


if __name__ == "__main__":
    port, path, file, connections, seconds, *header = sys.argv[1:]
    with open(file, "rb") as handle:
        content = handle.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(int(port), path, content, int(connections), float(seconds), *header))))

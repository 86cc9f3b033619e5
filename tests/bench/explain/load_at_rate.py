"""Open-loop load: requests leave at fixed times, whatever the answers do; prints the latencies from those times
(milliseconds) as JSON."""

import asyncio
import json
import sys
from collections import deque

import uvloop


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, idle: deque) -> None:
        self.idle, self.buffer, self.needed, self.due = idle, b"", 0, 0.0
        self.failed = 0
        self.latencies: list[float] = []

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.idle.append(self)

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            self.needed = end + 4 + int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) >= self.needed:
            self.failed += not self.buffer.startswith(b"HTTP/1.1 200")
            self.latencies.append((asyncio.get_running_loop().time() - self.due) * 1000)
            self.buffer, self.needed = b"", 0
            self.idle.append(self)


async def run(port: int, path: str, bodies: list[bytes], rate: float, seconds: float, warm: float) -> dict:
    requests = [
        b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), len(body), body)
        for body in bodies
    ]
    loop, idle = asyncio.get_running_loop(), deque()
    clients = [(await loop.create_connection(lambda: Client(idle), "127.0.0.1", port))[1] for _ in range(64)]
    start, late = loop.time() + 0.05, 0
    for number in range(int(rate * (seconds + warm))):
        due = start + number / rate
        if number == int(rate * warm):
            for client in clients:
                client.latencies.clear()
        while (left := due - loop.time()) > 0:  # noqa: ASYNC110  a clock is what is waited for
            await asyncio.sleep(left)
        while not idle:  # all connections wait: the request leaves late, and its latency counts from when it was due
            late += 1
            await asyncio.sleep(0.0005)
        idle.popleft().ask(requests[number % len(requests)], due)
    deadline = loop.time() + 60
    while len(idle) < len(clients) and loop.time() < deadline:  # noqa: ASYNC110  the end of a bench
        await asyncio.sleep(0.01)
    return {
        "latencies": [latency for client in clients for latency in client.latencies],
        "failed": sum(client.failed for client in clients) + len(clients) - len(idle),
        "late": late,
    }


if __name__ == "__main__":
    port, path, file, rate, seconds, warm = sys.argv[1:]
    with open(file) as handle:
        bodies = [json.dumps(body).encode() for body in json.load(handle)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(int(port), path, bodies, float(rate), float(seconds), float(warm)))))

"""Requests that are offered to a server on loopback: at a rate, whatever the answers do, or as fast as it answers.

Prints what became of them as JSON. Bounded: in seconds, in connections, and by the rate in count. Latencies count from
when a request was due, so that a server that makes its clients wait can't hide it.
"""

import argparse
import asyncio
import json
import sys
from array import array
from collections import Counter, deque

import uvloop

DRAIN_SECONDS = 90.0
"""Answers to what was sent are waited for: the longest timeout of the bench's models, and some."""
TICK = 0.002


class Load:
    """What is sent, and what came of it."""

    def __init__(self, request: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.request, self.now = request, loop.time
        self.statuses: Counter[int] = Counter()
        self.good = array("d")
        """Seconds of each answer with 200."""
        self.idle: deque[Client] = deque()
        self.open = self.sent = self.waiting = 0
        self.end = loop.time() + seconds
        self.in_time = 0
        """Answers with 200 before the end."""
        self.endless = False
        """As fast as it answers."""

    def answered(self, status: int, due: float) -> None:
        self.waiting -= 1
        self.statuses[status] += 1
        if status == 200:
            self.good.append(self.now() - due)
            self.in_time += self.now() <= self.end

    def figures(self, unsent: int, seconds: float) -> dict[str, object]:
        """``unanswered``: sent, and no answer came; 0 among the statuses: the connection was closed instead."""
        good = sorted(self.good)
        at = {name: good[min(len(good) - 1, int(len(good) * q))] if good else None for name, q in QUANTILES.items()}
        return {
            "statuses": dict(sorted(self.statuses.items())), "sent": self.sent, "unsent": unsent,
            "unanswered": self.waiting, "rate": self.in_time / seconds, **at,
        }  # fmt: skip


QUANTILES = {"p50": 0.5, "p99": 0.99}


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self.load, self.due, self.busy = load, 0.0, False
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.open += 1
        self._free()

    def ask(self, due: float) -> None:
        self.due, self.busy = due, True
        self.load.sent += 1
        self.load.waiting += 1
        self.transport.write(self.load.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        if len(self.buffer) < end + 4 + int(head[start:].split(b"\r\n", 1)[0]):
            return
        self.buffer, self.busy = b"", False
        self.load.answered(int(head[9:12]), self.due)
        self._free()

    def _free(self) -> None:
        if self.load.endless and self.load.now() < self.load.end:
            self.ask(self.load.now())
        else:
            self.load.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.load.open -= 1
        if self.busy:
            self.load.answered(0, self.due)
        elif self in self.load.idle:
            self.load.idle.remove(self)


async def offered(load: Load, port: int, rate: float, connections: int) -> int:
    """Until the load's end; ``rate`` in requests a second, 0 for as fast as it answers. What could not be sent, as all
    ``connections`` waited for an answer."""
    loop, began, unsent, number = asyncio.get_running_loop(), load.now(), 0, 0
    pending: set[asyncio.Task[object]] = set()

    def connect() -> None:
        made = loop.create_task(loop.create_connection(lambda: Client(load), "127.0.0.1", port))
        pending.add(made)
        made.add_done_callback(pending.discard)

    load.endless = not rate
    for _ in range(connections if load.endless else min(connections, 64)):
        connect()
    while (now := load.now()) < load.end:
        due, opened = int((now - began) * rate), False
        while number < due:
            number += 1
            if load.idle:
                load.idle.popleft().ask(began + number / rate)
                continue
            unsent += 1
            if not opened and load.open + len(pending) < connections:  # more at a time overflow the kernel's queue
                opened = True
                connect()
        await asyncio.sleep(TICK)
    last = load.now() + DRAIN_SECONDS
    while load.waiting and load.now() < last:  # noqa: ASYNC110  a counter is what is waited for
        await asyncio.sleep(0.05)
    return unsent


async def run(options: argparse.Namespace) -> dict[str, object]:
    body = options.body.encode()
    fields = "".join(f"{field}\r\n" for field in ["host: localhost", "content-type: application/json", *options.header])
    head = f"POST {options.path} HTTP/1.1\r\n{fields}content-length: {len(body)}\r\n\r\n"
    load = Load(head.encode() + body, options.seconds)
    return load.figures(await offered(load, options.port, options.rate, options.connections), options.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", help="JSON")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--header", action="append", default=[])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(run(parser.parse_args())), sys.stdout)

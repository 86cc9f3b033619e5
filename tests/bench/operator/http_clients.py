"""CPU of one request, client by client: our connection, aiohttp's session, httpx, and the kubernetes client's own call.

    python tests/bench/operator/http_clients.py [--requests N]

The other side is a process of its own that answers every request with one Deployment of 4 KiB, over plain HTTP on
loopback: what is measured is this process's user and system time. Each client's turn comes several times, so that a
busy machine hits all alike.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
import uvloop
from kubernetes.aio import client
from rich.console import Console
from rich.table import Table

from governed_operator.kube.connection import Connections, Origin, header_lines

PATH = "/apis/apps/v1/namespaces/n/deployments/m-predictor"
TURNS = 5
PARALLEL = 24
"""As the operator's applier has it."""
HEADERS = {"Authorization": "Bearer " + "t" * 900, "Accept": "application/json", "Content-Type": "application/json"}
BODY = {"metadata": {"name": "m-predictor"}, "spec": {"template": {"spec": {"containers": ["x" * 20] * 60}}}}
Call = Callable[[], Awaitable[object]]

SERVER = """
import asyncio, json, sys, uvloop, httptools
answer = json.dumps({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "m"}, "spec": {"x": ["y" * 30] * 120}}).encode()
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(answer)
class Side(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.parser = transport, httptools.HttpRequestParser(self)
    def data_received(self, data): self.parser.feed_data(data)
    def on_message_complete(self): self.transport.write(head + answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Side, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""  # noqa: E501


@contextmanager
def answering() -> Iterator[str]:
    """URL of the other side."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


async def milliseconds(call: Call, requests: int) -> float:
    """CPU per request."""

    async def one(number: int) -> None:
        for _ in range(number):
            await call()

    await one(20)
    began = time.process_time()
    await asyncio.gather(*(one(requests // PARALLEL) for _ in range(PARALLEL)))
    return (time.process_time() - began) / (requests // PARALLEL * PARALLEL) * 1000


async def measured(url: str, requests: int) -> dict[str, list[float]]:
    ours, lines, body = Connections(Origin(url)), header_lines(HEADERS), json.dumps(BODY).encode()
    configuration = client.Configuration(host=url)
    async with (
        aiohttp.ClientSession() as session,
        httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=128)) as modern,
        client.ApiClient(configuration) as api,
    ):
        apps = client.AppsV1Api(api)

        async def by_us() -> None:
            status, answer = await ours.request("PATCH", PATH, lines, body, 30.0)
            assert (status, len(answer) > 4000) == (200, True)

        async def by_aiohttp() -> None:
            async with session.patch(url + PATH, data=body, headers=HEADERS) as answer:
                assert len(await answer.read()) > 4000

        async def by_httpx() -> None:
            (await modern.patch(url + PATH, content=body, headers=HEADERS)).raise_for_status()

        async def by_kubernetes() -> None:
            await apps.patch_namespaced_deployment_without_preload_content("m-predictor", "n", BODY)

        calls: dict[str, Call] = {
            "ours (kube/connection.py)": by_us,
            "aiohttp.ClientSession": by_aiohttp,
            "httpx.AsyncClient": by_httpx,
            "kubernetes.aio, answer unread": by_kubernetes,
        }
        out: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(TURNS):
            for name, call in calls.items():
                out[name].append(await milliseconds(call, requests))
        ours.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1200, help="in each turn of each client")
    requests = parser.parse_args().requests
    with answering() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measured(url, requests))
    table = Table(
        "client", "ms of CPU a request, median", "least", "most", title=f"{TURNS} turns of {requests} PATCHes"
    )
    for name, values in found.items():
        table.add_row(name, *(f"{x:.3f}" for x in (statistics.median(values), min(values), max(values))))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""A network for kwok's pods where each address answers and says which one it is: proxies on this machine need somebody
to reach.

The kernel takes the whole network as its own (a local route, so root alone may), and one thread serves all its
addresses.
"""

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_network

from support.host import require_packages


def own_network() -> IPv4Network:
    """One of the networks that RFC 2544 keeps for tests, by process id, so that runs side by side don't meet."""
    return IPv4Network(f"198.18.{os.getpid() % 256}.0/24")


@contextmanager
def answering(cidr: str, port: int) -> Iterator[None]:
    """HTTP on `port` of every address in `cidr`: 200 and {"address", "path"}, whoever has the address or had it."""
    network = ip_network(cidr, strict=False)
    route = ["local", str(network), "dev", "lo"]
    require_packages({"ip": "iproute2"})
    subprocess.run(["ip", "route", "replace", *route], check=True)
    try:
        with _serving([str(address) for address in network.hosts()], port):
            yield
    finally:
        subprocess.run(["ip", "route", "del", *route], check=True)


@contextmanager
def _serving(addresses: list[str], port: int) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(_answer, addresses, port), loop).result(30)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(server: asyncio.Server) -> None:
    """Connections that a proxy keeps open end as well."""
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, kept alive; no test sends a body."""
    address = writer.get_extra_info("sockname")[0]
    try:
        while request := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
            body = json.dumps({"address": address, "path": request.split(" ", 2)[1]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the proxy is done with this connection
    finally:
        writer.close()

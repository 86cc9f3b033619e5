"""The operator with aiohttp's session in place of our own HTTP connection: the other side of a comparison, never
shipped.

python tests/bench/operator/aiohttp_requests.py   (many_models.py --with aiohttp_requests starts it)
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from governed_operator import __main__ as program
from governed_operator.kube import cluster
from governed_operator.kube.connection import Origin


class Session:
    """As much of Connections as Cluster uses. No proxies: the bed has none."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._kept: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._kept is None:
            connector = aiohttp.TCPConnector(ssl=self._origin.tls or True, limit=0)
            self._kept = aiohttp.ClientSession(connector=connector)
        return self._kept

    async def request(
        self, method: str, target: str, headers: str, body: bytes | None, seconds: float
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        url = self._origin.url + target
        try:
            async with self._session.request(
                method, url, data=body, headers=fields(headers), timeout=timeout
            ) as answer:
                return answer.status, await answer.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: str, silence: float, rest: float = 0.0
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        del rest  # pieces are read as they come
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence)
        url = self._origin.url + target
        try:
            async with self._session.request(method, url, headers=fields(headers), timeout=timeout) as answer:
                yield answer.status, answer.content.iter_any()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        """The process ends: so do its connections."""


def fields(lines: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines.split("\r\n") if line)


if __name__ == "__main__":
    cluster.Connections = Session  # type: ignore[assignment, misc]
    program.main()

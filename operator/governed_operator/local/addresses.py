"""Ports and URLs of the cluster → loopback with an offset."""

import contextlib
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from governed_api.names import REPORT_PLURAL
from governed_api.runtime import LOOPBACK
from governed_operator.desired.manifest import Manifest
from governed_operator.local.errors import PortTaken
from governed_operator.local.workdir import Workdir


class Addresses:
    """Translates what containers are told about ports, Services and reports."""

    def __init__(
        self,
        offset: int,
        workdir: Workdir,
        services: Iterable[Manifest],
        foreign: Iterable[int] = (),
        host: str = LOOPBACK,
    ) -> None:
        self.offset, self._host = offset, host
        self._workdir = workdir
        self._services = {f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc" for s in services}
        self._foreign = frozenset(foreign)

    def host(self, container: str) -> str:
        """Address that a container's process listens on: the server's may be reached from elsewhere, no other's."""
        return self._host if container == "server" else LOOPBACK

    def port(self, number: int) -> int:
        """Where a container port is found; foreign runtimes keep theirs, since they don't read our environment."""
        return number if number in self._foreign else number + self.offset

    def url(self, text: str) -> str:
        """A URL as a local process must use it; anything else unchanged."""
        parts = urlsplit(text)
        if parts.scheme == "https" and f"/{REPORT_PLURAL}/" in parts.path:
            return self._workdir.reports.joinpath(f"{parts.path.split('/')[-2]}.json").as_uri()
        if parts.scheme == "https" and "/configmaps/" in parts.path:
            return ""  # no API server to hear of it from: its file is looked at
        if parts.scheme != "http" or parts.port is None:
            return text
        if parts.hostname in (LOOPBACK, "localhost") or parts.hostname in self._services:
            return urlunsplit(parts._replace(netloc=f"{LOOPBACK}:{self.port(parts.port)}"))
        return text


def refuse_taken(ports: dict[int, str]) -> None:
    """Raises PortTaken for the first port that can't be bound; ``ports`` says which container needs it."""
    for number, container in sorted(ports.items()):
        if not 1 <= number <= 65535:
            raise PortTaken(f"port {number} ({container}) is out of range 1 to 65535: choose a smaller --port-offset")
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", number))
            except OSError as error:
                raise PortTaken(
                    f"port {number}, which {container} needs, is taken ({error.strerror}): "
                    "stop what listens there, or shift all ports with --port-offset N"
                ) from error

"""One small document over https: no redirect is followed, no more is read than it may have, no longer than it may take.

What is asked is named by people of a namespace: so it must show a certificate for the very name, and nothing of an
answer that isn't the document goes anywhere.
"""

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from urllib.parse import urlsplit

__all__ = ["NotFetched", "fetched"]

LARGEST = 256 << 10
"""Bytes of a document."""
SECONDS = 10.0
"""That all of it may take."""
_STEP = 5.0


class NotFetched(Exception):
    """Why, in words for a status."""


def fetched(url: str, authorities: str = "") -> bytes:
    """What is at ``url``. ``authorities``: PEM of those that may vouch for it; the machine's where none are given.
    Blocks. Raises NotFetched."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if not host or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError
    except ValueError:
        raise NotFetched("expected https://HOST/PATH, found an address that is none") from None
    try:
        context = ssl.create_default_context(cadata=authorities or None)
    except (ssl.SSLError, ValueError):
        raise NotFetched("expected certificates as PEM in certificateAuthority, found something else") from None
    connection = http.client.HTTPSConnection(host, port, timeout=_STEP, context=context)
    deadline = _Deadline(connection)
    try:
        connection.connect()
        deadline.sock = connection.sock
        data = _read(connection, parts.path or "/", parts.query)
        if deadline.passed.is_set():  # cut short, and without a length nobody would know
            raise TimeoutError
        return data
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotFetched(f"{host} {_why(error, late=deadline.passed.is_set())}") from None
    finally:
        deadline.cancel()
        connection.close()


class _Deadline:
    """Ends a connection that takes too long, however often something comes."""

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        self._connection = connection
        self.sock: socket.socket | None = None
        """Kept apart: the connection forgets it once an answer's end is the connection's."""
        self.passed = threading.Event()
        self._timer = threading.Timer(SECONDS, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.passed.set()
        for sock in (self.sock, self._connection.sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        self._timer.cancel()


def _read(connection: http.client.HTTPSConnection, path: str, query: str) -> bytes:
    """Raises NotFetched, and what a connection does."""
    target = f"{path}?{query}" if query else path
    connection.request("GET", target, headers={"accept": "application/json"})
    with connection.getresponse() as answer:
        if 300 <= answer.status < 400:
            raise NotFetched(f"{connection.host} answered with a redirect (HTTP {answer.status}), which isn't followed")
        if answer.status != 200:
            raise NotFetched(f"{connection.host} answered HTTP {answer.status}")
        data = answer.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise NotFetched(f"{connection.host} answered more than {LARGEST} bytes")
    return data


def _why(error: Exception, *, late: bool) -> str:
    if late or isinstance(error, TimeoutError):
        return f"didn't answer within {SECONDS:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"showed a certificate that doesn't count: {error.verify_message}; see certificateAuthority"
    if isinstance(error, socket.gaierror):
        return "is no name that can be resolved"
    return "can't be reached" if isinstance(error, OSError) else "answered something that is no HTTP"

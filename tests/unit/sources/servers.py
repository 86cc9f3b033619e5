"""An HTTP server on loopback that answers as a test says, and remembers what it was asked."""

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Answer:
    """``cut``: bytes after which the connection ends; ``length`` announces another length than the body's."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None


@dataclass
class Asked:
    path: str
    headers: dict[str, str]


Route = Callable[[Asked], Answer]


class Bed:
    """Routes by path without query; a list answers one after the other, its last entry for ever."""

    def __init__(self) -> None:
        self.routes: dict[str, list[Answer | Route]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def at(self, path: str, *answers: Answer | Route) -> str:
        self.routes[path] = list(answers)
        return f"{self.url}{path}"

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        queue = self.routes.get(asked.path.partition("?")[0])
        if not queue:
            return Answer(status=404)
        found = queue.pop(0) if len(queue) > 1 else queue[0]
        return found if isinstance(found, Answer) else found(asked)


def ranged(body: bytes, etag: str = '"one"', cut: int | None = None) -> Route:
    """As a good server: ranges, If-Range, ETag; ``cut`` ends each answer after so many bytes."""

    def route(asked: Asked) -> Answer:
        wanted = asked.headers.get("range", "")
        if wanted and asked.headers.get("if-range", etag) == etag:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            said = f"bytes {first}-{len(body) - 1}/{len(body)}"
            return Answer(body[first:], 206, {"etag": etag, "content-range": said}, cut)
        return Answer(body, 200, {"etag": etag}, cut)

    return route


def as_json(value: object, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), 200, headers)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def bed(certificate: Path | None = None, key: Path | None = None) -> Iterator[Bed]:
    """By TLS where a certificate is given."""
    made = Bed()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            answer = made.answer(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body) if answer.length is None else answer.length))
            if answer.cut is not None:
                self.close_connection = True
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are what is tested
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    made.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
